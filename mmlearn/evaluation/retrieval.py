"""Does a picture find its text, and a text its picture?"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from mmlearn.data.batches import CollateFunction
from mmlearn.data.hashing import digest
from mmlearn.evaluation.eval_mode import evaluating
from mmlearn.objectives import late_interaction

# What makes two samples the same picture, text, sound or video.
CONTENT: dict[str, Callable[[Any], Hashable]] = {
    "image": lambda sample: digest(sample.image),
    "text": lambda sample: sample.caption,
    "translation": lambda sample: sample.translation,
    "audio": lambda sample: digest(sample.waveform),
    "video": lambda sample: digest(sample.video),
}


class EncodedItems(NamedTuple):
    """The n different pictures (or texts, sounds, videos) of some samples: a vector each, or one a token."""

    embedding: Float[Tensor, "n ..."]  # (n, d) or (n, t, d)
    mask: Bool[Tensor, "n t"] | None  # of texts: which tokens are real
    number: list[int]  # for each sample, which of the n it has
    first: list[int]  # for each of the n, the first sample that has it


def embed_each(
    run: Any, samples: Sequence[Any], modality: str, encode: Callable[..., Tensor], *, batch_size: int = 256
) -> EncodedItems:
    """``encode(system, batch, modality, call)`` of each different picture, text, sound or video, on the CPU."""
    number, first = unique_ids(CONTENT[modality](sample) for sample in samples)
    vectors, masks = [], []
    for batch in run.batches([samples[i] for i in first], size=batch_size):
        vectors += [*encode(run.system, batch, modality, run.call).cpu()]
        if modality == "text":
            masks += [*batch["mask"].cpu()]
    padded = (lambda rows: pad_sequence(rows, batch_first=True)) if vectors[0].ndim > 1 else torch.stack
    mask = pad_sequence(masks, batch_first=True) if masks else None
    return EncodedItems(padded(vectors), mask, number, first)


class Embeddings(NamedTuple):
    """What a dual encoder makes of n different pictures and m different texts: one vector each, or one a token."""

    image: Float[Tensor, "n ..."]  # (n, d) or (n, p, d)
    text: Float[Tensor, "m ..."]  # (m, d) or (m, t, d)
    text_mask: Bool[Tensor, "m t"]
    positives: Bool[Tensor, "n m"]  # which text is whose caption
    captions: list[str]  # the m texts
    first: list[int]  # for each picture the number of the first sample that shows it


def embed(system: nn.Module, samples: Sequence[Any], collate: CollateFunction, *, batch_size: int = 256) -> Embeddings:
    """``encode_image`` of all pictures and ``encode_text`` of all captions, each once however many samples have it.

    All captions of a picture are right for it. In evaluation mode and on the system's own device; the result is on the
    CPU.
    """
    device = next(system.parameters()).device
    image, first = unique_ids(digest(sample.image) for sample in samples)
    text, first_text = unique_ids(sample.caption for sample in samples)
    images, texts, masks = [], [], []
    with evaluating(system):
        for start in range(0, len(samples), batch_size):
            rows = range(start, min(start + batch_size, len(samples)))
            batch = {name: value.to(device) for name, value in collate([samples[i] for i in rows]).items()}
            shown = [row for row, i in enumerate(rows) if first[image[i]] == i]
            said = [row for row, i in enumerate(rows) if first_text[text[i]] == i]
            if shown:
                images.append(system.encode_image(batch["image"][shown]).cpu())
            if said:
                tokens, mask = batch["tokens"][said], batch["mask"][said]
                texts += [*system.encode_text(tokens, mask).cpu()]
                masks += [*mask.cpu()]
    return Embeddings(
        torch.cat(images),
        pad_sequence(texts, batch_first=True) if texts[0].ndim > 1 else torch.stack(texts),
        pad_sequence(masks, batch_first=True),
        matching_items(image, text),
        [samples[i].caption for i in first_text],
        first,
    )


def unique_ids(keys: Iterable[Hashable]) -> tuple[list[int], list[int]]:
    """A number for each key, from 0 and equal where keys are; and for each number where it is first."""
    number: dict[Hashable, int] = {}
    numbers, first = [], []
    for i, key in enumerate(keys):
        if key not in number:
            number[key] = len(number)
            first.append(i)
        numbers.append(number[key])
    return numbers, first


def matching_items(one: Sequence[int], other: Sequence[int]) -> Bool[Tensor, "n m"]:
    """Which of n numbers stands beside which of m anywhere, as pictures do beside their captions."""
    positives = torch.zeros(max(one) + 1, max(other) + 1, dtype=torch.bool)
    positives[list(one), list(other)] = True
    return positives


def similarity(embeddings: Embeddings) -> tuple[Float[Tensor, "images texts"], Float[Tensor, "texts images"]]:
    """All pictures against all texts, both ways."""
    return similarity_both_ways(embeddings.image, embeddings.text, embeddings.text_mask)


def similarity_both_ways(
    image: Float[Tensor, "n ..."], text: Float[Tensor, "m ..."], text_mask: Bool[Tensor, "m t"] | None
) -> tuple[Float[Tensor, "n m"], Float[Tensor, "m n"]]:
    """Cosines of vectors (n, d) and (m, d); late interaction of tokens (n, p, d) and (m, t, d).

    Of several vectors of a picture, (n, q, d), and one of a text, that of the picture which fits best counts.
    """
    if text.ndim == 2:
        parts = (part @ text.T for part in image.split(64))
        cosine = torch.cat([part if part.ndim == 2 else part.amax(1) for part in parts])
        return cosine, cosine.T
    chunks = [late_interaction(part, text, text_mask) for part in image.split(64)]
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
        free = taken >= better  # position ``taken`` is drawn from the tied items
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
