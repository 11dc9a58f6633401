"""Orders and what is right to say: the text that is read, and a target of words, positions or picture codes.

The vocabulary is one: words, then the ``bins`` of coordinates, then the codes of a codebook. A box is four positions:
left, top, right, bottom. Every target ends with the end token.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import Dataset

from mmlearn.data.fields.field import Batch, Field, size
from mmlearn.data.fields.labels import Label, Sizes, padded
from mmlearn.data.fields.texts import Dialogues
from mmlearn.data.tokenizer import Tokenizer
from mmlearn.layers.config import Config
from mmlearn.objectives.boxes import check_boxes, quantise


@dataclass(frozen=True)
class Instructions(Dialogues):
    """Texts that say what to do and what is right, which a label takes apart. It tells labels the number of ``bins``.

    ``tokens`` are of one vocabulary of words, positions and codes, whose size is ``all_tokens`` in the configuration.
    """

    bins: int = 0
    max_length: int = 48

    optional = (*Dialogues.optional, "response")

    @property
    def holds(self) -> dict[str, str]:
        """The entries and their axes."""
        return super().holds | {"tokens": "Int b t < all_tokens"}

    def fitted(self, data: Dataset, config: Config, seed: int) -> Self:
        """As of :class:`~mmlearn.data.fields.Dialogues`, with the configuration's bins."""
        return replace(super().fitted(data, config, seed), bins=size(config, "bins", 0))

    def sizes(self) -> dict[str, Any]:
        """As of :class:`~mmlearn.data.fields.Dialogues`, and the bins."""
        return super().sizes() | {"bins": self.bins}

    def save(self, folder: Path) -> dict[str, Any]:
        """As of :class:`~mmlearn.data.fields.Dialogues`, with the bins."""
        return super().save(folder) | {"bins": self.bins}

    def load(self, folder: Path, values: dict[str, Any]) -> Self:
        """The inverse of :meth:`save`."""
        return replace(super().load(folder, values), bins=values["bins"])


@dataclass(frozen=True)
class Box(Field):
    """``box`` (b, 4): the box that is spoken of, left, top, right and bottom as shares of the picture."""

    holds = {"box": "Float b 4"}
    needs = "box"
    noun = "boxes"
    advice = "use --data scenes"

    def __call__(self, samples: Sequence[Any]) -> Batch:
        return {"box": torch.stack([sample.box for sample in samples])}

    def example(self, b: int, config: Config, generator: torch.Generator) -> Batch:
        corner = torch.rand(b, 2, generator=generator) * 0.6
        return {"box": torch.cat([corner, corner + 0.1 + 0.3 * torch.rand(b, 2, generator=generator)], -1)}


@dataclass(frozen=True)
class TextTarget(Label):
    """The text becomes what is read, ``tokens``, and what is to be written: ``target`` (b, o) and ``target_mask``.

    Here the target is the response. With ``region`` the prompt ends with the positions of ``box``.
    """

    region: bool = False

    holds = {"target": "Int b o < all_tokens", "target_mask": "Bool b o"}

    def targets(self, batch: Batch, sizes: Sizes) -> list[Int[Tensor, "_"]]:
        """What is right to say in each row, with the end token."""
        return [row[real] for row, real in zip(batch["tokens"], batch["response"])]

    def named(self, batch: Batch, sizes: Sizes) -> Int[Tensor, "b n"]:
        """The tokens of the region that a prompt names."""
        return box_tokens(batch["box"], sizes)

    def shown(self, batch: Batch, sizes: Sizes) -> Batch:
        """What else the batch shows in another way."""
        return {}

    def __call__(self, batch: Batch, generator: torch.Generator, sizes: Sizes) -> Batch:
        end = batch["tokens"].new_tensor([Tokenizer.end_token])
        asked = batch["mask"] & ~batch["response"]
        prompts = [row[real] for row, real in zip(batch["tokens"], asked)]
        if self.region:
            prompts = [torch.cat([prompt, own]) for prompt, own in zip(prompts, self.named(batch, sizes))]
        (tokens, mask), (target, target_mask) = (
            padded([torch.cat([prompt, end]) for prompt in prompts]),
            padded(self.targets(batch, sizes)),
        )
        rest = {name: value for name, value in batch.items() if name not in ("response", "code")}  # now a target
        texts = {"tokens": tokens, "mask": mask, "target": target, "target_mask": target_mask}
        return rest | texts | self.shown(batch, sizes)


@dataclass(frozen=True)
class BoxTarget(TextTarget):
    """As :class:`TextTarget`, with the positions of ``box`` to be written."""

    def targets(self, batch: Batch, sizes: Sizes) -> list[Int[Tensor, "_"]]:
        """Four positions and the end token."""
        end = batch["tokens"].new_tensor([Tokenizer.end_token])
        return [torch.cat([row, end]) for row in box_tokens(batch["box"], sizes)]


@dataclass(frozen=True)
class InfillingTarget(TextTarget):
    """As :class:`TextTarget`, with the middle of the picture hidden, and its codes to be written."""

    def targets(self, batch: Batch, sizes: Sizes) -> list[Int[Tensor, "_"]]:
        """The codes of the middle and the end token."""
        end = batch["tokens"].new_tensor([Tokenizer.end_token])
        first = sizes("vocab_size") + sizes("bins")
        return [torch.cat([first + row, end]) for row in batch["code"][:, middle_codes(batch["code"].shape[1])]]

    def shown(self, batch: Batch, sizes: Sizes) -> Batch:
        """The picture without its middle."""
        return {"image": hide_middle(batch["image"])}


def box_tokens(boxes: Tensor, sizes: Sizes) -> Int[Tensor, "b 4"]:
    """The tokens of boxes (b, 4). ``ValueError`` for one that is inverted, empty or outside the picture."""
    check_boxes(boxes[:, None])
    return sizes("vocab_size") + quantise(boxes, sizes("bins"))


def middle_codes(codes: int) -> Int[Tensor, "m"]:
    """The numbers of the middle quarter of a square grid of codes. ``ValueError`` for another number of codes.

    Source: Wang et al. 2022 (OFA), official code, ``UnifyDataset``: the middle half of each side.
    """
    side = math.isqrt(codes)
    if side < 2 or side * side != codes:
        raise ValueError(f"The middle is that of a square of at least 2 × 2 codes, got {codes} codes.")
    inner = slice(side // 4, side - side // 4)
    return torch.arange(codes).view(side, side)[inner, inner].flatten()


def hide_middle(image: Tensor) -> Tensor:
    """Pictures (b, 3, height, width) whose middle half, each way, is 0."""
    height, width = image.shape[-2:]
    hidden = image.clone()
    hidden[..., height // 4 : height - height // 4, width // 4 : width - width // 4] = 0
    return hidden
