"""Composition of images: grids, captions, explanation figures."""
