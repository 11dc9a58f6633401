"""Instructions: one picture, many tasks, and a text that says which, in one of several wordings.

A model that learned some wordings can be asked in others: what it knows is those words, or to do as it is told.
Source: Wang et al. 2022 (OFA), section 3.3 and official code, for the first wordings; Cho et al. 2021 (VL-T5), table 1
and official code, for the prefixes; Liu et al. 2023 (LLaVA), section 3; Wei et al. 2022 (FLAN), section 2.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mmlearn.data.hashing import stream

QUESTIONS = ("{question}", "answer: {question}", "{question} say it in one word.", "look closely. {question}")
WORDINGS: dict[str, tuple[str, ...]] = {  # task → wordings; those behind the first two are kept for tests
    "answer": QUESTIONS,
    "describe": ("describe the picture.", "what is in the picture?", "say what you see.", "write a caption."),
    "caption": ("what does the image describe?", "describe the image.", "what is in the image?", "say what you see."),
    "vqa": QUESTIONS,
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


class Reworded:
    """A sample that is as it was, but for its text."""

    def __init__(self, sample: Any):
        self.sample = sample

    def __getattr__(self, name: str) -> Any:
        if name == "sample":  # not there yet while it is unpickled
            raise AttributeError(name)
        return getattr(self.sample, name)


class Instructed(Reworded):
    """A sample with one task: the ``prompt`` says what to do, ``response`` is what is right to say, ``caption`` both.

    Tasks about a box have it as ``box``, left, top, right and bottom as shares of the picture, with its ``number``
    among all boxes: it is of an object that colour and shape tell from all others. What is answered by a box or by
    codes has an empty response. Raises ``ValueError`` for an unknown task, and for a sample that lacks what it needs.
    """

    def __init__(self, sample: Any, task: str, form: str = ""):
        if task not in WORDINGS:
            raise ValueError(f"There is no task {task!r}; known are {', '.join(WORDINGS)}.")
        super().__init__(sample)
        self.task = task
        if not hasattr(sample, "caption"):
            return  # fields tell what is lacking
        question = getattr(sample, "question", None)
        if task == "vqa" and question is None:
            raise ValueError("vqa learns from questions with answers: use --data scenes, or leave vqa out.")
        if task in WITH_BOXES and not hasattr(sample, "objects"):
            raise ValueError(f"{task} learns from objects with boxes: use --data scenes, or leave {task} out.")
        asked, answer = (question.text, question.answer) if question else ("", "")
        bits, phrase = int(stream("order", task, sample.caption, asked) >> 1), ""
        if task in WITH_BOXES:
            names = [f"{item.colour} {item.shape}" for item in sample.objects]
            single = [i for i, name in enumerate(names) if names.count(name) == 1]
            self.number = single[bits // LEARNED % len(single)]
            phrase = names[self.number]
        self.prompt = (form or wording(task, bits % LEARNED)).format(question=asked, phrase=phrase)
        said = {"caption": sample.caption, "describe": sample.caption, "vqa": answer, "answer": answer}
        self.response = (said | {"naming": phrase}).get(task, "")
        self.caption = f"{self.prompt} {self.response}".strip()

    @property
    def box(self) -> Tensor:
        """Where the object is."""
        height, width = self.sample.image.shape[-2:]
        return (self.sample.boxes[self.number] / torch.tensor([width, height, width, height])).clamp(0, 1)


@dataclass(frozen=True)
class Instruct:
    """From a sample to the same with a ``task``, in a ``form`` of one's own, or in a wording that the sample decides.

    Raises ``ValueError`` as :class:`Instructed` does.
    """

    task: str
    form: str = ""

    def __call__(self, sample: Any) -> Instructed:
        return Instructed(sample, self.task, self.form)


def instruct(sample: Any, task: str | None = None, number: int | None = None) -> Instructed:
    """A sample that is to be answered or described, in one of the wordings that are learned, or those that are named.

    Which one depends on the sample alone: three of four are questions, and all where the caption is made of the
    question, as in easy-VQA. Raises ``ValueError`` as :func:`wording` does.
    """
    bits = int(stream("instruction", sample.caption, sample.question.text) >> 1)
    described = bits % 4 == 0 and sample.question.text not in sample.caption
    task = task or ("describe" if described else "answer")
    return Instructed(sample, task, wording(task, bits // 4 % LEARNED if number is None else number))
