"""Data sets, tokenisation and batches."""

from mmlearn.data.batches import Batches, fetch, image_statistics
from mmlearn.data.catalogue import data_sets, load
from mmlearn.data.collate import Alternate, Collate, InTurn
from mmlearn.data.tokenizer import Tokenizer
from mmlearn.data.user_data import own_pairs, without_boxes

__all__ = [
    "Alternate", "Batches", "Collate", "InTurn", "Tokenizer", "data_sets", "fetch", "image_statistics", "load",
    "own_pairs", "without_boxes",
]  # fmt: skip
