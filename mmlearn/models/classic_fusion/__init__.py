"""Fusion before transformers: by vectors, gates and products, and by autoencoders."""
