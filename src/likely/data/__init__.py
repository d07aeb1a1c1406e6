"""Data sets: discovery, decoding, preprocessing, splits, and quality checks of images and labels."""
