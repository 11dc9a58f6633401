"""A data set at a glance, as a file: a picture of its pictures, or a page where its sounds can be played as well."""

import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from matplotlib.backend_bases import FigureCanvasBase
from torch import Tensor

from mmlearn.data.mel import mel_image
from mmlearn.visualization.figures import contact_sheet
from mmlearn.visualization.listening import listening_page

MISSING = re.compile("Glyph .* missing|Matplotlib currently does not support")


def check_sheet(path: Path) -> None:
    """``ValueError`` where no sheet can be written by this name."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give a file in it that ends in .png, or in .html for a page.")
    kind = path.suffix.lower().removeprefix(".")
    if kind != "html" and kind not in FigureCanvasBase.get_supported_filetypes():
        raise ValueError(f"{path}: a picture's name ends in .png, and that of a page in .html.")


def write_sheet(path: Path, samples: Sequence[Any], *, title: str) -> bool:
    """Write samples with their captions to a page where ``path`` ends in .html, else to a picture.

    In a picture a sound is its spectrogram, and a text alone has a strip of grey. Returns whether all letters could be
    drawn; a page leaves that to the browser.
    """
    images = [image_of(one) for one in samples]
    if path.suffix.lower() == ".html":
        captions = ["\n".join(dict.fromkeys([one.caption, getattr(one, "english", one.caption)])) for one in samples]
        page = listening_page(images, captions, [_sounds(one) for one in samples], title=title)
        path.write_text(page, encoding="utf-8")
        return True
    with warnings.catch_warnings(record=True) as caught:  # one for each letter that the font lacks
        warnings.simplefilter("always")
        contact_sheet(images, [one.caption for one in samples], title=title).savefig(path)
    missing = [MISSING.match(str(item.message)) is not None for item in caught]
    for item in (item for item, known in zip(caught, missing) if not known):
        warnings.warn_explicit(item.message, item.category, item.filename, item.lineno)
    return not any(missing)


def image_of(sample: Any) -> Float[Tensor, "3 height width"]:
    """A sample's picture; the spectrogram of its sound where it has none, and a strip of grey for a text alone."""
    if (image := getattr(sample, "image", None)) is not None:
        return image
    waveform = getattr(sample, "waveform", None)
    return torch.full((3, 8, 64), 0.9) if waveform is None else mel_image(waveform)


def _sounds(sample: Any) -> dict:
    """What can be played of a sample, by label."""
    waveform = getattr(sample, "waveform", None)
    return getattr(sample, "sounds", {} if waveform is None else {"sound": waveform})
