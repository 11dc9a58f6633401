"""COCO-style captions: COCO, and Flickr8k and Flickr30k in Karpathy's JSON once converted."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from jaxtyping import Float
from torch import Tensor

from mmlearn.data.boxes import Box, BoxedImageText
from mmlearn.data.readers.captions import column, parsed
from mmlearn.data.readers.files import EmptySplit, Files, Part, inside
from mmlearn.data.readers.images import ImageText, read_image
from mmlearn.suggestions import suggest

DIGITS = "0123456789"  # of the year in a name


class Instances(NamedTuple):
    """The categories of a COCO file in its order, and the boxes and size (width, height) of each picture by its id."""

    categories: tuple[str, ...]
    boxes: dict[int, list[Box]]
    sizes: dict[int, tuple[float, float]]


class CocoCaptions(Files):
    """One sample a caption: ``images`` is the folder of pictures, ``annotations`` the ``captions_*.json`` beside it.

    ``numbers[i]`` is the number of the picture of sample i, because a picture has about five captions. ``instances`` is
    the ``instances_*.json`` of the same pictures: with it, samples know what stands where. With ``skip_bad`` all
    pictures are read at once, and what cannot be read is left out; ``as_before`` is what :meth:`kept` said. Raises
    ``FileNotFoundError`` or ``ValueError`` for what is missing or wrong.
    """

    holds = "pictures"

    def __init__(
        self,
        images: str | Path,
        annotations: str | Path,
        *,
        instances: str | Path | None = None,
        size: int = 64,
        **options: Any,
    ):
        super().__init__(**options)
        self.images, self.size = Path(images), size
        if not self.images.is_dir():
            raise FileNotFoundError(f"There is no folder {images}.")
        for path in filter(None, (annotations, instances)):
            if not Path(path).is_file():  # a pipe may never say anything
                raise FileNotFoundError(f"There is no file {path}.")
        names, captions = self._read(Path(annotations))
        bad = self.unread(((name,) for number, name in names.items() if number in captions), self._image)
        self.ids = sorted(names, key=lambda one: (isinstance(one, str), one))  # of the pictures, by their numbers
        self.samples = [
            (number, names[image], caption)
            for number, image in enumerate(self.ids)
            for caption in captions.get(image, [])
            if (names[image],) not in bad
        ]
        if not self.samples:
            raise ValueError(f"{annotations} holds no caption{' of a image that can be read' if bad else ''}.")
        self.numbers = [number for number, _, _ in self.samples]
        self.instances = read_instances(Path(instances)) if instances else None

    def _read(self, path: Path) -> tuple[dict[int | str, str], dict[int | str, list[str]]]:
        """The names of pictures, and their captions, by the pictures' ids."""
        try:
            content = parsed(path.read_bytes().decode("utf-8-sig"), str(path))
            images, annotations = list(content["images"]), list(content["annotations"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is no COCO captions file ({type(error).__name__}: {error}).") from error
        names = dict(self._rows(path, images, "image", "id", "file_name"))
        captions: dict[int | str, list[str]] = {}
        for image, caption in self._rows(path, annotations, "annotation", "image_id", "caption"):
            captions.setdefault(image, []).append(caption)
        return names, captions

    def _rows(self, path: Path, rows: list, kind: str, number: str, text: str) -> Iterator[tuple[int | str, str]]:
        """Of each row its ``number`` and its ``text``; rows that are wrong are left out, where that is asked for."""
        for position, row in enumerate(rows, 1):
            where = f"{path}, {kind} {position}"
            try:
                if not isinstance(row, dict) or type(row.get(number)) not in (int, str):
                    raise ValueError(f"{where}: expected an object with a number as {number}, got {row!r:.60}.")
                value = column(row, (text,), where)
                if kind == "image":
                    inside(self.images, value, where)
            except ValueError as error:
                self.left_out_row(error)
            else:
                yield row[number], value

    def _image(self, name: str) -> Float[Tensor, "3 size size"]:
        return read_image(self.images / name, self.size)

    def keep_images(self, wanted: Callable[[int], bool]) -> None:
        """Leave out the captions of all pictures but those whose id is ``wanted``. ``ValueError`` if none is."""
        self.samples = [sample for sample in self.samples if wanted(self.ids[sample[0]])]
        self.numbers = [number for number, _, _ in self.samples]
        if not self.samples:
            raise EmptySplit(f"{self.images} has too few pictures to have some for each split.")

    def told(self) -> list[Any]:
        return [*self.samples, self.instances]

    def parts(self) -> list[Part]:
        names = dict.fromkeys(name for _, name, _ in self.samples)
        return [Part(self.images / name, partial(self._image, name)) for name in names]

    def caption(self, index: int) -> str:
        return self.samples[index][2]

    def sample(self, index: int) -> ImageText:
        return self.with_image(index, self._image(self.samples[index][1]))

    def with_image(self, index: int, image: Float[Tensor, "3 size size"]) -> ImageText:
        """A caption with this picture, and with its boxes where they are known."""
        number, name, caption = self.samples[index]
        image_id = self.ids[number]
        if self.instances is None or image_id not in self.instances.sizes:
            return ImageText(image, caption, name)
        categories, boxes, sizes = self.instances
        return BoxedImageText(image, caption, name, sizes[image_id], boxes.get(image_id, []), categories)


class CocoFolder(CocoCaptions):
    """COCO as it is unpacked: ``annotations/captions_train2017.json`` beside its pictures in ``train2017``.

    Splits are train and val, because the captions of test are not public. Of several years it takes the last whose
    pictures are there, in the folder or in its ``images``. With ``boxes`` it reads ``instances_train2017.json`` too, if
    that lies beside the captions. Raises ``FileNotFoundError`` and ``ValueError`` for what is missing.
    """

    evaluated_on = "val"

    def __init__(self, folder: str | Path, split: str = "train", *, boxes: bool = False, **options: Any):
        names = {path: path.stem.removeprefix("captions_") for path in coco_captions(folder)}
        here = {path: name for path, name in names.items() if name.rstrip(DIGITS) == split}
        if not here:
            splits = sorted({name.rstrip(DIGITS) for name in names.values()})
            raise EmptySplit(f"{folder} has no captions of {split!r}; {suggest(split, splits)}.")
        found = [
            (path, images)
            for path, name in here.items()
            for images in (Path(folder) / name, Path(folder) / "images" / name)
            if images.is_dir()
        ]
        if not found:
            raise FileNotFoundError(f"There is no folder {Path(folder) / [*here.values()][-1]} of pictures.")
        annotations, images = found[-1]
        instances = annotations.with_name(f"instances_{here[annotations]}.json")
        super().__init__(images, annotations, instances=instances if boxes and instances.is_file() else None, **options)


def coco_captions(folder: str | Path) -> list[Path]:
    """COCO's files of captions in a folder; none where it is no COCO."""
    return sorted((Path(folder) / "annotations").glob("captions_*.json"))


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
