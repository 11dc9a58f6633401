"""One transformer, or two that meet, over the words and the pixels or regions of a picture."""
