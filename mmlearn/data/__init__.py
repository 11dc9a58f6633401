"""Data sets, tokenisation and batches."""

from mmlearn.data.batches import Batches, PairCollate, fetch, image_statistics
from mmlearn.data.catalogue import data_sets, load
from mmlearn.data.tokenizer import Tokenizer

__all__ = ["Batches", "PairCollate", "Tokenizer", "data_sets", "fetch", "image_statistics", "load"]
