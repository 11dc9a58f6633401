"""``cues``: two modalities of one vector each, of which each tells a yes or no, with a known best accuracy.

A vector is ±s in a direction of its modality, and noise of variance 1 in all directions, so that one modality tells its
bit with probability Φ(s), and no better. What the label asks decides which fusion can answer: ``redundant``: both bits
are the label. ``unique``: the first bit is, and the second has nothing to do with it. ``xor``: the label is whether the
bits differ, so that each modality alone says nothing.
"""

from dataclasses import dataclass, field
from statistics import NormalDist

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mmlearn.data.hashing import stream, uniform
from mmlearn.data.synthetic.dataset import Synthetic
from mmlearn.suggestions import suggest

KINDS = ("redundant", "unique", "xor")
STRENGTH = 2.5
HALF_STEP = 2**-25  # of uniform numbers, which are multiples of 2⁻²⁴


@dataclass(frozen=True, eq=False)
class CueSample:
    """A vector of each modality (2, features), which of them are there, what each says, and what is right to say."""

    cues: Float[Tensor, "2 features"] = field(repr=False)
    cue_mask: Bool[Tensor, "2"]
    bits: tuple[int, int]
    label: int

    @property
    def caption(self) -> str:
        """What the sample shows, in words."""
        first, second, right = (("no", "yes")[bit] for bit in (*self.bits, self.label))
        return f"the first says {first}, the second says {second}: {right}"


class Cues(Synthetic):
    """Sample i is a function of (split, i, seed) and of the options; directions are the same in all splits and seeds.

    ``missing`` is the probability that a sample lacks one of its modalities, which is then 0 and False in its mask.
    Raises ``ValueError`` as :class:`Synthetic` does, for an unknown kind, a negative ``strength`` s, no features and
    a probability outside 0 to 1.
    """

    name, splits, epoch = "cues", ("train", "val", "test"), 1_000_000
    shows = "two vectors that each tell a bit; a label that is both bits, the first, or whether they differ"

    def __init__(
        self, split: str = "train", *, kind: str = "xor", strength: float = STRENGTH, features: int = 16,
        missing: float = 0.0, **options: int,
    ):  # fmt: skip
        super().__init__(split, **options)
        if kind not in KINDS:
            raise ValueError(f"cues has no kind {kind!r}; {suggest(kind, KINDS)}.")
        if strength < 0 or features < 1 or not 0 <= missing <= 1:
            raise ValueError(
                "strength is at least 0, features at least 1, and missing from 0 to 1; got "
                f"{strength}, {features} and {missing}."
            )
        self.kind, self.strength, self.features, self.missing = kind, strength, features, missing

    def _make(self, index: np.ndarray) -> list[CueSample]:
        drawn = torch.from_numpy(uniform(stream("cues", self.split, self.seed), index, 4 + 2 * self.features))
        bits = (drawn[:, :2] < 0.5).long()
        if self.kind == "redundant":
            bits[:, 1] = bits[:, 0]
        label = bits[:, 0] ^ bits[:, 1] if self.kind == "xor" else bits[:, 0]
        noise = normal(drawn[:, 4:]).view(-1, 2, self.features)
        cues = noise + self.strength * (2 * bits[..., None] - 1) * directions(self.features)
        lost = torch.stack([drawn[:, 3] < 0.5, drawn[:, 3] >= 0.5], 1) & (drawn[:, 2:3] < self.missing)
        rows = zip(cues.masked_fill(lost[..., None], 0), ~lost, bits.tolist(), label.tolist())
        return [CueSample(x, there, tuple(said), right) for x, there, said, right in rows]


def directions(features: int) -> Float[Tensor, "2 features"]:
    """The direction of unit length in which each modality tells its bit."""
    drawn = torch.from_numpy(uniform(stream("directions of cues"), np.arange(2), features))
    return torch.nn.functional.normalize(normal(drawn), dim=1)


def normal(drawn: Float[Tensor, "n m"]) -> Float[Tensor, "n m"]:
    """Numbers of a normal distribution from evenly drawn ones, by the inverse of its distribution function."""
    return torch.special.ndtri(drawn.double() + HALF_STEP).float()


def best_accuracy(kind: str, strength: float = STRENGTH, modality: int | None = None) -> float:
    r"""The accuracy that nothing exceeds, of both modalities or of one alone.

    .. math:: \text{redundant: } \Phi(\sqrt 2 s), \quad \text{unique: } \Phi(s), \quad
       \text{xor: } \Phi(s)^2 + (1 - \Phi(s))^2

    One alone tells Φ(s) of what is redundant, as does the first of what is unique; otherwise 1/2. Raises ``ValueError``
    for an unknown kind.
    """
    if kind not in KINDS:
        raise ValueError(f"cues has no kind {kind!r}; {suggest(kind, KINDS)}.")
    right, both = (NormalDist().cdf(factor * strength) for factor in (1, 2**0.5))
    if modality is None:
        return {"redundant": both, "unique": right, "xor": right**2 + (1 - right) ** 2}[kind]
    return right if kind == "redundant" or (kind == "unique" and modality == 0) else 0.5
