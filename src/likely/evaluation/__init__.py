"""Metrics of models and generated images, and the procedures that compute them. No prose, no HTML, no images."""
