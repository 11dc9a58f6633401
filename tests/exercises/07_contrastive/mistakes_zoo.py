"""Wrong answers to the task about the zoo's CLIP, and what each is told: ``MISTAKES[task][what it says][name]``."""

from functools import partial

import torch
from common_mistakes import then

from mmlearn import load_pretrained, load_processor
from mmlearn.evaluation import untrained_twin

CLIP, PROCESSOR = load_pretrained("zoo/clip-collages"), load_processor("zoo/clip-collages")
UNTRAINED = untrained_twin(CLIP)


def _similarity(model, image, texts):
    """The cosine of every patch with the text, in place of what a patch adds to the similarity."""
    patches = model.image_projection(model.image_encoder(image))
    return (
        torch.nn.functional.normalize(patches, dim=-1) * model.encode_text(*PROCESSOR.tokenizer(texts))[:, None]
    ).sum(-1)


@torch.no_grad()
def _pointing(
    image,
    texts,
    boxes,
    *,
    model=CLIP,
    maps=lambda model, image, texts: model.contributions(image, model.encode_text(*PROCESSOR.tokenizer(texts))),
    best=lambda maps: maps.argmax(1),
    middle=lambda patch: (patch % 6 + 0.5, patch // 6 + 0.5),
    inside=lambda x, y, left, top, right, bottom: (left <= x) & (x < right) & (top <= y) & (y < bottom),
    share=lambda hit: hit.float().mean().item(),
):
    """Step by step, or with a single step that differs."""
    x, y = middle(best(maps(model, image, texts)))
    return share(inside(x / 6, y / 6, *boxes.unbind(1)))


def _touches(x, y, left, top, right, bottom):
    """Any part of the patch."""
    half = 0.5 / 6
    return (left < x + half) & (x - half < right) & (top < y + half) & (y - half < bottom)


RIGHT = {"zero_shot_pointing": _pointing}

MISTAKES = {
    "zero_shot_pointing": {
        "It must be a share from 0 to 1": {
            "a count": partial(_pointing, share=lambda hit: hit.sum().item()),
            "percent": then(_pointing, lambda share: 100 * share),
            "misses": then(_pointing, lambda share: 1 - share),
        },
        "here rows and columns are exchanged": {
            "columns first": partial(_pointing, middle=lambda patch: (patch // 6 + 0.5, patch % 6 + 0.5))
        },
        "and no other: It must be the patch that adds most": {
            "an untrained model": partial(_pointing, model=UNTRAINED),
            "the patch that adds least": partial(_pointing, best=lambda maps: maps.argmin(1)),
            "the first text for all": lambda image, texts, boxes: _pointing(image, texts[:1] * len(texts), boxes),
            "one patch for all pictures": partial(_pointing, best=lambda maps: maps.mean(0).argmax().expand(len(maps))),
            "the most similar patch": partial(_pointing, maps=_similarity),
        },
        "is the middle of the patch": {
            "any part of the patch": partial(_pointing, inside=_touches),
            "always right": lambda image, texts, boxes: _pointing(
                image, texts, boxes, inside=lambda x, y, left, top, right, bottom: right > left
            ),
        },
    }
}  # fmt: skip
