"""What collages are composed of: 64 named things cut out of real pictures, in several styles, and pastel paper.

Drawings are those of :mod:`~mmlearn.data.packaged.emoji`, photographs those of :mod:`~mmlearn.data.packaged.stamps`
that show one of these things and nothing else. Seven nouns are dyed in six exact colours, which is a change to the
pictures; their credits say so.
"""

import colorsys
from collections.abc import Sequence
from functools import cache, lru_cache
from io import BytesIO
from typing import NamedTuple
from zipfile import ZipFile

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageFilter
from torch import Tensor

from mmlearn.data.packaged.archives import ARCHIVES, read_json, reading
from mmlearn.data.packaged.emoji import FLUENT, KNOWN, OPENMOJI

NOUNS = (
    "cat", "dog", "horse", "cow", "pig", "rabbit", "elephant", "monkey", "penguin", "turtle", "fish", "octopus",
    "snail", "butterfly", "bee", "frog", "lion", "owl", "crab", "duck",
    "apple", "banana", "lemon", "pear", "strawberry", "pineapple", "carrot", "mushroom", "pizza", "hamburger",
    "doughnut", "cake", "bread", "watermelon",
    "car", "bus", "tractor", "bicycle", "train", "rocket", "plane", "sailboat",
    "guitar", "trumpet", "violin", "drum", "saxophone",
    "hammer", "key", "umbrella", "book", "telephone", "camera", "clock", "bell", "crown", "hat", "dress", "shirt",
    "balloon", "shoe", "star", "tulip", "tree",
)  # fmt: skip
# What CLDR calls those that it calls otherwise.
CLDR = {
    "bee": "honeybee", "apple": "red apple", "cake": "birthday cake", "car": "automobile", "train": "locomotive",
    "plane": "airplane", "book": "closed book", "clock": "alarm clock", "hat": "top hat", "shirt": "t-shirt",
    "shoe": "running shoe", "tree": "deciduous tree",
}  # fmt: skip
PLURALS = {noun: f"{noun}s" for noun in NOUNS} | {
    "fish": "fish", "butterfly": "butterflies", "strawberry": "strawberries", "octopus": "octopuses",
    "bus": "buses", "dress": "dresses",
}  # fmt: skip
HUES = {"red": 357, "yellow": 46, "green": 125, "blue": 215, "purple": 275, "pink": 330}  # degrees
COLOURS = tuple(HUES)
DYED = ("car", "balloon", "book", "umbrella", "dress", "shirt", "telephone")
PHOTOGRAPHS = ("stamps",)
TINT = 0.22  # the saturation of a coloured paper
# Photographs of one such thing among the stamps: their names in the archive.
STAMPS = {
    noun: names.split()
    for noun, names in {
        "dog": "animals/mammals/dogs/dog",
        "horse": "animals/mammals/equines/horse",
        "cow": "animals/mammals/bovines/cow animals/mammals/bovines/cow_white",
        "pig": "animals/mammals/pig animals/mammals/pig_golden animals/mammals/pig_golden2",
        "rabbit": "animals/mammals/lagomorphs/rabbit animals/mammals/lagomorphs/rabbit-2",
        "elephant": "animals/mammals/elephant",
        "penguin": "animals/birds/penguin animals/birds/magellanic_penguin animals/birds/little-penguin",
        "fish": "animals/fish/butterflyfish animals/fish/clownfish animals/fish/coraltrout animals/fish/moonwrasse",
        "snail": "animals/insects/cartoon/snail",
        "butterfly": "animals/insects/cartoon/monarchbutterfly",
        "frog": "animals/amphibians/frog animals/amphibians/frog-1",
        "lion": "animals/mammals/cats/lion animals/mammals/cats/lion-2",
        "owl": "animals/birds/owl",
        "duck": "animals/birds/duck",
        "apple": "food/fruit/apple_red food/fruit/apple_fuji food/fruit/apple_sierra_beauty",
        "banana": "food/fruit/banana",
        "lemon": "food/fruit/lemon",
        "pear": "food/fruit/pear",
        "strawberry": "food/fruit/strawberry food/fruit/Strawberry2",
        "pineapple": "food/fruit/pineapple",
        "carrot": "food/vegetables/carrot",
        "mushroom": "food/vegetables/mushroom",
        "bus": "vehicles/masstransit/green_korean_bus",
        "bicycle": "vehicles/cycle/bluebike",
        "rocket": "space/rocket1 space/rocket2",
        "plane": "vehicles/flight/planes/plane",
        "guitar": "hobbies/music/string/guitar_classical hobbies/music/string/guitar_electric",
        "trumpet": "hobbies/music/brass/trumpet",
        "violin": "hobbies/music/string/violin hobbies/music/string/violin2",
        "drum": "hobbies/music/percussion/drum_tomtom_floor",
        "hammer": "household/tools/hammer household/tools/hammer2",
        "key": "household/key",
        "camera": "hobbies/camera_35mm household/electronics/camera household/electronics/digitalcamera",
        "clock": "symbols/clock",
    }.items()
}
STYLES = KNOWN + FLUENT + OPENMOJI + PHOTOGRAPHS
PAPERS = 48  # grounds
GROUND = 204  # of 255: the light grey on which emoji and stamps are shown
BOX_ALPHA = 40  # of 255: fainter pixels belong to no box


