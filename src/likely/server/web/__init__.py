"""The service's pages: HTML, style and ES modules as they are, in `pages`."""
