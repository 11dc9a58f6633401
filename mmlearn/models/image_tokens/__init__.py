"""Images as tokens: codebooks turn them into codes, and a language model reads and writes words and codes alike."""
