"""Data that is rendered: scenes, their sounds and videos, talking lips."""
