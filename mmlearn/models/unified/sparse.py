"""Sparse blocks, LIMoE's and M6's: a router sends each token to a few of many MLPs.

Source: Mustafa et al. 2022 (LIMoE) and the official code of sparse layers, https://github.com/google-research/vmoe.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.layers import MLP, TransformerBlock
from mmlearn.objectives.experts import top_experts
from mmlearn.tensor_checks import has_values


class Routing(NamedTuple):
    """What the router of one sparse block decides for n tokens."""

    logits: Float[Tensor, "n e"]
    probability: Float[Tensor, "n e"]
    real: Bool[Tensor, "n"]  # padding goes to no expert


def send_to_experts(
    tokens: Float[Tensor, "n d"],
    weight: Float[Tensor, "n k"],
    choice: Int[Tensor, "n k"],
    experts: Sequence[Callable[[Tensor], Tensor]],
    real: Bool[Tensor, "n"],
) -> Float[Tensor, "n d"]:
    r"""The weighted sum of the k experts of each token, :math:`\sum_j w_{ij}\, E_{c_{ij}}(x_i)`.

    Each expert computes the tokens that chose it, and no others. Padding goes to none, and is 0.
    Source: official code, ``vmoe/nn/routing.py``.
    """
    y, e, k = torch.zeros_like(tokens), len(experts), choice.shape[1]
    chosen = choice.masked_fill(~real[:, None], e).flatten()  # (n k,)
    order = chosen.argsort(stable=True)  # choices by expert; those of padding are last
    counts = [len(order) // e] * e  # where only the cost is counted, and nothing is chosen
    if has_values(chosen):  # waits for a GPU, so once for all experts
        counts = (chosen == torch.arange(e, device=chosen.device)[:, None]).sum(1).tolist()
    for expert, one in zip(experts, order[: sum(counts)].split(counts)):
        token = one // k
        y = y.index_add(0, token, (weight.flatten()[one, None] * expert(tokens[token])).to(y))
    return y


class SparseMLP(nn.Module):
    r"""A router and its experts, each an MLP.

    .. math:: \mathrm{MoE}(x) = \sum_{e \in \mathrm{top}_k(p)} p_e\, \mathrm{MLP}_e(x), \quad
       p = \mathrm{softmax}(W x)

    Source: official code, ``vmoe/nn/routing.py``.
    """

    def __init__(self, config: Any):
        super().__init__()
        self.chosen = config.chosen
        self.router = nn.Linear(config.width, config.experts, bias=False)
        self.experts = nn.ModuleList(
            MLP(config.width, config.mlp_width, config.activation) for _ in range(config.experts)
        )

    def forward(
        self, x: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"] | None = None
    ) -> tuple[Float[Tensor, "b n d"], Routing]:
        tokens = rearrange(x, "b n d -> (b n) d")  # rows do not matter to a router
        real = torch.ones(len(tokens), dtype=torch.bool, device=x.device) if mask is None else mask.flatten()
        logits = self.router(tokens)  # (b n, e)
        probability = logits.softmax(-1)
        y = send_to_experts(tokens, *top_experts(probability, self.chosen), list(self.experts), real)
        return y.view_as(x), Routing(logits, probability, real)


class SparseBlock(TransformerBlock):
    """A pre-norm block whose MLP is a :class:`SparseMLP`. Returns the tokens, and their routing."""

    def __init__(self, config: Any):
        super().__init__(config)
        self.mlp = SparseMLP(config)

    def forward(
        self,
        x: Float[Tensor, "b n d"],
        mask: Bool[Tensor, "..."] | None = None,
        real: Bool[Tensor, "b n"] | None = None,
    ) -> tuple[Float[Tensor, "b n d"], Routing]:
        """``mask`` is that of attention; tokens that are ``real`` (default: ``mask``) are sent to experts."""
        x = self.residual(x, self.attention_norm, lambda x: self.attention(x, None, mask))
        y, routing = self.mlp(self.mlp_norm(x), mask if real is None else real)
        return x + self.dropout(y), routing
