"""Data sets, tokenisation and batches."""

from mmlearn.data.batches import Batches, fetch, image_statistics
from mmlearn.data.catalogue import data_sets, load
from mmlearn.data.collate import Collate, RoundRobin, TaskSampler
from mmlearn.data.tokenizer import Tokenizer
from mmlearn.data.user_data import own_pairs, without_boxes

__all__ = [
    "Batches",
    "Collate",
    "RoundRobin",
    "TaskSampler",
    "Tokenizer",
    "data_sets",
    "fetch",
    "image_statistics",
    "load",
    "own_pairs",
    "without_boxes",
]  # fmt: skip
