"""Whatever a user's picture is, it is read as it looks, or one line names it and says why it cannot be read."""

import io
import random
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from mmlearn.data.readers.images import read_image

GREY = 0.8
RED, GREEN, BLUE, WHITE = (250, 20, 30), (10, 240, 20), (20, 30, 230), (255, 255, 255)


def encode(image, form, **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def quarters(size=(16, 16)):
    """Red, green; blue, white."""
    width, height = size
    image = Image.new("RGB", size)
    for i, colour in enumerate((RED, GREEN, BLUE, WHITE)):
        left, top = (i % 2) * width // 2, (i // 2) * height // 2
        image.paste(colour, (left, top, left + width // 2, top + height // 2))
    return image


def assert_quarters(got, colours=(RED, GREEN, BLUE, WHITE), tolerance=0.02):
    assert got.dtype == torch.float32
    assert got.min() >= 0
    assert got.max() <= 1
    _, height, width = got.shape
    for i, colour in enumerate(colours):
        middle = got[:, height // 4 + (i // 2) * height // 2, width // 4 + (i % 2) * width // 2]
        assert (middle - torch.tensor(colour) / 255).abs().max() < tolerance, (i, middle, colour)


def grey(image):
    return [tuple(round(0.299 * r + 0.587 * g + 0.114 * b) for _ in range(3)) for r, g, b in image]


# Kinds of pictures.


@pytest.mark.parametrize(
    ("mode", "form", "options", "tolerance"),
    [
        ("RGB", "PNG", {}, 0.003),
        ("RGB", "BMP", {}, 0.003),
        ("RGB", "TIFF", {}, 0.003),
        ("RGB", "JPEG", {"quality": 95, "subsampling": 0}, 0.03),
        ("RGB", "JPEG", {"quality": 95, "subsampling": 0, "progressive": True}, 0.03),
        ("RGB", "WEBP", {"lossless": True}, 0.003),
        ("CMYK", "JPEG", {"quality": 95}, 0.03),
        ("CMYK", "TIFF", {}, 0.003),
        ("YCbCr", "TIFF", {}, 0.02),
        ("P", "PNG", {}, 0.003),
        ("P", "GIF", {}, 0.003),
        ("RGBA", "PNG", {}, 0.003),
    ],
)
def test_colour_images(mode, form, options, tolerance):
    image = quarters()
    image = image.convert("P", palette=Image.Palette.ADAPTIVE) if mode == "P" else image.convert(mode)
    assert_quarters(read_image(encode(image, form, **options), 16), tolerance=tolerance)


@pytest.mark.parametrize("form", ["PNG", "GIF", "JPEG", "TIFF"])
def test_grey_images_have_three_equal_channels(form):
    got = read_image(encode(quarters().convert("L"), form), 16)
    assert_quarters(got, grey([RED, GREEN, BLUE, WHITE]), tolerance=0.02)
    assert torch.equal(got[0], got[2])


def test_black_and_white_images():
    got = read_image(encode(Image.fromarray(np.eye(4) > 0), "PNG"), 4)
    assert torch.equal(got, torch.eye(4).expand(3, 4, 4))


def sixteen_bits(kind, values):
    """A file that stores these numbers with 16 bits or more a pixel."""
    if kind == "big-endian TIFF":
        return encode(Image.frombytes("I;16B", values.shape[::-1], values.astype(">u2").tobytes()), "TIFF")
    if kind == "32-bit TIFF":
        return encode(Image.fromarray(values.astype(np.int32)), "TIFF")
    if kind == "float TIFF":
        return encode(Image.fromarray(values.astype(np.float32)), "TIFF")
    if kind == "float TIFF from 0 to 1":
        return encode(Image.fromarray(values.astype(np.float32) / 65535), "TIFF")
    return encode(Image.fromarray(values.astype(np.uint16)), kind)


@pytest.mark.parametrize(
    "kind", ["PNG", "TIFF", "big-endian TIFF", "32-bit TIFF", "float TIFF", "float TIFF from 0 to 1"]
)
def test_sixteen_bits_are_scaled_and_not_cut(kind):
    values = np.linspace(0, 65535, 64).reshape(8, 8)
    got = read_image(sixteen_bits(kind, values), 8)
    np.testing.assert_allclose(got.numpy(), np.broadcast_to(values / 65535, (3, 8, 8)), atol=1.5 / 255)


def test_a_colour_image_of_16_bits():
    """Pillow cannot write one, so the file is put together here."""
    rows = [b"\0" + b"".join(struct.pack(">3H", *(257 * c for c in colour)) for colour in row) for row in pixels()]
    assert_quarters(read_image(png(rows, 2, depth=16, colour=2), 2), tolerance=0.005)


def pixels():
    return [(RED, GREEN), (BLUE, WHITE)]


def png(rows, side, *, depth=8, colour=0, chunk_side=None):
    """A PNG file of filtered rows that says that it is ``chunk_side`` wide and high."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">2I5B", chunk_side or side, chunk_side or side, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"".join(rows))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize(("form", "options"), [("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})])
def test_transparency_lies_over_light_grey(form, options):
    image = quarters().convert("RGBA")
    image.paste((*RED, 0), (0, 0, 8, 8))
    image.paste((*GREEN, 128), (8, 0, 16, 8))
    half = tuple(c * 128 / 255 + 255 * GREY * 127 / 255 for c in GREEN)
    got = read_image(encode(image, form, **options), 16)
    assert_quarters(got, [(255 * GREY,) * 3, half, BLUE, WHITE], tolerance=0.006)


@pytest.mark.parametrize("mode", ["RGB", "L", "P"])
def test_a_transparent_colour_lies_over_light_grey_too(mode):
    if mode == "P":
        image = Image.new("P", (16, 16), 1)
        image.putpalette([*RED, *GREEN, *BLUE, *WHITE])
        clear, shown = 2, GREEN
    else:
        clear, shown = (BLUE, GREEN) if mode == "RGB" else (9, 200)
        image = Image.new(mode, (16, 16), shown)
    image.paste(clear, (0, 0, 8, 8))
    got = read_image(encode(image, "PNG", transparency=clear), 16)
    shown = (shown,) * 3 if mode == "L" else shown
    assert_quarters(got, [(255 * GREY,) * 3, shown, shown, shown], tolerance=0.006)


@pytest.mark.parametrize(("form", "options"), [("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {}), ("TIFF", {})])
def test_of_an_animation_the_first_frame_is_taken(form, options):
    others = [Image.new("RGB", (16, 16), colour) for colour in (BLUE, RED)]
    content = encode(quarters(), form, save_all=True, append_images=others, **options)
    with Image.open(io.BytesIO(content)) as image:
        assert image.n_frames == 3
    assert_quarters(read_image(content, 16), tolerance=0.01)


TURNS = {  # what the camera noted → how what it stored is turned to stand upright, in quarters, and which are swapped
    1: (0, 1, 2, 3),
    2: (1, 0, 3, 2),
    3: (3, 2, 1, 0),
    4: (2, 3, 0, 1),
    5: (0, 2, 1, 3),
    6: (2, 0, 3, 1),
    7: (3, 1, 2, 0),
    8: (1, 3, 0, 2),
}


@pytest.mark.parametrize("orientation", TURNS)
def test_images_stand_as_the_camera_was_held(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encode(quarters(), "JPEG", quality=95, subsampling=0, exif=exif)
    colours = [(RED, GREEN, BLUE, WHITE)[i] for i in TURNS[orientation]]
    assert_quarters(read_image(content, 16), colours, tolerance=0.03)


# Size and crop.


@pytest.mark.parametrize("size", [(24, 8), (8, 24)])
def test_the_middle_square_is_taken(size):
    image = Image.new("RGB", size, RED)
    left, top = (side // 2 - 4 for side in size)
    image.paste(quarters((8, 8)), (left, top))
    assert_quarters(read_image(encode(image, "PNG"), 8), tolerance=0.003)


@pytest.mark.parametrize("size", [1, 2, 7, 16, 64])
def test_every_size(size):
    got = read_image(encode(quarters((40, 30)), "PNG"), size)
    assert got.shape == (3, size, size)
    if size >= 7:
        assert_quarters(got, tolerance=0.1)


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1)])
def test_tiny_and_thin_images(size):
    got = read_image(encode(Image.new("RGB", size, GREEN), "PNG"), 8)
    assert_quarters(got, [GREEN] * 4)


# What is no picture.


def refused(tmp_path, content, name="wrong.png"):
    """What is said of a file with this content."""
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"picture") as caught:
        read_image(path, 8)
    text = str(caught.value)
    assert text.startswith(str(path))
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    "content", [b"", b"image,caption\na.png,a dog\n", b"<svg></svg>", b"\x89PNG\r\n\x1a\n", bytes(99)]
)
def test_files_that_are_no_images(tmp_path, content):
    refused(tmp_path, content)


@pytest.mark.parametrize("form", ["EPS", "PPM", "TGA", "PCX", "ICO", "ICNS", "JPEG2000", "DDS", "SGI", "PDF"])
def test_only_promised_formats_are_opened(tmp_path, monkeypatch, form):
    """Whatever the name says. Of PostScript Pillow starts Ghostscript."""
    monkeypatch.setattr("subprocess.Popen", lambda *_, **__: pytest.fail("started another program"))
    assert "no picture that can be read (BMP, GIF, JPEG," in refused(tmp_path, encode(Image.new("RGB", (16, 16)), form))


def test_odd_remarks_in_a_file_are_not_told(recwarn):
    """Pillow warns of them; nobody can mend them, and the picture is whole."""
    content = encode(Image.new("RGB", (8, 8), GREEN), "TIFF", tiffinfo={305: "x"}).replace(b"x\0", b"\xff\0")
    odd = encode(Image.new("RGB", (8, 8), GREEN), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff")
    for file in (content, odd):
        assert_quarters(read_image(file, 8, name="odd"), [GREEN] * 4)
    assert not recwarn.list


@pytest.mark.parametrize(("form", "kept"), [("JPEG", 0.5), ("JPEG", 0.9), ("PNG", 0.5), ("GIF", 0.6), ("WEBP", 0.5)])
def test_images_that_are_cut_off(tmp_path, form, kept):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    content = encode(noise, form)
    refused(tmp_path, content[: int(len(content) * kept)], f"cut.{form.lower()}")


def test_errors_of_other_kinds_are_told_alike(tmp_path):
    """For a header of 5 bytes Pillow raises a ValueError that names no file."""
    short = (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", 5)
        + b"IHDR"
        + bytes(5)
        + struct.pack(">I", zlib.crc32(b"IHDR" + bytes(5)))
    )
    assert "IHDR" in refused(tmp_path, short)


def test_a_decompression_bomb_is_refused_before_it_unfolds(tmp_path):
    """A file of 200 bytes that claims a billion pixels."""
    said = refused(tmp_path, png([b"\0" * 64], 32, chunk_side=32000), "bomb.png")
    assert "decompression bomb" in said


def test_a_missing_image_and_a_folder_by_that_name(tmp_path):
    (tmp_path / "folder.png").mkdir()
    for name in ("none.png", "folder.png"):
        with pytest.raises(FileNotFoundError, match=f"There is no picture .*{name}"):
            read_image(tmp_path / name, 8)


def test_a_image_in_an_archive_is_called_by_the_name_given():
    with pytest.raises(ValueError, match=r"^cat\.jpg in shard\.tar is no picture"):
        read_image(b"no", 8, name="cat.jpg in shard.tar")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"])
def test_any_damage_gives_a_image_or_one_line_that_names_it(form):
    generator = random.Random(form)
    whole = encode(quarters().convert("P" if form == "GIF" else "RGB"), form)
    read = 0
    for _ in range(250):
        content = bytearray(whole)
        if generator.random() < 0.3:
            del content[generator.randrange(len(content)) :]
        for _ in range(generator.randint(1, 4) if content else 0):
            content[generator.randrange(min(len(content), 200))] = generator.randrange(256)
        try:
            got = read_image(bytes(content), 8, name="NAME")
        except ValueError as error:
            assert str(error).startswith("NAME ")  # noqa: PT017
            assert "\n" not in str(error)  # noqa: PT017
        else:
            read += 1
            assert got.shape == (3, 8, 8)
            assert got.isfinite().all()
    assert read < 250
