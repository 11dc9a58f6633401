"""Drawing from words: a generator that paints what a caption says, and a discriminator that reads the caption too."""
