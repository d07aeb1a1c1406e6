"""Checks of a dataset: unreadable files, duplicates, near-duplicates, class sizes."""
