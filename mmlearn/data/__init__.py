"""Data sets, tokenisation and batches."""

from mmlearn.data.batches import Batches, fetch, image_statistics
from mmlearn.data.catalogue import CARDS, load
from mmlearn.data.collate import Alternate, Collate
from mmlearn.data.tokenizer import Tokenizer

__all__ = ["CARDS", "Alternate", "Batches", "Collate", "Tokenizer", "fetch", "image_statistics", "load"]
