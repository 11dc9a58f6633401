"""Dual encoders that learn by contrasting matching pairs with others."""