class Sprite(NamedTuple):
    """A thing at one size with a margin around it: ground × ``keep`` + ``paint`` is the picture with it."""

    keep: Float[np.ndarray, "h w 1"]  # the share of the ground that stays, with a soft shadow
    paint: Float[np.ndarray, "h w 3"]  # premultiplied
    cover: Float[np.ndarray, "height width"]  # without the margin
    margin: int


def nouns_of(style: str) -> tuple[str, ...]:
    """The nouns that this style has."""
    return tuple(STAMPS) if style in PHOTOGRAPHS else NOUNS


@cache
def _codes() -> dict[str, str]:
    """The code points of each noun's emoji."""
    by_name = {named["name"]: code for code, named in read_json("emoji", "names.json.gz")["en"].items()}
    return {noun: by_name[CLDR.get(noun, noun)] for noun in NOUNS}


def noun_names(language: str) -> dict[str, str]:
    """What each noun is called in a language, by CLDR. ``KeyError`` for a language that the archive does not have."""
    named = read_json("emoji", "names.json.gz")[language]
    return {noun: named[code]["name"] for noun, code in _codes().items() if code in named}


def variants(noun: str, style: str) -> int:
    """How many pictures a style has of a noun."""
    return len(STAMPS[noun]) if style in PHOTOGRAPHS else 1


@lru_cache(maxsize=4096)
def cutout(noun: str, style: str, colour: str | None = None, variant: int = 0) -> Image.Image:
    """A thing as RGBA, cropped to what is not transparent, dyed in one of ``COLOURS`` if that is asked for."""
    if style in PHOTOGRAPHS:
        archive, name = style, STAMPS[noun][variant]
    else:
        archive, name = ("emoji-openmoji" if style in OPENMOJI else "emoji"), f"{style}/{_codes()[noun]}"
    with reading(archive, "pictures.zip") as path:
        image = Image.open(BytesIO(_zip(path.name, archive).read(f"{name}.webp"))).convert("RGBA")
    image = image.crop(image.getchannel("A").point(lambda alpha: 255 * (alpha > BOX_ALPHA)).getbbox())
    return dye(image, colour) if colour else image


@cache
def _zip(file: str, archive: str) -> ZipFile:
    return ZipFile(BytesIO((ARCHIVES / archive / file).read_bytes()))


