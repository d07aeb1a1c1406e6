"""The one training loop and what it needs. It knows objectives, never a model by name."""
