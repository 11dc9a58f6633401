"""A look at the language model behind lesson 22a: with what does it answer, and what does it know without notes?"""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from mmlearn import load_pretrained, load_processor
from mmlearn.data.synthetic.collage_talk import colour_asked, imagine, notes
from mmlearn.exercises import by_hand, case, expect_number, expect_one_number, task
from mmlearn.exercises.inputs import new_seed

NAME = "zoo/llama-collages"


@torch.no_grad()
def answered_right(befores: Sequence[str], questions: Sequence[str], answers: Sequence[str]) -> float:
    """The share of questions that are answered word for word, where the likeliest token is written each time."""
    model, tokenizer = load_pretrained(NAME), load_processor(NAME).tokenizer
    right = []
    for before, question, answer in zip(befores, questions, answers):
        tokens = [tokenizer.start_token, *tokenizer.prompt(f"{before} {question}".strip()).tolist()]
        wanted = tokenizer.prompt(answer).tolist()
        written: list[int] = []
        for _ in wanted:
            written.append(int(model(torch.tensor([tokens + written])).token_logits[0, -1].argmax()))
        right.append(written == wanted)
    return sum(right) / len(right)


def talks(count: int = 5) -> tuple[list[str], list[str], list[str]]:
    """Notes, a question for the only colour of each, and its answer."""
    rng, found = np.random.default_rng(new_seed()), []
    while len(found) < count:
        before, names = notes(imagine(rng), rng)
        found += [(before, *turn) for turn in colour_asked(names)]
    befores, questions, answers = zip(*found)
    return list(befores), list(questions), list(answers)


@task(
    answered_right,
    difficulty=3,
    minutes=20,
    example=by_hand(["red shirt"] * 2, ["what colour is the shirt?"] * 2, ["red.", "blue."], gives=0.5),
)
def check_answered_right(function: Callable) -> None:
    """Notes are read, and come first; every token of an answer counts, and every question."""
    befores, questions, answers = talks()
    expect_one_number(function(befores, questions, answers))
    with case("With answers of which the first word is right and the rest is not"):
        longer = [answer.replace(".", " thing.") for answer in answers]
        hint = "the whole answer has to be what the model writes, its full stop included."
        expect_number(function(befores, questions, longer), 0.0, "No answer must be right.", hint)
    with case("With notes that name each colour"):
        wanted = answered_right(befores, questions, answers)
        hint = (
            f"load_pretrained({NAME!r}) reads a start token, the notes and the question; logits at the last position."
        )
        expect_number(function(befores, questions, answers), wanted, "The model answers right.", hint)
    with case("With one wrong answer among the right ones"):
        mixed = [*answers[:-1], "green." if answers[-1] != "green." else "red."]
        wanted, share = answered_right(befores, questions, mixed), "Every question must count the same."
        expect_number(function(befores, questions, mixed), wanted, share, "right answers over all questions.")
    with case("With notes of other things"):
        others = befores[1:] + befores[:1]
        wanted, told = answered_right(others, questions, answers), "It must be the share that is right all the same."
        hint = "each question has its own notes, in the order of the lists."
        expect_number(function(others, questions, answers), wanted, told, hint)
