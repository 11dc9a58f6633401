"""The engine that takes padding out of a batch, for families that are not written on the plain layers yet.

It is on its way out: nothing new may use it, and the last family to be converted deletes it.
"""

from mmlearn.layers.padded.attention import Attention
from mmlearn.layers.padded.language import BERTEmbedding, MaskedLanguageHead, bert_transformer
from mmlearn.layers.padded.padding import NO_PADDING, Padding
from mmlearn.layers.padded.transformer import MLP, Transformer, TransformerBlock

__all__ = [
    "MLP",
    "NO_PADDING",
    "Attention",
    "BERTEmbedding",
    "MaskedLanguageHead",
    "Padding",
    "Transformer",
    "TransformerBlock",
    "bert_transformer",
]
