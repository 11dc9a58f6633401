"""The vokenizer, the first stage of Vokenization: tokens in their context and pictures in one space."""

from dataclasses import dataclass
from functools import partial
from typing import Self

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.layers import BERTEmbedding, BERTEncoderConfig, Transformer
from mmlearn.layers.language import TINY_BERT, initialise_as_bert
from mmlearn.models.align.pair_queue import queue_positions
from mmlearn.models.vision.backbone import Backbone
from mmlearn.objectives.vokens import nearest_vokens


@dataclass(frozen=True)
class VokenizerConfig(BERTEncoderConfig):
    matched_layers: int = 4  # a token is the outputs of so many last blocks, concatenated
    image_width: int = Backbone.width  # features of a picture
    hidden_width: int = 256  # of both MLPs
    embedding_width: int = 64
    match_dropout: float = 0.3  # in both MLPs
    margin: float = 0.5
    num_vokens: int = 50_000


TINY_VOKENIZER = VokenizerConfig(**TINY_BERT | dict(depth=2, matched_layers=2, match_dropout=0.0, num_vokens=128))


class Vokenizer(nn.Module):
    r"""A BERT and an image network, each followed by an MLP, and the pictures that are vokens.

    .. math:: f(w_i; s) = \frac{\mathrm{MLP}_w(h_i)}{\lVert \mathrm{MLP}_w(h_i) \rVert}, \quad
       g(x) = \frac{\mathrm{MLP}_x(e)}{\lVert \mathrm{MLP}_x(e) \rVert}

    ``image_tower`` maps pictures to features e (b, image_width) and never learns, so vokens are kept as features.
    Source: Tan & Bansal 2020 (Vokenization), section 3.2.
    """

    def __init__(self, config: VokenizerConfig, image_tower: nn.Module):
        super().__init__()
        self.config = config
        self.image_tower = image_tower.requires_grad_(False).eval()
        self.embedding = BERTEmbedding(config)
        self.transformer = Transformer(config)
        for part in (self.embedding, self.transformer):
            part.apply(partial(initialise_as_bert, std=config.initial_std))
        self.token_projection = self.mlp(config.matched_layers * config.width)
        self.image_projection = self.mlp(config.image_width)
        self.register_buffer("vokens", torch.randn(config.num_vokens, config.image_width))
        self.register_buffer("pointer", torch.zeros(1, dtype=torch.long))  # the oldest voken

    def mlp(self, features: int) -> nn.Sequential:
        """From features to the space of tokens and pictures."""
        config = self.config
        hidden, out = nn.Linear(features, config.hidden_width), nn.Linear(config.hidden_width, config.embedding_width)
        return nn.Sequential(hidden, nn.ReLU(), nn.Dropout(config.match_dropout), out)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.image_tower.eval()  # batch norms keep the statistics that they were trained with
        return self

    @torch.no_grad()
    def image_features(self, image: Float[Tensor, "b ..."]) -> Float[Tensor, "b e"]:
        return self.image_tower(image)

    def embed_images(self, features: Float[Tensor, "b e"]) -> Float[Tensor, "b d"]:
        return F.normalize(self.image_projection(features), dim=-1)

    def embed_tokens(
        self, tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"] | None = None
    ) -> Float[Tensor, "b t d"]:
        x, layers = self.embedding(tokens, mask=mask), []  # (b, t, width)
        for block in self.transformer.blocks:
            x = block(x, mask)
            layers.append(x)
        states = torch.cat(layers[-self.config.matched_layers :], -1)  # (b, t, matched_layers · width)
        return F.normalize(self.token_projection(states), dim=-1)

    @torch.no_grad()
    def retrieve(self, tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"]) -> Int[Tensor, "b t"]:
        """The index of each token's voken; -100 at padding. It has no gradient."""
        return nearest_vokens(self.embed_tokens(tokens, mask), self.embed_images(self.vokens), mask)

    @torch.no_grad()
    def push(self, features: Float[Tensor, "n e"]) -> None:
        """Replace the oldest vokens, in place; of too many pictures the last are kept."""
        features = features[-len(self.vokens) :]
        positions, pointer = queue_positions(self.pointer, len(features), len(self.vokens))
        self.vokens[positions] = features.to(self.vokens.dtype)
        self.pointer.copy_(pointer)
