"""What boxes say of a picture: which words of a caption name what is in them, and regions as a detector gives them.

A word names a category if it is the category's name, one of its :data:`SYNONYMS`, or the plural of either. The longest
name wins, so that "hot dog" is no dog. It is linked where the picture has boxes of this category, so that a word whose
object nobody annotated is left out.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mmlearn.data.readers.images import ImageText
from mmlearn.data.synthetic.regions import crop
from mmlearn.data.synthetic.scenes import Link

SURE = 0.9  # the probability that a detector gives to the true class
# What captions call the categories of COCO, besides their names.
_SYNONYMS = """person: man, woman, boy, girl, child, kid, baby, guy, lady, toddler, player, skier, surfer, snowboarder,
skateboarder, rider, men, women, people, children; bicycle: bike; car: taxi, van, suv; motorcycle: motorbike, moped;
airplane: plane, aeroplane, jet, aircraft; boat: ship, sailboat, canoe, kayak; traffic light: stoplight, traffic
signal; fire hydrant: hydrant; bird: duck, seagull, pigeon, parrot, owl, goose, geese; cat: kitten, kitty; dog:
puppy; horse: pony; sheep: lamb; cow: bull, calf, cattle, calves; bear: polar bear; handbag: purse; tie: necktie;
suitcase: luggage; skis: ski; sports ball: ball, baseball, soccer ball, tennis ball, football, basketball; baseball
bat: bat; baseball glove: mitt, catcher's mitt; tennis racket: racket, racquet, tennis racquet; cup: mug; sandwich:
burger, hamburger; hot dog: hotdog; donut: doughnut; couch: sofa; potted plant: plant, houseplant; dining table:
table, desk; tv: television, monitor; laptop: laptop computer; mouse: computer mouse, mice; remote: remote control,
controller; cell phone: phone, cellphone, smartphone; microwave: microwave oven; oven: stove; refrigerator: fridge;
knife: knives; teddy bear: teddy, stuffed bear; hair drier: hair dryer, hairdryer, blow dryer"""
SYNONYMS = dict(entry.split(": ") for entry in _SYNONYMS.replace("\n", " ").split("; "))


class Box(NamedTuple):
    """An annotated thing: its category, its box (left, top, width, height) in the picture, and whether it is many."""

    category: str
    box: tuple[float, float, float, float]
    crowd: bool


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


def cells_in_boxes(boxes: Float[Tensor, "n 4"], size: int, side: int) -> Float[Tensor, "n cells"]:
    """1 where the middle of a cell, of a grid of ``side`` × ``side``, is in a box, and in none that comes later.

    Boxes are in pixels of a picture of ``size``, from the largest to the smallest.
    """
    middles = (torch.arange(side) + 0.5) * size / side
    left, top, right, bottom = boxes[:, :, None].unbind(1)
    inside = ((top <= middles) & (middles <= bottom))[:, :, None] & ((left <= middles) & (middles <= right))[:, None]
    cells = inside.flatten(1).float()
    return cells * (cells.flip(0).cumsum(0).flip(0) == 1)


def picture_size(sample: Any) -> tuple[int, int]:
    """Width and height in pixels. A sample that knows its ``size`` need not draw its picture for that."""
    if isinstance(size := getattr(sample, "size", None), int):
        return size, size
    height, width = sample.image.shape[-2:]
    return width, height


def cropped(box: Float[Tensor, "n 4"], image_size: tuple[float, float], size: int) -> Float[Tensor, "n 4"]:
    """Boxes as (left, top, width, height) in an image of this width and height, in its middle square at ``size``.

    They become left, top, right and bottom, and end at the square's edge.
    """
    width, height = image_size
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

    original_size: tuple[float, float] = field(repr=False)  # width and height before the crop
    annotated: list[Box] = field(repr=False)
    known: tuple[str, ...] = field(repr=False)  # all categories

    @cached_property
    def _seen(self) -> tuple[list[Box], Float[Tensor, "n 4"]]:
        """What the crop shows, and where, the largest first."""
        boxes = cropped(torch.tensor([each.box for each in self.annotated]).view(-1, 4), self.original_size, self._size)
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

    def mask_of(self, link: Link) -> Bool[Tensor, "size size"]:
        """Which pixels a link means: those of its category, a crowd's among them."""
        return self.masks[link.object]

    def grounded_position(self, link: Link) -> tuple[int, int]:
        """Where the category of a link is in the caption: the word that only the picture can tell."""
        return link.start, link.end

    def region_cells(self, side: int) -> Float[Tensor, "boxes cells"]:
        """See :func:`cells_in_boxes`."""
        return cells_in_boxes(self.boxes, self._size, side)


