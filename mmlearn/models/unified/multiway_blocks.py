"""The two halves of a Multiway block, VLMo's and BEiT-3's: attention, in which modalities meet, and their experts.

Source: Bao et al. 2022 (VLMo), official code, ``multiway_transformer.py``; Wang et al. 2023 (BEiT-3), official code,
``torchscale/component/multiway_network.py``; Wang et al. 2022, "Foundation Transformers" (Magneto), for sub-LayerNorm.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmlearn.layers import MLP, Attention


def by_modality(
    x: Float[Tensor, "b n d"], words: int, text: Callable, image: Callable, pair: Callable | None = None
) -> Float[Tensor, "b n out"]:
    """The expert of texts for the first ``words`` tokens, that of images for the patches after them; or that of pairs.

    The ``pair`` expert, if given, takes all tokens, but only where there are both words and patches. Source: Bao et al.
    2022 (VLMo), official code, ``multiway_transformer.py``.
    """
    if pair is not None and 0 < words < x.shape[1]:
        return pair(x)
    return torch.cat([text(x[:, :words]), image(x[:, words:])], 1)


class PerModality(nn.Module):
    """A layer that words and patches have one each of. Source: official code of BEiT-3, ``MultiwayNetwork``."""

    def __init__(self, make: Callable[[], nn.Module]):
        super().__init__()
        self.text, self.image = make(), make()

    def forward(self, x: Float[Tensor, "b n d"], words: int) -> Float[Tensor, "b n out"]:
        return by_modality(x, words, self.text, self.image)


class DecoupledAttention(Attention):
    r"""All tokens attend to each other, and each is projected by the layers of its modality m; with sub-LayerNorm.

    .. math:: \mathrm{Attention}(x)_i = W^O_m\, \mathrm{LN}_m\big(\mathrm{heads}_i(W^Q_m x, W^K_m x, W^V_m x)\big)

    Source: official code of BEiT-3, ``torchscale/component/multihead_attention.py``.
    """

    def __init__(self, width: int, num_heads: int, dropout: float, norm_epsilon: float):
        super().__init__(width, num_heads, dropout=dropout)
        for name in ("query", "key", "value", "output"):  # in place of those that all modalities share
            setattr(self, name, PerModality(lambda: nn.Linear(width, width)))
        self.inner_norm = PerModality(lambda: nn.LayerNorm(width, eps=norm_epsilon))

    def forward(
        self, x: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"] | None = None, words: int = 0
    ) -> Float[Tensor, "b n d"]:
        query, key, value = (self.split_heads(part(x, words)) for part in (self.query, self.key, self.value))
        y = self.heads(query, key, value, mask, False, None).transpose(1, 2).flatten(2)  # (b, n, d)
        return self.output(self.inner_norm(y, words), words)


class MultiwayAttention(nn.Module):
    """The half of a block in which modalities meet: a norm and attention on a residual path.

    VLMo's modalities share its layers; if they are ``decoupled``, as BEiT-3's, each modality has its own. The first
    ``words`` tokens are words. ``mask`` is True where a token is real.
    """

    def __init__(self, config: Any):
        super().__init__()
        width, epsilon, self.decoupled = config.width, config.norm_epsilon, config.decoupled
        of_weights = config.dropout if config.attention_dropout is None else config.attention_dropout
        self.norm: nn.Module
        self.attention: Attention
        if config.decoupled:
            self.norm = PerModality(lambda: nn.LayerNorm(width, eps=epsilon))
            self.attention = DecoupledAttention(width, config.num_heads, of_weights, epsilon)
        else:
            self.norm = nn.LayerNorm(width, eps=epsilon)
            self.attention = Attention(width, config.num_heads, dropout=of_weights)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, x: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"] | None = None, words: int = 0
    ) -> Float[Tensor, "b n d"]:
        if self.decoupled:
            return x + self.dropout(self.attention(self.norm(x, words), mask, words))
        return x + self.dropout(self.attention(self.norm(x), None, mask))


class SubNormMLP(MLP):
    r"""The MLP with sub-LayerNorm, :math:`W_2\, \mathrm{LN}(\phi(W_1 x + b_1)) + b_2`."""

    def __init__(self, width: int, mlp_width: int | None, activation: str, norm_epsilon: float):
        super().__init__(width, mlp_width, activation)
        self.inner_norm = nn.LayerNorm(self.contract.in_features, eps=norm_epsilon)

    def forward(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... d"]:
        return self.contract(self.inner_norm(self.activation(self.expand(x))))


class ModalityExpert(nn.Module):
    """The half of a block that one modality has for itself: a norm and an MLP on a residual path."""

    def __init__(self, config: Any):
        super().__init__()
        width, sizes = config.width, (config.width, config.mlp_width, config.activation)
        self.norm = nn.LayerNorm(width, eps=config.norm_epsilon)
        self.mlp = SubNormMLP(*sizes, config.norm_epsilon) if config.decoupled else MLP(*sizes)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        return x + self.dropout(self.mlp(self.norm(x)))


def initialise_as_magneto(blocks: nn.Module, depth: int) -> None:
    r"""Xavier normal weights; all but those of queries and keys times :math:`\gamma = \sqrt{\ln 2 N}` for N blocks.

    Source: Wang et al. 2022 (Magneto), figure 2, for encoders.
    """
    for name, layer in blocks.named_modules():
        if isinstance(layer, nn.Linear):
            compares = {"query", "key"} & set(name.split("."))
            nn.init.xavier_normal_(layer.weight, gain=1 if compares else math.sqrt(math.log(2 * depth)))
            nn.init.zeros_(layer.bias)
