"""Data sets, tokenisation and batches."""

from mmlearn.data.batches import Batches, PairCollate, fetch, image_statistics
from mmlearn.data.catalogue import CARDS, load
from mmlearn.data.tokenizer import Tokenizer

__all__ = ["CARDS", "Batches", "PairCollate", "Tokenizer", "fetch", "image_statistics", "load"]
