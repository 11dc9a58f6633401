"""Questions about a picture, before transformers."""
