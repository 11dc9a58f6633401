"""COCO-style captions (COCO, Flickr8k and Flickr30k in Karpathy's JSON once converted), read by torchvision."""

import sys
from contextlib import redirect_stdout
from pathlib import Path

from torch.utils.data import Dataset

from mmlearn.data.pictures import ImageText, read_picture


class CocoCaptions(Dataset):
    """One sample a caption: ``images`` is the folder of pictures, ``annotations`` the ``captions_*.json`` beside it.

    ``numbers[i]`` is the number of the picture of sample i, for pictures have about five captions each. Needs
    ``pycocotools`` (in ``mmlearn[scale]``). Raises ``FileNotFoundError`` or ``ValueError`` for what is missing.
    """

    def __init__(self, images: str | Path, annotations: str | Path, *, size: int = 64):
        self.images, self.size = Path(images), size
        for path, kind in ((self.images, "folder"), (Path(annotations), "file")):
            if not path.exists():
                raise FileNotFoundError(f"There is no {kind} {path}.")
        try:
            from torchvision.datasets import CocoCaptions as Published

            with redirect_stdout(sys.stderr):  # pycocotools tells its progress
                published = Published(str(images), str(annotations))
            self.samples = [
                (number, published.coco.imgs[picture]["file_name"], caption["caption"].strip())
                for number, picture in enumerate(published.ids)
                for caption in published.coco.loadAnns(published.coco.getAnnIds(picture))
            ]
        except ModuleNotFoundError as error:
            raise ValueError("COCO captions need pycocotools: pip install 'mmlearn[scale]'.") from error
        except (ValueError, KeyError, AssertionError, TypeError, AttributeError) as error:
            raise ValueError(f"{annotations} is no COCO captions file ({type(error).__name__}: {error}).") from error
        if not self.samples:
            raise ValueError(f"{annotations} holds no caption.")
        self.numbers = [number for number, _, _ in self.samples]

    def __len__(self) -> int:
        return len(self.samples)

    def caption(self, index: int) -> str:
        """A caption without its picture."""
        return self.samples[index][2]

    def __getitem__(self, index: int) -> ImageText:
        _, name, caption = self.samples[index]
        return ImageText(read_picture(self.images / name, self.size), caption, name)
