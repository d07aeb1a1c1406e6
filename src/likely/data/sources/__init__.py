"""Formats in which image data sets come, one module each."""
