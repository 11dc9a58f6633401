"""One transformer, or two joined by cross-attention, over the words and the pixels or regions of a picture."""
