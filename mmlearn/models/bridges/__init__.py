"""Bridges from pictures to a language model that others have trained, and that stays as it is."""
