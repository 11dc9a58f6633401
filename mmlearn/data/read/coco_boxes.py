"""What COCO's boxes say of a picture: which words of a caption name what is in them.

A word names a category if it is the category's name, one of its :data:`SYNONYMS`, or the plural of either. The longest
name wins, so that "hot dog" is no dog. It is linked where the picture has boxes of this category, so that a word whose
object nobody annotated is left out.
"""

import json
import re
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mmlearn.data.made.scenes import Link
from mmlearn.data.read.pictures import ImageText

# What captions call the categories of COCO, besides their names.
SYNONYMS = {
    "person": "man, woman, boy, girl, child, kid, baby, guy, lady, toddler, player, skier, surfer, snowboarder, "
    "skateboarder, rider, men, women, people, children",
    "bicycle": "bike",
    "car": "taxi, van, suv",
    "motorcycle": "motorbike, moped",
    "airplane": "plane, aeroplane, jet, aircraft",
    "boat": "ship, sailboat, canoe, kayak",
    "traffic light": "stoplight, traffic signal",
    "fire hydrant": "hydrant",
    "bird": "duck, seagull, pigeon, parrot, owl, goose, geese",
    "cat": "kitten, kitty",
    "dog": "puppy",
    "horse": "pony",
    "sheep": "lamb",
    "cow": "bull, calf, cattle, calves",
    "bear": "polar bear",
    "handbag": "purse",
    "tie": "necktie",
    "suitcase": "luggage",
    "skis": "ski",
    "sports ball": "ball, baseball, soccer ball, tennis ball, football, basketball",
    "baseball bat": "bat",
    "baseball glove": "mitt, catcher's mitt",
    "tennis racket": "racket, racquet, tennis racquet",
    "cup": "mug",
    "sandwich": "burger, hamburger",
    "hot dog": "hotdog",
    "donut": "doughnut",
    "couch": "sofa",
    "potted plant": "plant, houseplant",
    "dining table": "table, desk",
    "tv": "television, monitor",
    "laptop": "laptop computer",
    "mouse": "computer mouse, mice",
    "remote": "remote control, controller",
    "cell phone": "phone, cellphone, smartphone",
    "microwave": "microwave oven",
    "oven": "stove",
    "refrigerator": "fridge",
    "knife": "knives",
    "teddy bear": "teddy, stuffed bear",
    "hair drier": "hair dryer, hairdryer, blow dryer",
}


class Box(NamedTuple):
    """An annotated thing: its category, its box (left, top, width, height) in the picture, and whether it is many."""

    category: str
    box: tuple[float, float, float, float]
    crowd: bool


class Instances(NamedTuple):
    """The categories of a COCO file in its order, and the boxes and size (width, height) of each picture by its id."""

    categories: tuple[str, ...]
    boxes: dict[int, list[Box]]
    sizes: dict[int, tuple[float, float]]


