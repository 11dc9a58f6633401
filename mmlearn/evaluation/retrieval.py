"""Does a picture find its text, and a text its picture?"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmlearn.data.batches import Collate
from mmlearn.evaluation.mode import evaluating
from mmlearn.objectives import late_interaction


class Embeddings(NamedTuple):
    """What a dual encoder makes of n pictures and m different texts: one vector each, or one a token."""

    image: Float[Tensor, "n ..."]  # (n, d) or (n, p, d)
    text: Float[Tensor, "m ..."]  # (m, d) or (m, t, d)
    text_mask: Bool[Tensor, "m t"]
    positives: Bool[Tensor, "n m"]  # which text is whose caption
    captions: list[str]  # the m texts


def embed(system: nn.Module, samples: Sequence[Any], collate: Collate, *, batch_size: int = 256) -> Embeddings:
    """``encode_image`` of all samples and ``encode_text`` of all their captions, a repeated one once.

    In evaluation mode and on the system's own device; the result is on the CPU.
    """
    device = next(system.parameters()).device
    captions = list(dict.fromkeys(sample.caption for sample in samples))
    number = {caption: i for i, caption in enumerate(captions)}
    images, texts, masks = [], {}, {}
    with evaluating(system):
        for start in range(0, len(samples), batch_size):
            part = samples[start : start + batch_size]
            batch = {name: value.to(device) for name, value in collate(part).items()}
            images.append(system.encode_image(batch["image"]).cpu())
            encoded = system.encode_text(batch["tokens"], batch["mask"]).cpu()
            for sample, text, mask in zip(part, encoded, batch["mask"].cpu()):
                texts.setdefault(number[sample.caption], text)
                masks.setdefault(number[sample.caption], mask)
    positives = torch.zeros(len(samples), len(captions), dtype=torch.bool)
    positives[torch.arange(len(samples)), [number[sample.caption] for sample in samples]] = True
    order = range(len(captions))
    return Embeddings(
        torch.cat(images),
        torch.stack([texts[i] for i in order]),
        torch.stack([masks[i] for i in order]),
        positives,
        captions,
    )


def similarity(embeddings: Embeddings) -> tuple[Float[Tensor, "images texts"], Float[Tensor, "texts images"]]:
    """All pictures against all texts, both ways: cosines, or late interaction where there is a vector a token."""
    if embeddings.image.ndim == 2:
        cosine = embeddings.image @ embeddings.text.T
        return cosine, cosine.T
    chunks = [late_interaction(part, embeddings.text, embeddings.text_mask) for part in embeddings.image.split(64)]
    return torch.cat([chunk[0] for chunk in chunks]), torch.cat([chunk[1] for chunk in chunks], dim=1)


def ranks(
    similarity: Float[Tensor, "queries items"], positives: Bool[Tensor, "queries items"] | None = None
) -> tuple[Float[Tensor, "queries"], Float[Tensor, "queries"], Float[Tensor, "queries"]]:
    """For each query: how many wrong items beat its best right one, how many wrong and how many right ones equal it.

    Without ``positives``, item i is the only right one for query i. Raises ``ValueError`` for a query without any, or a
    similarity that is not finite.
    """
    if not similarity.isfinite().all():
        raise ValueError("A similarity is not finite, so nothing can be ranked: look for NaN in the embeddings.")
    if positives is None:
        positives = torch.eye(*similarity.shape, dtype=torch.bool, device=similarity.device)
    if not positives.any(1).all():
        raise ValueError("Each query needs at least one right item.")
    best = similarity.masked_fill(~positives, -torch.inf).amax(1, keepdim=True)
    better = ((similarity > best) & ~positives).sum(1)
    equal = similarity == best
    return better.float(), (equal & ~positives).sum(1).float(), (equal & positives).sum(1).float()


def recall_at(
    k: int, similarity: Float[Tensor, "queries items"], positives: Bool[Tensor, "queries items"] | None = None
) -> float:
    """The share of queries that find a right item among the first k, ties broken at random (its expected value)."""
    better, wrong, right = ranks(similarity, positives)
    missed = torch.ones_like(better)  # the probability that no right item is among the first k
    for taken in range(k):
        free = taken >= better  # place ``taken`` is drawn from the tied items
        drawn = (taken - better).clamp(min=0)
        chance = ((wrong - drawn).clamp(min=0) / (wrong + right - drawn).clamp(min=1)).clamp(max=1)
        missed = torch.where(free, missed * chance, missed)
    return float((1 - missed).mean())


def median_rank(
    similarity: Float[Tensor, "queries items"], positives: Bool[Tensor, "queries items"] | None = None
) -> float:
    """The median over queries of the expected rank, from 1, of the first right item."""
    better, wrong, right = ranks(similarity, positives)
    return float((1 + better + wrong / (right + 1)).quantile(0.5))


def retrieval(
    image_to_text: Float[Tensor, "images texts"],
    text_to_image: Float[Tensor, "texts images"] | None = None,
    positives: Bool[Tensor, "images texts"] | None = None,
    ks: Sequence[int] = (1, 5, 10),
) -> dict[str, float]:
    """``image_to_text_R@k``, ``text_to_image_R@k`` and median ranks, and ``R@k``, the mean of both directions."""
    text_to_image = image_to_text.T if text_to_image is None else text_to_image
    results = {}
    for name, matrix, right in (
        ("image_to_text", image_to_text, positives),
        ("text_to_image", text_to_image, None if positives is None else positives.T),
    ):
        results |= {f"{name}_R@{k}": recall_at(k, matrix, right) for k in ks}
        results[f"{name}_median_rank"] = median_rank(matrix, right)
    for k in ks:
        results[f"R@{k}"] = (results[f"image_to_text_R@{k}"] + results[f"text_to_image_R@{k}"]) / 2
    return results
