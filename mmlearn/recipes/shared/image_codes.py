"""What recipes share: image codes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor

from mmlearn.data.fields import Batch, Image
from mmlearn.data.fields.field import size
from mmlearn.evaluation.measures import Measure, Rows, majority_share, row
from mmlearn.layers.config import Config
from mmlearn.objectives.codes import codes_in_use
from mmlearn.recipes import Objective, OptimizerStep, Stage


@dataclass(frozen=True)
class Pixels(Image):
    """As :class:`~mmlearn.data.fields.Image`, from −1 to 1: what paints has one range of colours for all data."""

    mean: tuple[float, ...] | None = (0.5, 0.5, 0.5)
    std: tuple[float, ...] | None = (0.5, 0.5, 0.5)
    image_size: int = 32

    def example(self, b: int, config: Config, generator: torch.Generator) -> Batch:
        """Random colours that change slowly: nobody can put noise into a few codes."""
        side = size(config, "image_size")
        colours = 2 * torch.rand(b, 3, 4, 4, generator=generator) - 1
        return {"image": F.interpolate(colours, (side, side), mode="bilinear", align_corners=True)}


def reconstruction(run: Any, samples: Sequence[Any]) -> Rows:
    """How far reconstructions are from the originals, and how many codes are in use. Chance: the mean colour."""
    error, square, colour, codes = [], [], [], []
    codec = getattr(run.system, "codec", run.system)
    for batch in run.batches(samples):
        image, found = batch["image"], codec.encode(batch["image"])
        error.append((codec.decode(found) - image).square().mean((1, 2, 3)))
        square.append(image.square().mean((1, 2, 3)))
        colour.append(image.mean((2, 3)))
        codes.append(found.flatten().cpu())
    entries = codec.config.num_codes
    spread = torch.cat(square).mean() - torch.cat(colour).mean(0).square().mean()
    return {
        "squared error of pixels": row(torch.cat(error).mean(), spread),
        f"share of {entries} codes in use": row(codes_in_use(torch.cat(codes), entries), 1 / entries),
    }


def codec_stage(*losses: str) -> Stage:
    """The stage in which a codec learns, by its ``losses``."""
    learns = Objective("codes", dict.fromkeys(losses), measures=(reconstruction,))
    return Stage(learns, optimizer_steps=(OptimizerStep("codec_loss", trains=("codec",)),), name="codec")


def token_accuracy(what: str, asked: Callable[[Any, Any], tuple[Tensor, Tensor]]) -> Measure:
    """The measure of how often the likeliest token is right. Chance: always the commonest.

    ``asked(config, output)`` gives scores (n, v) of the tokens that are asked for, and which they are, (n,).
    """

    def measure(run: Any, samples: Sequence[Any]) -> Rows:
        def pairs(output: Any, rows: dict[str, Tensor]) -> Int[Tensor, "n 2"]:
            logits, true = asked(run.system.config, output)
            return torch.stack([logits.argmax(-1), true], 1)

        guess, true = run.read(run.plain(samples), pairs).unbind(1)
        return {what: row((guess == true).float().mean(), majority_share(true))}

    return measure
