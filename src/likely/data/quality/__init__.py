"""Checks of a data set: unreadable files, duplicates, near-duplicates, class sizes."""
