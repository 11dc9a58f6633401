"""Orders: one picture, many tasks, and a text that says which. Each has several wordings.

A model that learned some wordings can be asked in others: what it knows is those words, or the task.
Source: Wang et al. 2022 (OFA), section 3.3 and official code, for the first wording of each; Cho et al. 2021 (VL-T5),
table 1 and official code, for the prefixes.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mmlearn.data.hashing import stream

WORDINGS: dict[str, tuple[str, ...]] = {  # task → wordings; those behind the first two are kept for tests
    "caption": ("what does the image describe?", "describe the image.", "what is in the image?", "say what you see."),
    "vqa": ("{question}", "answer: {question}", "{question} say it in one word.", "look closely. {question}"),
    "grounding": (
        'which region does the text "{phrase}" describe?',
        'where is "{phrase}"?',
        'find the region of "{phrase}".',
        'point at "{phrase}".',
    ),
    "naming": (
        "what does the region describe? region:",
        "name the object in the region:",
        "what is in this region:",
        "which object is here:",
    ),
    "infilling": (
        "what is the image in the middle part?",
        "fill in the middle of the image.",
        "the middle of the image is missing. what is it?",
        "paint the middle part.",
    ),
}
PREFIXES = {  # task → what VL-T5 puts before a text
    "caption": "caption:",
    "vqa": "vqa: {question}",
    "grounding": "visual grounding: {phrase}",
    "naming": "caption region:",
}
LEARNED = 2
WITH_BOXES = ("grounding", "naming")


def wording(task: str, number: int) -> str:
    """How a task is asked. ``ValueError`` for a task or a wording that there is not."""
    if task not in WORDINGS or not 0 <= number < len(WORDINGS[task]):
        raise ValueError(f"There is no wording {number} of {task!r}; known are {', '.join(WORDINGS)}, with four each.")
    return WORDINGS[task][number]


class Ordered:
    """A sample with one task: the ``prompt`` says what to do, ``response`` is what is right to say, ``caption`` both.

    Tasks about a box have it as ``box``, left, top, right and bottom as shares of the picture, with its ``number``
    among all boxes: it is of an object that colour and shape tell from all others. What is answered by a box or by
    codes has an empty response. Raises ``ValueError`` for an unknown task, and for a sample that lacks what it needs.
    """

    def __init__(self, sample: Any, task: str, form: str = ""):
        if task not in WORDINGS:
            raise ValueError(f"There is no task {task!r}; known are {', '.join(WORDINGS)}.")
        self.sample, self.task = sample, task
        if not hasattr(sample, "caption"):
            return  # fields tell what is lacking
        question = getattr(sample, "question", None)
        if task == "vqa" and question is None:
            raise ValueError("vqa learns from questions with answers: use --data scenes, or leave vqa out.")
        if task in WITH_BOXES and not hasattr(sample, "objects"):
            raise ValueError(f"{task} learns from objects with boxes: use --data scenes, or leave {task} out.")
        bits = int(stream("order", task, sample.caption, question.text if question else "") >> 1)
        phrase = ""
        if task in WITH_BOXES:
            self.number, phrase = _object(sample, bits // LEARNED)
        fields = dict(question=question.text if question else "", phrase=phrase)
        self.prompt = (form or wording(task, bits % LEARNED)).format(**fields)
        answer = question.answer if question else ""
        self.response = {"caption": sample.caption, "vqa": answer, "naming": phrase}.get(task, "")
        self.caption = f"{self.prompt} {self.response}".strip()

    @property
    def box(self) -> Tensor:
        """Where the object is."""
        height, width = self.sample.image.shape[-2:]
        return (self.sample.boxes[self.number] / torch.tensor([width, height, width, height])).clamp(0, 1)

    def __getattr__(self, name: str) -> Any:
        if name == "sample":  # not there yet while it is unpickled
            raise AttributeError(name)
        return getattr(self.sample, name)


def _object(sample: Any, bits: int) -> tuple[int, str]:
    """The number of an object that colour and shape tell from all others, and what it is called."""
    names = [f"{item.colour} {item.shape}" for item in sample.objects]
    single = [i for i, name in enumerate(names) if names.count(name) == 1]
    number = single[bits % len(single)]
    return number, names[number]


@dataclass(frozen=True)
class Order:
    """From a sample to the same with a ``task``, in a ``form`` of one's own, or in a wording that the sample decides.

    Raises ``ValueError`` as :class:`Ordered` does.
    """

    task: str
    form: str = ""

    def __call__(self, sample: Any) -> Ordered:
        return Ordered(sample, self.task, self.form)
