"""Fields that are seen: pictures, regions that a detector found in them, and videos."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from mmlearn.data.augment import augment
from mmlearn.data.batches import fetch, image_statistics, normalised, spread
from mmlearn.data.boxes import BoxDetector
from mmlearn.data.fields.field import Batch, Field, size
from mmlearn.data.grid_features import STRIDE, WIDTH, GridDetector, as_channels, grid_features, grid_of
from mmlearn.data.readers.sound import RATE
from mmlearn.data.synthetic.regions import SceneDetector
from mmlearn.layers.config import Config
from mmlearn.objectives.clusters import cluster, nearest

HALF = (0.5, 0.5, 0.5)
IMAGES, PATCHES = 500, 10_000  # of which a codebook is made, at most


def _takes_channels(values: Mapping[str, Any]) -> bool:
    """Whether a configuration has ``channels``, and one number is each of its ``channels`` and ``patch_size``.

    Those of a tower for sounds are two, and all of one name are resized together.
    """
    found: list[tuple[str, Any]] = []
    parts = [values]
    for part in parts:
        parts += [value for value in part.values() if isinstance(value, Mapping)]
        found += [(name, value) for name, value in part.items() if name in ("channels", "patch_size")]
    return "channels" in dict(found) and all(isinstance(value, int) for _, value in found)


@dataclass(frozen=True)
class Image(Field):
    """``image`` (b, 3, height, width): pixels less ``mean`` and over ``std``, one number a channel.

    Where they are not given, :meth:`fitted` takes the data's; until then they are 0.5. With ``frozen_grid`` it is not
    pixels but frozen features that the system reads (:mod:`~mmlearn.data.grid_features`): a picture (b, 96, rows,
    columns), of which each pixel is a patch. For that its configuration has ``channels``; towers that begin with
    convolutions of their own, such as a residual network, have none, because halving 6 × 6 positions five times leaves
    nothing to look at.
    """

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    image_size: int = 64
    frozen_grid: bool = False

    holds = {"image": "Float b 3 height width"}
    known: ClassVar[tuple[str, ...]] = ("mean", "std", "image_size")
    chosen = ("frozen_grid",)
    needs = "image"
    noun = "pictures"

    def __post_init__(self) -> None:
        mean, std = self.mean or HALF, self.std or HALF
        if len(mean) != 3 or len(std) != 3 or not all(map(math.isfinite, (*mean, *std))) or min(std) <= 0:
            raise ValueError(f"mean and std are three numbers each, and std above 0, not {mean} and {std}.")
        if self.image_size < 1:
            raise ValueError(f"image_size is at least 1, not {self.image_size}.")

    @property
    def fixed(self) -> str:  # type: ignore[override]
        """Why this field cannot be augmented; empty: it can."""
        return "frozen features are of pictures as they are, and augmentation changes pictures" * self.frozen_grid

    def data_options(self, config: Config) -> dict[str, Any]:
        return {"size": self.image_size} | ({"grid": True} if self.frozen_grid else {})

    def fitted(self, data: Dataset, config: Config, seed: int) -> Self:
        side = int(data[0].image.shape[-1])
        if self.frozen_grid:
            if not _takes_channels(config.to_dict()):
                raise ValueError(
                    "Frozen features have 96 channels, and this system reads pixels alone: leave them out, or take a "
                    "system with a tower of patches, such as clip, filip, albef, git or vilt."
                )
            return replace(self, mean=HALF, std=HALF, image_size=side)
        if side < (patch := size(config, "patch_size", size(config, "stride", 1))):
            raise ValueError(f"Pictures of {side} pixels are smaller than a patch of {patch}.")
        if side % (patch := size(config, "patch_size", 1)):
            less = side // patch * patch
            raise ValueError(
                f"Pictures of {side} pixels do not divide into patches of {patch}, and the rest would be left out: "
                f"take an image_size of {less} or {less + patch}."
            )
        if self.mean is not None:
            return replace(self, image_size=side)
        mean, std = (tuple(part.tolist()) for part in image_statistics(data))
        return replace(self, mean=mean, std=std, image_size=side)

    def sizes(self) -> dict[str, Any]:
        if not self.frozen_grid:
            return {"image_size": self.image_size}
        side = math.ceil(self.image_size / STRIDE)
        return {"image_size": side, "patch_size": 1, "channels": WIDTH, "convolutions": False}

    def __call__(self, samples: Sequence[Any]) -> Batch:
        if self.frozen_grid:
            return {"image": as_channels(grid_of(samples))}
        return {"image": normalised(samples, self.mean or HALF, self.std or HALF)}

    def of_images(self, images: Tensor) -> Tensor:
        """What the system reads of pictures (b, 3, height, width) from 0 to 1."""
        if self.frozen_grid:
            return as_channels(grid_features(images, keep=False))
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (self.mean or HALF, self.std or HALF))
        return (images - mean) / std

    def example(self, b: int, config: Config, generator: torch.Generator) -> Batch:
        side = size(config, "image_size", 64)
        height, width = side if isinstance(side, tuple) else (side, side)
        return {"image": torch.randn(b, size(config, "channels", 3), height, width, generator=generator)}

    def augmented(self, batch: Batch, generator: torch.Generator) -> Batch:
        return batch | {"image": augment(batch["image"], generator)}


@dataclass(frozen=True)
class Patches(Image):
    """An :class:`Image` of which labels hide patches.

    It tells them the ``patch_size`` and the ``mask_share`` of the configuration, the share of patches that are hidden.
    """

    patch_size: int = 16
    mask_share: float = 0.75

    known = (*Image.known, "patch_size", "mask_share")

    def fitted(self, data: Dataset, config: Config, seed: int) -> Self:
        """As of :class:`Image`, with what the configuration says of patches. It hides pixels, and no features."""
        if self.frozen_grid:
            raise ValueError("This system learns from hidden pixels, which frozen features are not: leave them out.")
        cut = {name: size(config, name) for name in ("patch_size", "mask_share")}
        return replace(super().fitted(data, config, seed), **cut)

    def sizes(self) -> dict[str, Any]:
        """As of :class:`Image`, and what labels ask for."""
        return super().sizes() | {"patch_size": self.patch_size, "mask_share": self.mask_share}


@dataclass(frozen=True)
class PatchCodes(Field):
    """``code`` (b, p): for each patch of a picture the number that a tokenizer gives it.

    ``tokenize`` is a function of pictures (b, 3, height, width), from 0 to 1, that gives numbers below the size
    ``codes`` of the configuration. Without it a patch is the nearest of as many centroids, by k-means of the mean
    colours of its four quarters: no network, and no meaning beyond colour and coarse edges.
    """

    tokenize: Callable[[Tensor], Tensor] | None = None
    patch_size: int = 16
    centroids: tuple[tuple[float, ...], ...] = ()

    holds = {"code": "Int b p < codes"}
    known = ("patch_size", "centroids")
    needs = "image"
    noun = "pictures"
    fixed = "codes are of pictures as they are, and augmentation changes pictures"

    def __post_init__(self) -> None:
        if not all(math.isfinite(x) and len(row) == 12 for row in self.centroids for x in row):
            raise ValueError("centroids are rows of 12 finite numbers: the colours of four quarters.")

    def _colours(self, samples: Sequence[Any]) -> Tensor:
        """The colours of each patch's quarters, (b, p, 12)."""
        image = torch.stack([sample.image for sample in samples])
        rows, columns = (side // self.patch_size for side in image.shape[2:])
        quarters = F.adaptive_avg_pool2d(
            image[..., : rows * self.patch_size, : columns * self.patch_size], (2 * rows, 2 * columns)
        )
        return rearrange(quarters, "b c (row y) (column x) -> b (row column) (c y x)", y=2, x=2)

    def fitted(self, data: Dataset, config: Config, seed: int) -> Self:
        known = replace(self, patch_size=_code_size(config))
        if self.tokenize is not None:
            return known
        colours = known._colours(fetch(data, spread(len(data), IMAGES))).flatten(0, 1)
        wanted = min(size(config, "codes"), len(colours))
        generator = torch.Generator().manual_seed(seed)
        colours = colours[torch.randperm(len(colours), generator=generator)[:PATCHES]]
        return replace(known, centroids=tuple(map(tuple, cluster(colours, wanted, generator=generator).tolist())))

    def sizes(self) -> dict[str, Any]:
        return {"codes": len(self.centroids)} if self.tokenize is None else {}

    def __call__(self, samples: Sequence[Any]) -> Batch:
        if self.tokenize is not None:
            return {"code": self.tokenize(torch.stack([sample.image for sample in samples]))}
        if not self.centroids:
            raise ValueError("PatchCodes has no centroids yet: give it a function tokenize, or fitted(…) it to data.")
        colours, centroids = self._colours(samples), torch.tensor(self.centroids)
        return {"code": nearest(colours.flatten(0, 1), centroids).view(colours.shape[:2])}

    def example(self, b: int, config: Config, generator: torch.Generator) -> Batch:
        side, patch = size(config, "image_size", 64), _code_size(config)
        height, width = side if isinstance(side, tuple) else (side, side)
        return {
            "code": torch.randint(size(config, "codes"), (b, (height // patch) * (width // patch)), generator=generator)
        }


def _code_size(config: Config) -> int:
    """Pixels that a code stands for, each way: those of a patch, unless the configuration says otherwise."""
    return size(config, "code_size", size(config, "patch_size"))


@dataclass(frozen=True)
class Regions(Field):
    """What a detector finds in pictures: features, boxes, the classes' probabilities, and what is real.

    ``detector`` is for scenes; in other samples that have boxes with names, such as collages, it is a
    :class:`~mmlearn.data.boxes.BoxDetector` of the names that there are. With ``frozen_grid`` features are not of
    pixels, but the frozen ones of :class:`~mmlearn.data.grid_features.GridDetector`.
    """

    detector: SceneDetector | BoxDetector = SceneDetector()
    image_size: int = 64
    frozen_grid: bool = False
    names: tuple[str, ...] = ()

    holds = {
        "regions": "Float b p {region_width}",
        "boxes": "Float b p 4",
        "region_classes": "Float b p {region_classes}",
        "region_mask": "Bool b p",
    }
    known = ("image_size",)
    chosen = ("frozen_grid", "names")
    needs = "boxes"
    fixed = "regions are cut out of pictures, and augmentation changes pictures"

    def data_options(self, config: Config) -> dict[str, Any]:
        return {"size": self.image_size} | ({"grid": True} if self.frozen_grid else {})

    def fitted(self, data: Dataset, config: Config, seed: int) -> Self:
        sample = data[0]
        names = () if hasattr(sample, "layout") and not self.frozen_grid else tuple(sample.known)
        return replace(self, image_size=int(sample.image.shape[-1]), names=names)

    def check_sample(self, sample: Any, system: str) -> None:
        if getattr(sample, "boxes", None) is None or not hasattr(sample, "known"):
            raise ValueError(
                f"{system} reads regions, which only scenes and collages have: use --data scenes or --data collages, "
                "or take a system that reads pixels."
            )

    @cached_property
    def _detects(self) -> SceneDetector | BoxDetector:
        """The detector of what the data has."""
        kind = GridDetector if self.frozen_grid else BoxDetector
        return kind(self.names) if self.names else self.detector

    def sizes(self) -> dict[str, Any]:
        detector = self._detects
        return {"region_width": detector.region_width, "region_classes": len(detector.classes), "region_attributes": 0}

    def __call__(self, samples: Sequence[Any]) -> Batch:
        return self._detects(samples)

    def example(self, b: int, config: Config, generator: torch.Generator) -> Batch:
        p, width, classes = 5, size(config, "region_width"), size(config, "region_classes")
        corner = torch.rand(b, p, 2, generator=generator) * 0.6
        mask = torch.arange(p) < p - torch.arange(b)[:, None] % 3
        return {
            "regions": torch.randn(b, p, width, generator=generator) * mask[..., None],
            "boxes": torch.cat([corner, corner + 0.3], -1) * mask[..., None],
            "region_classes": torch.randn(b, p, classes, generator=generator).mul(3).softmax(-1) * mask[..., None],
            "region_mask": mask,
        }


@dataclass(frozen=True)
class Video(Field):
    """``video`` (b, f, 3, height, width) at ``fps`` frames a second, pixels from -1 to 1, and its ``video_mask``.

    At most ``frames`` are taken. They are made smaller, to ``shown`` pixels, where that is set. ``features`` is what
    the configuration calls the numbers of a frame; where they are no pixels, as in presets that read features of faces,
    an example has so many of them.
    """

    fps: int = 25
    image_size: int = 32
    frames: int | None = None
    shown: int | None = None
    features: str = ""

    holds = {"video": "Float b f 3 height width", "video_mask": "Bool b f"}
    known = ("image_size",)
    needs = "video"
    noun = "videos"
    advice = "use --data talking-lips or --data scenes-video"

    def data_options(self, config: Config) -> dict[str, Any]:
        return {"size": self.image_size, "fps": self.fps}

    def fitted(self, data: Dataset, config: Config, seed: int) -> Self:
        return replace(self, image_size=int(data[0].video.shape[-1]))

    def check_sample(self, sample: Any, system: str) -> None:
        super().check_sample(sample, system)
        seconds = len(sample.waveform) / RATE
        if len(sample.video) != round(seconds * self.fps):
            raise ValueError(f"{system} reads {self.fps} frames a second; got {len(sample.video)} in {seconds:g} s.")

    def __call__(self, samples: Sequence[Any]) -> Batch:
        clips = [sample.video[: self.frames] for sample in samples]
        if self.shown:
            clips = [F.interpolate(clip, (self.shown, self.shown), mode="area") for clip in clips]
        lengths = torch.tensor([len(clip) for clip in clips])
        video = pad_sequence(clips, batch_first=True)
        return {"video": 2 * video - 1, "video_mask": torch.arange(video.shape[1]) < lengths[:, None]}

    def example(self, b: int, config: Config, generator: torch.Generator) -> Batch:
        f, side = min(12, self.frames or 12), self.shown or self.image_size
        numbers = size(config, self.features) if self.features else 3 * side**2
        frame = (3, side, side) if numbers == 3 * side**2 else (numbers,)
        video = torch.randn(b, f, *frame, generator=generator)
        return {"video": video, "video_mask": torch.arange(f) < f - 2 * (torch.arange(b)[:, None] % 3)}
