"""Retrieval in two steps: a dual encoder finds the likely ones among all, a fusion encoder looks at those closely.

Source: Li et al. 2021 (ALBEF), section 5, "Image-Text Retrieval".
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

Match = Callable[[Int[Tensor, "m"], Int[Tensor, "m"]], Float[Tensor, "m"]]


@torch.no_grad()
def rerank(
    similarity: Float[Tensor, "queries items"],
    match: Match,
    k: int,
    *,
    generator: torch.Generator,
    batch_size: int = 256,
) -> Float[Tensor, "queries items"]:
    """Score the k most similar items of each query again; the rest follow in the order they had.

    ``match(query, item)`` scores pairs, given by their numbers (m,), m up to ``batch_size``. Returned are positions
    from below: the higher the better, and equal where what put them there is equal, for
    :func:`mmlearn.evaluation.recall_at` and its likes. Which of several equally similar items are among the k is drawn
    from ``generator``. With k of all items or more, the similarity does not count.

    Raises ``ValueError`` for k below 1, a similarity or a score that is not finite, or not one score a pair.
    """
    queries, items = similarity.shape
    if k < 1 or not similarity.numel():
        raise ValueError(
            f"At least one item of at least one query is scored again; got k = {k} of {queries} × {items}."
        )
    if not similarity.isfinite().all():
        raise ValueError("A similarity is not finite, so nothing can be ranked: look for NaN in the embeddings.")
    chosen = _top(similarity, min(k, items), generator)  # (queries, k)
    query = torch.arange(queries, device=similarity.device).repeat_interleave(chosen.shape[1])
    scores = []
    for one, other in zip(query.split(batch_size), chosen.flatten().split(batch_size)):
        score = match(one, other)
        if score.shape != one.shape:
            raise ValueError(
                f"match gives one score for each of {len(one)} pairs, ({len(one)},); got {tuple(score.shape)}."
            )
        if not score.isfinite().all():
            raise ValueError("A score of match is not finite, so nothing can be ranked: look for NaN in the model.")
        scores.append(score.to(similarity.device))
    again = torch.cat(scores).view_as(chosen)
    return _position(similarity).scatter(1, chosen, items + _position(again)).float()


def _top(similarity: Tensor, k: int, generator: torch.Generator) -> Int[Tensor, "queries k"]:
    """The k highest of each row; of equals at the border each is as likely as any other, for columns are shuffled."""
    shuffled = torch.rand(similarity.shape, generator=generator).argsort(dim=1).to(similarity.device)
    return shuffled.gather(1, similarity.gather(1, shuffled).topk(k, dim=1).indices)


def _position(x: Float[Tensor, "queries n"]) -> Int[Tensor, "queries n"]:
    """How many of its row each entry beats; equals have the same position."""
    x = x.contiguous()
    return torch.searchsorted(x.sort(1).values, x)


def rerank_both_ways(
    image_to_text: Float[Tensor, "images texts"],
    text_to_image: Float[Tensor, "texts images"],
    match: Match,
    k: int,
    *,
    generator: torch.Generator,
    batch_size: int = 256,
) -> tuple[Float[Tensor, "images texts"], Float[Tensor, "texts images"]]:
    """:func:`rerank` in both directions. ``match(image, text)`` scores pairs, given by their numbers."""
    options = dict(generator=generator, batch_size=batch_size)
    images = rerank(image_to_text, match, k, **options)
    return images, rerank(text_to_image, lambda text, image: match(image, text), k, **options)
