"""What recipes share: drawing."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from mmlearn.data.fields import Batch, Label
from mmlearn.evaluation.measures import Rows, retrieval, row
from mmlearn.recipes import Alarm, Objective, OptimizerStep, Stage
from mmlearn.recipes.shared.image_codes import Pixels

# Of either loss, who knows nothing pays ln 2 for each score that it is about.
WON = Alarm(
    "the discriminator has won: next to no drawing passes for real, and the generator hardly learns any more; "
    "start anew with a lower learning rate",
    below={"discriminator": 0.1},
    above={"generator": 4.0},
)


@dataclass(frozen=True)
class Noise(Label):
    """``noise`` (b, numbers), standard normal: what a caption does not say of a picture."""

    holds = {"noise": "Float b {noise_numbers}"}

    def __call__(self, batch: Batch, generator: torch.Generator, sizes: Any) -> Batch:
        shape = len(batch["tokens"]), sizes("noise_numbers")
        return batch | {"noise": torch.randn(shape, generator=generator)}


def drawing_stages(
    matching: Objective, discriminators: str, losses: Sequence[str], betas: tuple[float, float]
) -> tuple[Stage, Stage]:
    """The stages of a :class:`TextToImageGAN`: its encoders learn to match, then ``discriminators`` and generator
    learn.

    The latter two take turns, one optimiser step each.
    """
    optimizer_steps = (
        OptimizerStep("discriminator_loss", trains=(discriminators,), betas=betas, alarm=WON),
        OptimizerStep(trains=("generator",), betas=betas),
    )
    drawing = Objective("drawing", dict.fromkeys(losses), labels=(Noise(),), measures=(diversity_and_fooling,))
    return (
        Stage(
            replace(matching, measures=(retrieval("image", "text"),), samples=1000),
            optimizer_steps=(OptimizerStep("encoder_loss", trains=("encoders",)),),
            name="reader",
        ),
        Stage(drawing, optimizer_steps=optimizer_steps, name="drawing"),
    )


def diversity_and_fooling(run: Any, samples: Sequence[Any]) -> Rows:
    """How different two generated images of one caption are, and how often the discriminator takes one for real.

    The difference is the root mean square of pixels, compared with that of real images of different captions.
    """
    one, other = (run.label(run.plain(samples), label) for label in (Noise(), OtherNoise()))
    images = [run.read(batch, lambda output, rows: output.image) for batch in (one, other)]
    real = one["image"]
    distance = lambda x, y: (x - y).square().mean((1, 2, 3)).sqrt().mean()  # noqa: E731
    rows = {"two drawings of one caption, apart": row(distance(*images), distance(real, real.roll(1, 0)))}
    taken = run.read(one, lambda output, rows: run.system.discriminate(output.image, output.sentence) > 0)
    return rows | {"drawings taken for real": row(taken.float().mean())}


class OtherNoise(Noise):
    """Other noise than :class:`Noise` draws."""

    def __call__(self, batch: Batch, generator: torch.Generator, sizes: Any) -> Batch:
        torch.randn(len(batch["tokens"]), sizes("noise_numbers"), generator=generator)
        return super().__call__(batch, generator, sizes)


@dataclass(frozen=True)
class GANPixels(Pixels):
    """As :class:`~mmlearn.recipes.shared.image_codes.Pixels`, and how many numbers a drawing takes by chance."""

    noise_numbers: int = 0

    known = (*Pixels.known, "noise_numbers")

    def fitted(self, data: Any, config: Any, seed: int) -> "GANPixels":
        """As of :class:`~mmlearn.data.fields.Image`, with what labels ask for."""
        found = super().fitted(data, config, seed)
        return replace(found, noise_numbers=config.noise_numbers)

    def sizes(self) -> dict[str, Any]:
        """As of :class:`~mmlearn.data.fields.Image`, with what labels ask for."""
        return super().sizes() | {"noise_numbers": self.noise_numbers}