def read_instances(path: Path) -> Instances:
    """What an ``instances_*.json`` of COCO says. Raises ``ValueError`` for a file that is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        names = {category["id"]: category["name"].lower().replace("_", " ") for category in content["categories"]}
        boxes: dict[int, list[Box]] = {}
        for item in content["annotations"]:
            left, top, width, height = map(float, item["bbox"])
            box = Box(names[item["category_id"]], (left, top, width, height), bool(item.get("iscrowd")))
            boxes.setdefault(item["image_id"], []).append(box)
        sizes = {image["id"]: (float(image["width"]), float(image["height"])) for image in content["images"]}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} is no COCO instances file ({type(error).__name__}: {error}).") from error
    return Instances(tuple(names.values()), boxes, sizes)


def plural(name: str) -> str:
    """Several of what a name says, by English spelling; irregular plurals are among the SYNONYMS."""
    if re.search(r"(s|x|z|ch|sh)$", name):
        return f"{name}es"
    return f"{name[:-1]}ies" if re.search(r"[^aeiou]y$", name) else f"{name}s"


@lru_cache
def phrases(categories: tuple[str, ...]) -> tuple[re.Pattern, dict[str, str]]:
    """A pattern that finds the longest names of categories in a text, and which category each name is of."""
    names: dict[str, str] = {}
    for category in categories:
        for name in (category, *filter(None, SYNONYMS.get(category, "").split(", "))):
            names |= {name: category, plural(name): category}
    names |= {category: category for category in categories}  # whatever is a synonym of another
    longest = sorted(names, key=len, reverse=True)
    either = "|".join(re.escape(name).replace(r"\ ", r"\s+") for name in longest)
    return re.compile(rf"(?<![\w-])(?:{either})(?![\w-])", re.IGNORECASE), names


def cropped(box: Float[Tensor, "n 4"], picture: tuple[float, float], size: int) -> Float[Tensor, "n 4"]:
    """Boxes as (left, top, width, height) in a ``picture`` of this width and height, in its middle square at ``size``.

    They become left, top, right and bottom, and end at the square's edge.
    """
    width, height = picture
    side = min(width, height)
    corner = box[:, :2] - torch.tensor([(width - side) / 2, (height - side) / 2])
    return (torch.cat([corner, corner + box[:, 2:]], 1) * (size / side)).clamp(0, size)


@dataclass(frozen=True)
class BoxedImageText(ImageText):
    """A picture with its caption, and which words of it name what is in which boxes.

    ``links[k].object`` numbers the ``categories`` that can be seen, and ``masks`` has for each the union of its boxes:
    with several of a category, any of them is right. ``boxes`` are single things, the largest first; a crowd's box
    counts in the masks only, and what the crop to a square leaves less than a pixel of is left out.
    """

    picture: tuple[float, float] = field(repr=False)  # width and height before the crop
    annotated: list[Box] = field(repr=False)
    known: tuple[str, ...] = field(repr=False)  # all categories

    @cached_property
    def _seen(self) -> tuple[list[Box], Float[Tensor, "n 4"]]:
        """What the crop shows, and where, the largest first."""
        boxes = cropped(torch.tensor([each.box for each in self.annotated]).view(-1, 4), self.picture, self._size)
        sides = boxes[:, 2:] - boxes[:, :2]
        order = [i for i in sides.prod(1).argsort(descending=True, stable=True).tolist() if sides[i].min() >= 1]
        return [self.annotated[i] for i in order], boxes[order]

    @property
    def _size(self) -> int:
        return self.image.shape[-1]

    @cached_property
    def categories(self) -> tuple[str, ...]:
        """The categories of what can be seen."""
        return tuple(dict.fromkeys(each.category for each in self._seen[0]))

    @cached_property
    def boxes(self) -> Float[Tensor, "boxes 4"]:
        """Left, top, right and bottom edge of each single thing, in pixels."""
        seen, boxes = self._seen
        return boxes[[i for i, each in enumerate(seen) if not each.crowd]]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The category of each of the ``boxes``."""
        return tuple(each.category for each in self._seen[0] if not each.crowd)

    @cached_property
    def masks(self) -> Bool[Tensor, "categories size size"]:
        """Which pixels have their middle in a box of each category."""
        masks = torch.zeros(len(self.categories), self._size, self._size, dtype=torch.bool)
        middles = torch.arange(self._size) + 0.5
        for each, (left, top, right, bottom) in zip(*self._seen):
            rows, columns = (middles >= top) & (middles <= bottom), (middles >= left) & (middles <= right)
            masks[self.categories.index(each.category)] |= rows[:, None] & columns
        return masks

    @cached_property
    def links(self) -> tuple[Link, ...]:
        """Which characters of the caption name which of the ``categories``."""
        pattern, names = phrases(self.known)
        found = [(match, names.get(" ".join(match[0].lower().split()))) for match in pattern.finditer(self.caption)]
        return tuple(
            Link(match.start(), match.end(), self.categories.index(category))
            for match, category in found
            if category in self.categories
        )

    def boxes_of(self, link: Link) -> list[int]:
        """Which of the ``boxes`` a link means: all of its category. None where there is only a crowd."""
        return [i for i, name in enumerate(self.names) if name == self.categories[link.object]]
