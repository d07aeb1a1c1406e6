"""Composition of images: grids, captions, explanations."""
