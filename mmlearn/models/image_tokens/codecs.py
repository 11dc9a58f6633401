"""The codecs that other systems build on: they are trained first, and make codes of images."""

from mmlearn.models.image_tokens.discrete_vae import DiscreteVAE, DiscreteVAEConfig
from mmlearn.models.image_tokens.vq_vae import VQVAE, VQVAEConfig

__all__ = ["VQVAE", "DiscreteVAE", "DiscreteVAEConfig", "VQVAEConfig"]
