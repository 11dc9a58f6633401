"""Whether a drawn picture shows the thing and the colour that its caption names, judged by a small classifier.

It learns from real pictures that the painter has not seen, of all colours of all nouns.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.data.synthetic.cutouts import COLOURS, DYED, tinted_papers


class ThingJudge(nn.Module):
    """The colour and the noun of the one thing in a picture of ``size`` pixels, from −1 to 1: two lists of scores.

    Raises ``ValueError`` for a size that cannot be halved three times.
    """

    def __init__(self, size: int = 32, width: int = 24):
        super().__init__()
        if size % 8:
            raise ValueError(f"Pictures are halved three times here; {size} pixels cannot be.")
        layers: list[nn.Module] = []
        for channels, wider in ((3, width), (width, 2 * width), (2 * width, 2 * width)):
            layers += [nn.Conv2d(channels, wider, 4, stride=2, padding=1), nn.GELU()]
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(2 * width * (size // 8) ** 2, 64), nn.GELU())
        self.colour, self.noun = nn.Linear(64, len(COLOURS)), nn.Linear(64, len(DYED))

    def forward(self, image: Float[Tensor, "b 3 size size"]) -> tuple[Float[Tensor, "b 6"], Float[Tensor, "b 7"]]:
        """Scores of the six colours and of the seven things."""
        x = self.layers(image)  # (b, 64)
        return self.colour(x), self.noun(x)

    def loss(self, batch: dict[str, Tensor], generator: torch.Generator | None = None) -> dict[str, Float[Tensor, ""]]:
        """The cross-entropy of ``colour`` and of ``noun`` (b,) in ``image``, under a little noise while it learns."""
        image = batch["image"]
        if self.training:
            noise = torch.randn(image.shape, generator=generator, dtype=image.dtype)
            image = image + 0.05 * noise.to(image.device)
        scores = self(image)
        return {name: F.cross_entropy(part, batch[name]) for name, part in zip(("colour", "noun"), scores)}


class Right(NamedTuple):
    """What the judge finds in each picture, compared with what was asked for."""

    colour: Bool[Tensor, "n"]
    noun: Bool[Tensor, "n"]

    @property
    def both(self) -> Bool[Tensor, "n"]:
        return self.colour & self.noun

    def shares(self) -> dict[str, float]:
        """Of all pictures."""
        parts = {"colour": self.colour, "thing": self.noun, "both": self.both}
        return {name: part.float().mean().item() for name, part in parts.items()}


@torch.no_grad()
def judge_things(
    judge: ThingJudge, image: Float[Tensor, "n 3 size size"], colours: Int[Tensor, "n"], nouns: Int[Tensor, "n"]
) -> Right:
    """Which pictures, from −1 to 1, show these colours and these nouns."""
    colour, noun = judge(image.clamp(-1, 1))
    return Right(colour.argmax(1) == colours, noun.argmax(1) == nouns)


@torch.no_grad()
def judge_captions(
    judge: ThingJudge, image: Float[Tensor, "n 3 size size"], wanted: Sequence[tuple[str, ...]]
) -> Bool[Tensor, "n words"]:
    """Which pictures, from −1 to 1, show the colour and the noun that they should, and the paper where one is wanted.

    The judge sees 32 pixels a side. Of the papers that are wanted somewhere, the one whose colour is nearest to the
    mean of the outermost 5 % of pixels is what a picture is on.
    """
    names = [[each[0] for each in wanted], [each[1] for each in wanted]]
    asked = (torch.tensor([known.index(name) for name in part]) for known, part in zip((COLOURS, DYED), names))
    found = list(judge_things(judge, F.adaptive_avg_pool2d(image, 32), *asked))
    if len(wanted[0]) > 2:
        size, papers = image.shape[-1], sorted({each[2] for each in wanted})
        margin = max(1, size // 20)
        rim = torch.ones(size, size, dtype=torch.bool)
        rim[margin:-margin, margin:-margin] = False
        colours = (
            2 * torch.stack([torch.from_numpy(tinted_papers(size, [each])).mean((0, 1, 2)) for each in papers]) - 1
        )
        nearest = torch.cdist(image[:, :, rim].mean(2), colours).argmin(1)
        found.append(nearest == torch.tensor([papers.index(each[2]) for each in wanted]))
    return torch.stack(found, 1)
