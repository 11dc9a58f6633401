"""Three modalities and more."""
