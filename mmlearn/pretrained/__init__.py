"""Load published checkpoints: one table of names per family, and nothing left over."""

from mmlearn.pretrained.loading import load_pretrained

__all__ = ["load_pretrained"]
