"""COCO-style captions (COCO, Flickr8k and Flickr30k in Karpathy's JSON once converted), read by torchvision."""

import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

from jaxtyping import Float
from torch import Tensor
from torch.utils.data import Dataset

from mmlearn.data.hashing import fingerprint
from mmlearn.data.read.coco_boxes import BoxedImageText, Instances, read_instances
from mmlearn.data.read.files import inside
from mmlearn.data.read.pictures import ImageText, read_picture
from mmlearn.names import choices

DIGITS = "0123456789"  # of the year in a name


class CocoCaptions(Dataset):
    """One sample a caption: ``images`` is the folder of pictures, ``annotations`` the ``captions_*.json`` beside it.

    ``numbers[i]`` is the number of the picture of sample i, because a picture has about five captions. ``instances`` is
    the ``instances_*.json`` of the same pictures: with it, samples know what stands where. Needs ``pycocotools`` (in
    ``mmlearn[scale]``). Raises ``FileNotFoundError`` or ``ValueError`` for what is missing.
    """

    def __init__(
        self, images: str | Path, annotations: str | Path, *, instances: str | Path | None = None, size: int = 64
    ):
        self.images, self.size = Path(images), size
        files = [(self.images, "folder"), *((Path(path), "file") for path in (annotations, instances) if path)]
        for path, kind in files:
            if not path.exists():
                raise FileNotFoundError(f"There is no {kind} {path}.")
        try:
            from torchvision.datasets import CocoCaptions as Published

            with redirect_stdout(sys.stderr):  # pycocotools tells its progress
                published = Published(str(images), str(annotations))
            self.samples = [
                (number, str(published.coco.imgs[picture]["file_name"]), caption["caption"].strip())
                for number, picture in enumerate(published.ids)
                for caption in published.coco.loadAnns(published.coco.getAnnIds(picture))
            ]
        except ModuleNotFoundError as error:
            raise ValueError("COCO captions need pycocotools: pip install 'mmlearn[scale]'.") from error
        except (ValueError, KeyError, AssertionError, TypeError, AttributeError) as error:
            raise ValueError(f"{annotations} is no COCO captions file ({type(error).__name__}: {error}).") from error
        if not self.samples:
            raise ValueError(f"{annotations} holds no caption.")
        for name in {name for _, name, _ in self.samples}:
            inside(self.images, name, str(annotations))
        self.numbers = [number for number, _, _ in self.samples]
        self.ids: list[int] = published.ids  # of the pictures, by their numbers
        self.instances: Instances | None = read_instances(Path(instances)) if instances else None

    def keep_pictures(self, wanted: Callable[[int], bool]) -> None:
        """Leave out the captions of all pictures but those whose id is ``wanted``. ``ValueError`` if none is."""
        self.samples = [sample for sample in self.samples if wanted(self.ids[sample[0]])]
        self.numbers = [number for number, _, _ in self.samples]
        if not self.samples:
            raise ValueError(f"{self.images} has too few pictures to have some for each split.")

    def __len__(self) -> int:
        return len(self.samples)

    def fingerprint(self) -> str:
        """Of the captions, their order, the boxes, and what the pictures hold."""
        files = dict.fromkeys(name for _, name, _ in self.samples)
        return fingerprint([*self.samples, self.instances], [(self.images / name, 0, -1) for name in files])

    def caption(self, index: int) -> str:
        """A caption without its picture."""
        return self.samples[index][2]

    def __getitem__(self, index: int) -> ImageText:
        return self.told(index, read_picture(self.images / self.samples[index][1], self.size))

    def told(self, index: int, image: Float[Tensor, "3 size size"]) -> ImageText:
        """A caption with this picture, and with its boxes where they are known."""
        number, name, caption = self.samples[index]
        picture = self.ids[number]
        if self.instances is None or picture not in self.instances.sizes:
            return ImageText(image, caption, name)
        categories, boxes, sizes = self.instances
        return BoxedImageText(image, caption, name, sizes[picture], boxes.get(picture, []), categories)


class CocoFolder(CocoCaptions):
    """COCO as it is unpacked: ``annotations/captions_train2017.json`` beside its pictures in ``train2017``.

    Splits are train and val, because the captions of test are not public. Of several years it takes the last whose
    pictures are there, in the folder or in its ``images``. With ``boxes`` it reads ``instances_train2017.json`` too, if
    that lies beside the captions. Raises ``FileNotFoundError`` and ``ValueError`` for what is missing.
    """

    evaluated_on = "val"

    def __init__(self, folder: str | Path, split: str = "train", *, size: int = 64, boxes: bool = False):
        files = {path: path.stem.removeprefix("captions_") for path in _annotations(folder)}
        here = {path: name for path, name in files.items() if name.rstrip(DIGITS) == split}
        if not here:
            splits = sorted({name.rstrip(DIGITS) for name in files.values()})
            raise ValueError(f"{folder} has no captions of {split!r}; {choices(split, splits)}.")
        places = [
            (path, images)
            for path, name in here.items()
            for images in (Path(folder) / name, Path(folder) / "images" / name)
            if images.is_dir()
        ]
        if not places:
            raise FileNotFoundError(f"There is no folder {Path(folder) / [*here.values()][-1]} of pictures.")
        annotations, images = places[-1]
        instances = annotations.with_name(f"instances_{here[annotations]}.json")
        super().__init__(images, annotations, instances=instances if boxes and instances.is_file() else None, size=size)


def coco_folder(folder: str | Path) -> bool:
    """Whether COCO's captions lie in this folder."""
    return bool(_annotations(folder))


def _annotations(folder: str | Path) -> list[Path]:
    return sorted((Path(folder) / "annotations").glob("captions_*.json"))