class BoxDetector:
    r"""The regions of each picture: its annotated boxes, the largest first, so that ``boxes_of`` counts regions.

    What it returns is what :class:`~mmlearn.data.synthetic.regions.SceneDetector` does, for any number of ``classes``:
    ``regions`` (b, p, 3 · width² + classes), whose first part are the pixels in each box, resized by RoIAlign to
    ``width`` × ``width``, moved by -0.4, about their mean, and divided by 4, and behind them the classes'
    probabilities; ``boxes`` (b, p, 4) as shares of the picture; ``region_mask`` (b, p); and ``region_classes``
    (b, p, classes), 0.9 for the annotated class and the rest for all others alike. At most ``most`` regions are taken.
    A picture without boxes is one region as a whole, of no class more than of another.

    Raises ``ValueError`` for samples without boxes, for none at all, or for fewer than two classes.
    Source: Anderson et al. 2018, "Bottom-Up and Top-Down Attention", section 3.1, for at most 36 regions; He et al.
    2017 (Mask R-CNN), section 3, for RoIAlign.
    """

    def __init__(self, classes: Sequence[str], width: int = 8, most: int = 36):
        if len(classes) < 2 or width < 1 or most < 1:
            raise ValueError(
                f"A detector has at least 2 classes, and 1 pixel and 1 region; got {len(classes)}, {width} and {most}."
            )
        self.classes, self.width, self.most = tuple(classes), width, most

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self.classes)} classes, width={self.width}, most={self.most})"

    @property
    def region_width(self) -> int:
        """The width of a region's features."""
        return 3 * self.width**2 + len(self.classes)

    def __call__(self, samples: Sequence[Any]) -> dict[str, Tensor]:
        if not samples:
            raise ValueError("A batch holds at least one picture, got none.")
        if stranger := next((sample for sample in samples if not hasattr(sample, "names")), None):
            raise ValueError(
                f"Regions are annotated boxes, and {type(stranger).__name__} has none; give COCO with its instances."
            )
        boxes, classes = zip(*map(self._of, samples))
        mask = pad_sequence([torch.ones(len(each), dtype=torch.bool) for each in boxes], batch_first=True)
        boxes, classes = (pad_sequence(each, batch_first=True) for each in (boxes, classes))
        return {
            "regions": self.features(samples, boxes, classes) * mask[..., None],
            "boxes": boxes,
            "region_mask": mask,
            "region_classes": classes,
        }

    def features(self, samples: Sequence[Any], boxes: Tensor, classes: Tensor) -> Tensor:
        """The pixels in each box, and behind them the classes' probabilities, (b, p, region_width)."""
        image = torch.stack([sample.image for sample in samples])
        largest = image.shape[-1] / 4  # of larger boxes some pixels are passed over
        pixels = (crop(image, boxes, self.width, largest).flatten(2) - 0.4) / 4
        return torch.cat([pixels, classes], dim=-1)

    def tags(self, samples: Sequence[Any]) -> list[list[str]]:
        """The name of each region's class; none where a picture has no box."""
        return [list(sample.names[: self.most]) for sample in samples]

    def _of(self, sample: Any) -> tuple[Tensor, Tensor]:
        """The boxes (p, 4) as shares of the picture, and the probabilities of their classes (p, classes)."""
        count = len(self.classes)
        if not sample.names:
            return torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.full((1, count), 1 / count)
        number = torch.tensor([self.classes.index(name) for name in sample.names[: self.most]])
        rest = (1 - SURE) / (count - 1)
        return sample.boxes[: self.most] / picture_size(sample)[0], F.one_hot(number, count) * (SURE - rest) + rest
