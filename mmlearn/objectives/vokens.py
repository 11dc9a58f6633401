"""Vokens: the picture that each token of a text is nearest to. How that is learned, and how it is found.

Source: Tan & Bansal 2020 (Vokenization), section 3.
"""

import torch
from einops import einsum
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmlearn.objectives.masked import IGNORED


def token_image_hinge(
    token_embedding: Float[Tensor, "b t d"],
    image_embedding: Float[Tensor, "b d"],
    mask: Bool[Tensor, "b t"],
    margin: float = 0.5,
    caption_id: Int[Tensor, "b"] | None = None,
) -> Float[Tensor, ""]:
    r"""Each token of a text is nearer to the picture of its text than to any other picture, by a margin.

    .. math:: \ell = \frac{1}{N} \sum_{s} \sum_{i} \frac{1}{|X_s|} \sum_{x' \in X_s}
       \max\big(0,\, M - f(w_i; s)^\top g(x) + f(w_i; s)^\top g(x')\big)

    N counts the real tokens of those texts that have a wrong picture; :math:`X_s` are the pictures of the batch that
    belong to another caption. The paper draws one of them, which gives this on average. Embeddings have unit length.
    Those that tell no two pictures apart give M; a batch without a wrong picture gives 0.
    Source: Tan & Bansal 2020 (Vokenization), section 3.2.
    """
    scores = einsum(token_embedding, image_embedding, "s t d, x d -> s t x")
    number = torch.arange(len(scores), device=scores.device) if caption_id is None else caption_id
    own = torch.eye(len(scores), dtype=torch.bool, device=scores.device)
    wrong = (number[:, None] != number) & ~own  # (s texts, x pictures)
    right = einsum(scores, own.to(scores), "s t x, s x -> s t")
    short = (margin - right[..., None] + scores).clamp(min=0) * wrong[:, None]
    each = short.sum(-1) / wrong.sum(1).clamp(min=1)[:, None]
    counted = mask & wrong.any(1)[:, None]
    return (each * counted).sum() / counted.sum().clamp(min=1)


def nearest_vokens(
    token_embedding: Float[Tensor, "b t d"], voken_embedding: Float[Tensor, "v d"], mask: Bool[Tensor, "b t"]
) -> Int[Tensor, "b t"]:
    r"""The number of each token's voken, the picture that it is nearest to; -100 where nothing is real.

    .. math:: v(w_i; s) = \arg\max_{x \in X} f(w_i; s)^\top g(x)

    Source: Tan & Bansal 2020 (Vokenization), section 3.1.
    """
    return (token_embedding @ voken_embedding.T).argmax(-1).masked_fill(~mask, IGNORED)
