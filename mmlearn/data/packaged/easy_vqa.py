"""easy-VQA: a published benchmark of questions about one shape, from the package ``easy-vqa`` that its author ships.

4,000 training pictures with 38,575 questions and 1,000 test pictures with 9,673: what colour or shape it is, and
whether it is there or not there; 13 answers. Three of four questions are yes or no, and the most frequent answer to
each question text gives 0.670 of the test questions without a look. The author reports 0.995 for a larger
convolutional network trained on twice as many generated pictures. A small ViLT of mmlearn (0.24 M parameters), trained
from nothing for 6,000 steps, gives 0.986 to 0.992 with three seeds: ``tests/benchmarks/results/easy_vqa.json``.

Source: Victor Zhou and Phillip Wang 2019, https://victorzhou.com/blog/easy-vqa/ and
https://github.com/vzhou842/easy-VQA, version 1.0, MIT licence; the figure is from the README of
https://github.com/vzhou842/easy-VQA-keras.
"""

import json
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor
from torch.utils.data import Dataset

from mmlearn.data.readers.images import read_image
from mmlearn.data.synthetic.questions import Question
from mmlearn.suggestions import suggest

SPLITS = ("train", "test")


@dataclass(frozen=True)
class EasyVQASample:
    """A picture, float32 (3, size, size) in [0, 1], a question about it, and the number of its answer."""

    image: Float[Tensor, "3 size size"]
    question: Question
    label: int
    source: str

    @property
    def images(self) -> "tuple[EasyVQASample]":
        return (self,)

    @property
    def text(self) -> str:
        return self.question.text

    @property
    def kind(self) -> str:
        return self.question.kind

    @property
    def caption(self) -> str:
        return f"{self.question.text} {self.question.answer}"

    @property
    def task(self) -> "type[EasyVQA]":
        return EasyVQA


class EasyVQA(Dataset):
    """The questions of the published split, in their order.

    ``labels`` are the answers in the published order. Kinds are ``colour``, ``shape``, ``existence`` ("is there a red
    shape?") and ``absence`` ("is there not …?"). The benchmark has no validation split: hold training pictures back.

    Raises ``ValueError`` for an unknown split, where the package is not installed, or where it is not whole.
    """

    name, splits, licence, apart = "easy-vqa", SPLITS, "MIT", True
    disk = "22 MB, installed apart, in the clone of mmlearn: pip install -e '.[vqa]'"
    shows = "5,000 pictures of one shape with 48,248 questions and their answers, of which the captions are made"
    kinds: ClassVar[tuple[str, ...]] = ("colour", "shape", "existence", "absence")
    target: ClassVar[str] = "answer"

    def __init__(self, split: str = "train", *, size: int = 64):
        if split not in SPLITS:
            raise ValueError(f"easy-vqa has no split {split!r}; {suggest(split, SPLITS)}.")
        package = find_spec("easy_vqa")
        if package is None:
            raise ValueError(
                "The data set easy-vqa comes with its author's package; "
                "in the clone of mmlearn: pip install -e '.[vqa]'."
            )
        folder = Path(next(iter(package.submodule_search_locations))) / "data"
        self.split, self.size, self.folder = split, size, folder / split / "images"
        try:
            self.labels = tuple((folder / "answers.txt").read_text(encoding="utf-8").split())
            self._asked = [
                (str(text), str(answer), self.labels.index(answer), int(image))
                for text, answer, image in json.loads((folder / split / "questions.json").read_bytes())
            ]
        except (OSError, ValueError, TypeError) as error:
            raise ValueError(
                f"{folder} is no whole easy-vqa ({error}): pip install --force-reinstall easy-vqa."
            ) from error

    def __len__(self) -> int:
        return len(self._asked)

    def __getitem__(self, index: int) -> EasyVQASample:
        text, answer, label, image = self._asked[index]
        path = self.folder / f"{image}.png"
        question = Question(_kind(text, answer), text, answer)
        return EasyVQASample(read_image(path, self.size), question, label, f"{self.split}/{image}.png")

    def caption(self, index: int) -> str:
        """A question with its answer, without its picture."""
        text, answer, *_ = self._asked[index]
        return f"{text} {answer}"

    def texts(self) -> list[str]:
        """Every question, to train a tokenizer on."""
        return [text for text, *_ in self._asked]


def _kind(text: str, answer: str) -> str:
    if answer in ("yes", "no"):
        return "absence" if {"no", "not"} & set(text.split()) else "existence"
    return "colour" if "color" in text else "shape"
