"""Reading the user's own pictures, whatever they are, or saying which one cannot be read and why."""

import io
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")  # Pillow would start other programs for some of the rest
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
SQUARE = 1.05  # a picture whose sides differ by less loses nothing that a caption would be about
GREY = (204, 204, 204)  # under transparent pictures


@dataclass(frozen=True)
class ImageText:
    """A picture, float32 (3, size, size) in [0, 1], its caption, and where the picture came from."""

    image: Float[Tensor, "3 size size"]
    caption: str
    source: str


def read_image(
    source: Path | bytes, size: int, *, name: str | None = None, notes: list[str] | None = None
) -> Float[Tensor, "3 size size"]:
    """The middle square of a picture, at ``size`` pixels, upright and in colour.

    One that is not square loses its ends, and a line of ``notes`` says so. Transparency is laid over light grey; of an
    animation the first frame is taken. Raises ``FileNotFoundError`` for a missing file, and ``ValueError`` naming a
    file that is no picture of ``FORMATS``, whatever its name says, is cut off, or is too large to be meant.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    name = name or str(source)
    if isinstance(source, Path) and not source.is_file():
        raise FileNotFoundError(f"There is no picture {name}.")
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        # What Pillow warns of, such as odd remarks in a file, is nothing that a reader can mend.
        with warnings.catch_warnings(action="ignore"), Image.open(file, formats=FORMATS) as image:
            image = ImageOps.exif_transpose(image)
            if image.mode == "F" or image.mode.startswith("I"):  # 16 bits a pixel and more, or from 0 to 1
                values = np.nan_to_num(np.asarray(image, np.float32))
                scaled = values * (255 if values.max() <= 1 else 1 / 256)
                image = Image.fromarray(scaled.clip(0, 255).astype(np.uint8))
            if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
                image = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, (*GREY, 255)), image)
            if notes is not None and max(image.size) > SQUARE * min(image.size):
                notes.append(f"{name}: only the middle square is read, of {image.width} × {image.height}")
            image = ImageOps.fit(image.convert("RGB"), (size, size), Image.Resampling.BICUBIC)
    except UnidentifiedImageError as error:
        raise ValueError(f"{name} is no picture that can be read ({', '.join(FORMATS)}).") from error
    except Exception as error:  # each format's reader raises its own
        raise ValueError(f"{name} cannot be read as a picture: {str(error).rstrip('.')}.") from error
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(size, size, 3)
    return pixels.permute(2, 0, 1).float() / 255
