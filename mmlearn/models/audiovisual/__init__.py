"""Sound and moving pictures together."""
