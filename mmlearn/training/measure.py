"""What ``mmlearn evaluate`` prints: retrieval, and alignment as far as the data knows where things are."""

from collections.abc import Sequence
from typing import Any

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from mmlearn.data import fetch, load
from mmlearn.evaluation import (
    embed,
    find_mentions,
    median_rank,
    modality_gap,
    occlusion_check,
    pair_alignment,
    pointing_accuracy,
    pointing_chance,
    random_patches,
    recall_at,
    similarity,
    uniformity,
)
from mmlearn.training.runs import Run

HELD_OUT = {"scenes": "test", "emoji": "unseen-style", "emoji-openmoji": "unseen-style"}
SCENES = 256  # pairs, where a data set has no end


def measure(
    run: Run,
    data: str,
    *,
    split: str | None = None,
    limit: int = 5000,
    language: str | None = None,
    skip_bad: bool = False,
) -> dict[str, dict[str, float | None]]:
    """``{measure: {"obtained": …, "chance": …}}`` of a trained run on held-out data.

    A repeated caption is one text, and fits every picture that has it. Raises ``ValueError`` and ``FileNotFoundError``
    for data that is not there.
    """
    size = run.system.config.image.image_size if hasattr(run.system.config, "image") else 64
    options = {"size": size} | ({"language": language} if language else {}) | ({"skip_bad": True} if skip_bad else {})
    samples = load(data, split or HELD_OUT.get(data, "test"), **options)
    count = min(limit, SCENES if data == "scenes" else len(samples))
    pairs = fetch(samples, range(count) if data == "scenes" else _spread(len(samples), count))
    return retrieval_measures(run, pairs) | alignment_measures(run, pairs)


def _spread(length: int, count: int) -> list[int]:
    return torch.linspace(0, length - 1, count).long().unique().tolist()


def retrieval_measures(run: Run, samples: Sequence[Any]) -> dict[str, dict[str, float | None]]:
    """Recall and median rank both ways, and how the two modalities lie in their space.

    Raises ``ValueError`` for fewer than two different captions: there would be nothing to choose from.
    """
    if len({sample.caption for sample in samples}) < 2:
        raise ValueError("Retrieval needs at least two different captions, and these pictures have one.")
    embeddings = embed(run.system, samples, run.collate())
    image_to_text, text_to_image = similarity(embeddings)
    rows = {}
    for name, matrix, right in (
        ("image to text", image_to_text, embeddings.positives),
        ("text to image", text_to_image, embeddings.positives.T),
    ):
        for k in (1, 5, 10):
            chance = 1 - float((1 - right.float().mean(1)).pow(k).mean())
            rows[f"{name} R@{k} of {matrix.shape[1]}"] = {"obtained": recall_at(k, matrix, right), "chance": chance}
        rows[f"{name} median rank"] = {"obtained": median_rank(matrix, right), "chance": (matrix.shape[1] + 1) / 2}
    if embeddings.image.ndim == 2:
        text = embeddings.text[embeddings.positives.int().argmax(1)]
        rows["modality gap"] = {"obtained": modality_gap(embeddings.image, text), "chance": None}
        rows["alignment of pairs"] = {"obtained": pair_alignment(embeddings.image, text), "chance": 2.0}
        rows["uniformity of pictures"] = {"obtained": uniformity(embeddings.image), "chance": None}
        rows["uniformity of texts"] = {"obtained": uniformity(embeddings.text), "chance": None}
    return rows


def alignment_measures(run: Run, samples: Sequence[Any]) -> dict[str, dict[str, float | None]]:
    """Pointing and occlusion, where captions are linked to places; otherwise nothing."""
    if not getattr(samples[0], "links", ()):
        return {}
    rows = {}
    if run.name in PHRASE_MAPS:
        grid = run.system.image_encoder.embedding.grid
        mentions = find_mentions(samples, run.tokenizer, grid)
        with torch.no_grad():
            maps = PHRASE_MAPS[run.name](run, samples, mentions)
        if maps is not None:
            rows["pointing accuracy"] = {
                "obtained": pointing_accuracy(maps, mentions.region),
                "chance": pointing_chance(mentions.region),
            }
    return rows | occlusion(run, samples)


def occlusion(run: Run, samples: Sequence[Any]) -> dict[str, dict[str, float | None]]:
    """How much less similar picture and caption become when something is painted over, with controls."""
    batch = run.collate()(samples)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (run.mean, run.std))
    with torch.no_grad():
        text = run.system.encode_text(batch["tokens"], batch["mask"])

    def score(image: Tensor) -> Tensor:
        picture = run.system.encode_image((image - mean) / std)
        if picture.ndim == 2:
            return (picture * text).sum(-1)
        cosine = einsum(picture, text, "b p d, b t d -> b t p").amax(-1)
        return (cosine * batch["mask"]).sum(-1) / batch["mask"].sum(-1)

    images = torch.stack([sample.image for sample in samples])
    size = images.shape[-1]
    named = [sample.links[0].object for sample in samples]
    other = [
        next(k for k in range(len(sample.objects)) if k not in [link.object for link in sample.links])
        for sample in samples
    ]
    masks = {
        "what the caption names": torch.stack([sample.masks[k] for sample, k in zip(samples, named)]),
        "another object": torch.stack([sample.masks[k] for sample, k in zip(samples, other)]),
        "a random patch": random_patches(len(samples), (size, size), size // 4, torch.Generator().manual_seed(0)),
        "the ground": torch.stack([_ground(sample) for sample in samples]),
    }
    falls = occlusion_check(score, images, masks)
    return {f"similarity lost by hiding {name}": {"obtained": fall, "chance": 0.0} for name, fall in falls.items()}


def _ground(sample: Any) -> Tensor:
    """A cell of the grid on which nothing stands, whole."""
    size = sample.image.shape[-1]
    cell = size // 4
    free = next(k for k in range(16) if k not in [item.cell for item in sample.objects])
    mask = torch.zeros(size, size, dtype=torch.bool)
    mask[free // 4 * cell : (free // 4 + 1) * cell, free % 4 * cell : (free % 4 + 1) * cell] = True
    return mask


def _clip_maps(run: Run, samples: Sequence[Any], mentions) -> Float[Tensor, "n p"] | None:
    """What each patch adds to the similarity with the phrase by itself, which max pooling divides among patches."""
    if run.system.config.pooling != "max":
        return None
    images = run.collate()(samples)["image"]
    tokens, mask = run.tokenizer([f"a {phrase}" for phrase in mentions.phrase])
    return run.system.contributions(images[mentions.sample], run.system.encode_text(tokens, mask))


def _filip_maps(run: Run, samples: Sequence[Any], mentions) -> Float[Tensor, "n p"]:
    """The cosine of each patch with the last token of the phrase."""
    batch = run.collate()(samples)
    patches = run.system.encode_image(batch["image"])
    words = run.system.encode_text(batch["tokens"], batch["mask"])
    return mentions.select(einsum(words, patches, "b t d, b p d -> b t p"))


PHRASE_MAPS = {"clip": _clip_maps, "filip": _filip_maps}
