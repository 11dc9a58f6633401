"""Instructions about a picture, each in several wordings, and the response to each.

A model that has learned some wordings is asked in others, and for what it was never asked: what it learned is either
those words, or to do as it is told. Source: Liu et al. 2023 (LLaVA), section 3; Wei et al. 2022 (FLAN), section 2.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from mmlearn.data.hashing import stream

WORDINGS: dict[str, tuple[str, ...]] = {  # task → wordings; those behind the first two are kept for tests
    "answer": ("{question}", "answer: {question}", "{question} say it in one word.", "look closely. {question}"),
    "describe": ("describe the picture.", "what is in the picture?", "say what you see.", "write a caption."),
}
LEARNED = 2


class Instruction(NamedTuple):
    """What is asked of a picture, and what is right to say."""

    task: str
    prompt: str
    response: str


def wording(task: str, number: int) -> str:
    """How a task is asked. ``ValueError`` for a task or a wording that there is not."""
    if task not in WORDINGS or not 0 <= number < len(WORDINGS[task]):
        raise ValueError(f"There is no wording {number} of {task!r}; known are {', '.join(WORDINGS)}, with four each.")
    return WORDINGS[task][number]


RESPONSES: dict[str, Callable[[Any], str]] = {
    "answer": lambda sample: sample.question.answer,
    "describe": lambda sample: sample.caption,
}


def instruct(sample: Any, task: str | None = None, number: int | None = None) -> Instruction:
    """A task about this sample in one of the wordings that are learned, or those that are named.

    Which one depends on the sample alone: three of four are questions, and all where the caption is made of the
    question, as in easy-VQA. Raises ``ValueError`` as :func:`wording` does.
    """
    bits = int(stream("instruction", sample.caption, sample.question.text) >> 1)
    described = bits % 4 == 0 and sample.question.text not in sample.caption
    task = task or ("describe" if described else "answer")
    asked = wording(task, bits // 4 % LEARNED if number is None else number)
    return Instruction(task, asked.format(question=sample.question.text), RESPONSES[task](sample))
