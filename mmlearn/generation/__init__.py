"""How a model writes: from scores of the next token, or of each frame, to a text."""
