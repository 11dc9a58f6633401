"""What at least three systems share."""

from mmlearn.layers.attention import Attention, attention, attention_weights, record_attention
from mmlearn.layers.config import Config
from mmlearn.layers.embeddings import ImageEmbedding, TextEmbedding, patchify, sinusoidal_positions
from mmlearn.layers.encoders import ImageEncoder, ImageEncoderConfig, TextEncoder, TextEncoderConfig
from mmlearn.layers.padding import NO_PADDING, Padding
from mmlearn.layers.pooling import AttentionPooling, select_tokens
from mmlearn.layers.transformer import MLP, Transformer, TransformerBlock

__all__ = [
    "MLP",
    "NO_PADDING",
    "Attention",
    "AttentionPooling",
    "Config",
    "ImageEmbedding",
    "ImageEncoder",
    "ImageEncoderConfig",
    "Padding",
    "TextEmbedding",
    "TextEncoder",
    "TextEncoderConfig",
    "Transformer",
    "TransformerBlock",
    "attention",
    "attention_weights",
    "patchify",
    "record_attention",
    "select_tokens",
    "sinusoidal_positions",
]
