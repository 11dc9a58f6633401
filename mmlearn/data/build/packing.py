"""How :mod:`mmlearn.data.build.archives` stores pictures and tables: small, and the same bytes each time."""

import io
import json
import zipfile
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image

SIZE = 64  # pixels
DRAWN = 256  # pixels: four times as large, as Fluent 3D comes, so that every style is made smaller in the same way
QUALITY = 60  # of WebP; above it files grow faster than anything improves at this size
OPACITIES = 16  # levels; finer edges would add a tenth to the files, and nobody would see it


def draw(svg: str) -> "Image":
    """The picture that an SVG describes. ``SystemExit`` where ``resvg-py`` is not installed."""
    try:
        import resvg_py
    except ImportError:
        raise SystemExit("resvg-py draws the emoji, and is not installed: pip install resvg-py.") from None
    return open_image(bytes(resvg_py.svg_to_bytes(svg_string=svg, skip_system_fonts=True)))


def open_image(file: bytes) -> "Image":
    """A picture of any format, in colour and with its opacity."""
    from PIL import Image

    return Image.open(io.BytesIO(file)).convert("RGBA")


def webp(image: "Image") -> bytes:
    """The picture in the middle of 64 × 64 pixels, with its opacity, which also weighs the colours of its edge."""
    from PIL import Image

    side = max(image.size)
    square = Image.new("RGBA", (side, side))
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    small = square.convert("RGBa").resize((SIZE, SIZE), Image.Resampling.BOX).convert("RGBA")
    step = 255 // (OPACITIES - 1)
    small.putalpha(small.getchannel("A").point([(value + step // 2) // step * step for value in range(256)]))
    file = io.BytesIO()
    small.save(file, "WEBP", quality=QUALITY, method=6)
    return file.getvalue()


def zipped(files: dict[str, bytes]) -> bytes:
    """Files by name, in order of name without its suffix, not compressed, all of 1 January 1980."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name in sorted(files, key=lambda name: name.rpartition(".")[0]):
            item = zipfile.ZipInfo(name)
            item.create_system, item.external_attr = 3, 0o644 << 16
            archive.writestr(item, files[name])
    return target.getvalue()


def as_json(value: Any, **layout: Any) -> bytes:
    """JSON in UTF-8, ending in a new line."""
    return (json.dumps(value, ensure_ascii=False, **layout) + "\n").encode()