def dye(image: Image.Image, colour: str) -> Image.Image:
    """Move the main hue of a cut-out, and hues near it, to a colour; what is grey, black or white stays."""
    rgba = np.asarray(image).copy()
    hue, saturation, value = np.moveaxis(
        np.asarray(Image.fromarray(rgba[..., :3]).convert("HSV")).astype(float), -1, 0
    )  # 0 … 255 each
    vivid = (saturation > 70) & (value > 60) & (rgba[..., 3] > 128)
    main = np.bincount((hue[vivid] // 8).astype(int), saturation[vivid], 32).argmax() * 8 + 4
    away = (hue - main + 128) % 256 - 128  # on the circle of hues
    lift, fade = {"yellow": (0.45, 1), "pink": (0.4, 0.6)}.get(colour, (1, 1))  # else dark yellow is brown
    new = (
        (HUES[colour] / 360 * 256 + away * 0.4) % 256,
        255 * (saturation / 255) ** 0.6 * fade,
        255 - (255 - value) * lift,
    )
    near = (abs(away) < 30) & (saturation > 40)
    hsv = np.moveaxis(np.where(near, new, (hue, saturation, value)), 0, -1).astype(np.uint8)
    rgba[..., :3] = np.asarray(Image.fromarray(np.ascontiguousarray(hsv), "HSV").convert("RGB"))
    return Image.fromarray(rgba)


@lru_cache(maxsize=20_000)
def sprite(noun: str, style: str, colour: str | None, variant: int, side: int) -> Sprite:
    """A cut-out whose longer edge has ``side`` pixels."""
    image = cutout(noun, style, colour, variant)
    width, height = (max(4, round(edge * side / max(image.size))) for edge in image.size)
    margin = max(3, side // 5)
    rgba = np.zeros((height + 2 * margin, width + 2 * margin, 4), np.float32)
    small = image.convert("RGBa").resize((width, height), Image.Resampling.BICUBIC)
    rgba[margin:-margin, margin:-margin] = np.asarray(small, np.float32) / 255
    cover = rgba[..., 3]
    shadow = Image.fromarray((np.roll(cover, max(1, side // 16), 0) * 255).astype(np.uint8))
    shadow = np.asarray(shadow.filter(ImageFilter.GaussianBlur(side / 18)), np.float32)[..., None] / 255 * 0.28
    return Sprite((1 - cover[..., None]) * (1 - shadow), rgba[..., :3], cover[margin:-margin, margin:-margin], margin)


@lru_cache(maxsize=8)
def papers(size: int) -> Float[np.ndarray, "papers size size 3"]:
    """Pastel grounds: a soft gradient, with fine grain where pictures are small."""
    rng, (y, x), grounds = np.random.default_rng(0), np.mgrid[:size, :size] / size - 0.5, []
    for _ in range(PAPERS):
        base = colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.03, 0.12), rng.uniform(0.95, 0.995))
        angle, grain = rng.random() * 2 * np.pi, rng.normal(0, 0.004 * (size <= 128), (size, size))
        grain += np.roll(grain, 1, 0) + np.roll(grain, 1, 1)
        shade = 0.05 * (np.cos(angle) * x + np.sin(angle) * y) + grain
        grounds.append(np.clip(base + shade[..., None], 0, 1))
    return np.stack(grounds).astype(np.float32)


def tinted_papers(size: int, tints: Sequence[str]) -> Float[np.ndarray, "papers size size 3"]:
    """Three papers in each of these colours, of ``COLOURS``, pale."""
    rgb = [np.float32(colorsys.hsv_to_rgb(HUES[tint] / 360, TINT, 1)) for tint in tints]
    return np.concatenate([papers(size)[:3] * each for each in rgb])


class SingleThing(NamedTuple):
    """One thing by itself: a drawing or a photograph, and what it shows."""

    image: Float[Tensor, "3 size size"]
    noun: str

    @property
    def name(self) -> str:
        """What the emoji of this thing is called."""
        return CLDR.get(self.noun, self.noun)


def single_things(style: str, *, size: int = 64) -> list[SingleThing]:
    """All pictures that a style has of the nouns that are photographed too, each alone on the emoji's light grey."""
    found = []
    for noun in STAMPS:
        for variant in range(variants(noun, style)):
            thing = cutout(noun, style, variant=variant).copy()
            thing.thumbnail((size, size))  # which never enlarges
            ground = Image.new("RGB", (size, size), (GROUND,) * 3)
            ground.paste(thing, tuple((size - side) // 2 for side in thing.size), thing)
            found.append(SingleThing(torch.from_numpy(np.array(ground)).permute(2, 0, 1) / 255, noun))
    return found
