"""What at least three systems share."""

from mmlearn.layers.attention import Attention, attention, attention_weights
from mmlearn.layers.config import Config
from mmlearn.layers.embeddings import ImageEmbedding, TextEmbedding, patchify
from mmlearn.layers.encoders import ImageEncoder, ImageEncoderConfig, TextEncoder, TextEncoderConfig
from mmlearn.layers.heads import small_linear
from mmlearn.layers.language import BERTEmbedding, BERTEncoderConfig, MaskedLanguageHead
from mmlearn.layers.pooling import AttentionPooling, real_tokens_first, select_tokens
from mmlearn.layers.positions import rotary_angles, rotate, sinusoidal_grid, sinusoidal_positions
from mmlearn.layers.recording import record_attention
from mmlearn.layers.transformer import MLP, Transformer, TransformerBlock, TransformerConfig

__all__ = [
    "MLP", "Attention", "AttentionPooling", "BERTEmbedding", "BERTEncoderConfig", "Config", "ImageEmbedding",
    "ImageEncoder", "ImageEncoderConfig", "MaskedLanguageHead", "TextEmbedding", "TextEncoder", "TextEncoderConfig",
    "Transformer", "TransformerBlock", "TransformerConfig", "attention", "attention_weights", "patchify",
    "real_tokens_first", "record_attention", "rotary_angles", "rotate", "select_tokens", "sinusoidal_grid",
    "sinusoidal_positions", "small_linear",
]  # fmt: skip
