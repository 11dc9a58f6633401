"""Captioners before transformers: a convolutional network encodes the image, and a recurrent one writes."""
