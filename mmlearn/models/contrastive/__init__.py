"""Dual encoders that learn by telling pairs apart."""
