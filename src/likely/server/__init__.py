"""HTTP service, prediction store and web pages."""
