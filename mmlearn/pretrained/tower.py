"""A published image tower, such as SigLIP's, that sees a picture as a few fields, in the packaged tower's place."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from mmlearn.models.vision.backbone import BackboneConfig, PositionBackbone
from mmlearn.pretrained.loading import load_pretrained, published_folder, read_config, read_json

MOBILENET = "mobilenetv2"  # the name of the packaged tower


class Patches(nn.Module):
    """The patches of a tower as a map: images (b, 3, height, width) → (b, width, rows, columns)."""

    def __init__(self, tower: nn.Module, patch_size: int, class_token: bool):
        super().__init__()
        self.tower, self.patch_size, self.first = tower, patch_size, int(class_token)

    def forward(self, images: Float[Tensor, "b 3 height width"]) -> Float[Tensor, "b d rows columns"]:
        x = self.tower(images)[:, self.first :]  # (b, p, d)
        return rearrange(x, "b (row column) d -> b d row column", row=images.shape[-2] // self.patch_size)


def fields_of(name: str | Sequence[str] = MOBILENET, side: int = 4) -> BackboneConfig:
    """A tower that sees side × side fields: ``mobilenetv2``, or that of a folder or a hub id, such as SigLIP's.

    Of several names the first that can be had, and a warning tells which. Errors as of
    :func:`~mmlearn.load_pretrained`; ``ValueError`` for a model without a tower, for one that does not say how pixels
    are normalised, and for a picture that does not divide into these fields.
    """
    first, *others = [name] if isinstance(name, str) else name
    if first == MOBILENET:
        return BackboneConfig(patch_size=256 // side)
    try:
        tower = _tower(first)[1]
    except FileNotFoundError:
        if not others:
            raise
        warnings.warn(f"{others[0]} in place of {first}, which cannot be had here", stacklevel=2)
        return fields_of(others, side)
    pixels = tower.image_size
    if not isinstance(pixels, int) or pixels % side:
        raise ValueError(f"The pictures of {first}, {pixels} pixels a side, do not divide into {side} × {side} fields.")
    return BackboneConfig(image_size=pixels, patch_size=pixels // side, width=tower.width, published=first)


def load_tower(config: BackboneConfig) -> PositionBackbone:
    """The tower of this configuration, frozen. Errors as of :func:`fields_of`."""
    whole, own, pixels = _tower(str(config.published))
    return PositionBackbone(Patches(whole.image_encoder, own.patch_size, own.class_token), config, **pixels)


def _tower(name: str) -> tuple[Any, Any, dict[str, Any]]:
    """The model, the configuration of its tower, and mean and spread of the pixels."""
    whole: Any = load_pretrained(name)
    own = getattr(whole.config, "image", None)
    if own is None or not hasattr(whole, "image_encoder"):
        raise ValueError(f"{name} is a {type(whole).__name__}, which has no image tower beside a text tower.")
    return whole, own, pixel_settings(published_folder(name))


def pixel_settings(folder: Path) -> dict[str, Any]:
    """Mean and spread of the pixels of a published model. ``ValueError`` where no file says them."""
    for file, part in (("preprocessor_config.json", None), ("processor_config.json", "image_processor")):
        if (folder / file).is_file():
            said = read_json(folder / file)
            said = said.get(part) or {} if part else said
            mean, std = said.get("image_mean"), said.get("image_std")
            if isinstance(mean, list) and isinstance(std, list):
                return dict(mean=tuple(mean), std=tuple(std))
    if read_config(folder).get("model_type") == "nanovlm":  # which reads pixels from 0 to 1 as they are
        return dict(mean=(0.0,) * 3, std=(1.0,) * 3)
    raise ValueError(
        f"{folder} does not say how images are normalised: put the model's preprocessor_config.json into it, with "
        "image_mean and image_std."
    )
