"""Load published checkpoints: one table of names per family, and nothing left over."""

from mmlearn.pretrained.loading import load_pretrained
from mmlearn.pretrained.zoo import load_processor

__all__ = ["load_pretrained", "load_processor"]
