"""Model inputs other than pixels: features, their extraction and caching, and image generation from features."""
