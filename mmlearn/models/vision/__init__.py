"""Image encoders, and a detector."""
