"""Fusion before transformers: by concatenation, gates and products, and by autoencoders."""
