"""What a trained run says: of pictures or sounds, behind a prompt, or out of nothing. Whatever the system is."""

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmlearn.data.fields import Batch, Image
from mmlearn.data.readers.images import ImageText, read_image
from mmlearn.data.readers.sound import SoundSample, read_sound
from mmlearn.evaluation.eval_mode import evaluating
from mmlearn.generation.decoding import beam_search, greedy, sample
from mmlearn.pretrained.chat import ChatTokenizer
from mmlearn.recipes.discovery import find_recipe, system_files
from mmlearn.recipes.recipe import Recipe
from mmlearn.suggestions import suggest
from mmlearn.training.runs import Run

STRATEGIES: dict[str, Callable[..., Tensor]] = {
    "greedy": greedy,
    "beam": partial(beam_search, beams=4),
    "sample": sample,
    "top-k": partial(sample, top_k=10),
    "nucleus": partial(sample, top_p=0.9),
}
DRAW = ("sample", "top-k", "nucleus")


def write(
    run: Run,
    images: Sequence[Path] = (),
    sounds: Sequence[Path] = (),
    prompt: str | None = None,
    *,
    num: int = 1,
    strategy: str = "greedy",
    min_new_tokens: int = 0,
    no_repeat_ngram_size: int = 0,
    seed: int = 0,
    **asked: Any,
) -> list[dict[str, str | None]]:
    """``num`` texts of each picture or sound, or where there is none, behind the prompt: one row for each text.

    ``min_new_tokens`` and ``no_repeat_ngram_size`` are those of :mod:`mmlearn.generation.decoding`; ``asked`` is what
    else a system may be told, such as a ``language``, and None is nothing.

    Raises ``ValueError`` for a run that writes no text, or about what no file holds; for pictures, sounds, a prompt or
    anything else that it does not take, or lacks; for a prompt that is empty or too long, for a strategy that there is
    not, and for several texts where all are the same.
    Raises ``FileNotFoundError`` for a picture or a sound that is not there.
    """
    if not run.recipe.writes:
        learned = f"{run.name} writes no text: it has learned {' and '.join(run.objectives)}"
        raise ValueError(f"{learned}. Systems that do: {', '.join(_writers(run))}.")
    if strategy not in STRATEGIES:
        raise ValueError(f"There is no strategy {strategy!r}; {suggest(strategy, STRATEGIES)}.")
    if num > 1 and strategy not in DRAW:
        raise ValueError(
            f"{strategy} always writes the same: for {num} texts take {', '.join(DRAW[:-1])} or {DRAW[-1]}."
        )
    asked = {name: value for name, value in asked.items() if value is not None}
    chat = run.tokenizer if isinstance(run.tokenizer, ChatTokenizer) else None
    prompt = chat.asks if chat and images and prompt is None else prompt
    given = _inputs(run, images, sounds, prompt, asked)
    limits = dict(min_new_tokens=min_new_tokens, no_repeat_ngram_size=no_repeat_ngram_size)
    decode = partial(STRATEGIES[strategy], **limits)
    if strategy in DRAW:
        decode = partial(decode, generator=torch.Generator().manual_seed(seed))
    given = {name: value.repeat_interleave(num, 0).to(run.device) for name, value in given.items()}
    begun = given["prompt"].shape[1] if chat and "prompt" in given else 0  # of a chat only the answer is shown
    with evaluating(run.system):
        longest = begun + run.tokenizer.max_length
        written = run.system.generate(**given, **asked, decode=decode, max_length=longest)[:, begun:]
    about = "sound" if sounds else "image"
    sources: Sequence[str | None] = [str(path) for path in sounds or images for _ in range(num)] or [None] * num
    return [{about: source, "text": run.tokenizer.decode(row)} for source, row in zip(sources, written)]


def _writers(run: Run) -> list[str]:
    """The systems that write about images, where this one reads images; else those that write anything else."""

    def sees(recipe: Recipe) -> bool:
        return any(isinstance(item, Image) for item in recipe.reads)

    recipes = {name: find_recipe(name) for name in system_files()}
    return [name for name, one in recipes.items() if one.writes and sees(one) == sees(run.recipe)]


def _inputs(
    run: Run, images: Sequence[Path], sounds: Sequence[Path], prompt: str | None, asked: Mapping[str, Any]
) -> Batch:
    """What ``generate`` takes, as its arguments are called."""
    takes = {
        name: parameter.default is inspect.Parameter.empty
        for name, parameter in inspect.signature(run.system.generate).parameters.items()
    }
    if found := [name for name, needed in takes.items() if needed and name not in ("image", "mel", "prompt")]:
        raise ValueError(f"{run.name} writes about {' and '.join(found)}, which no file holds: ask its generate(…).")
    _check("--image FILE", run, bool(images), takes.get("image"))
    _check("--sound FILE", run, bool(sounds), takes.get("mel"))
    _check("--prompt TEXT", run, prompt is not None, takes.get("prompt"))
    for name in asked:
        _check(f"--{name}", run, True, takes.get(name))
    given: Batch = {}
    if images:
        item = run.field("image")
        given["image"] = item([ImageText(read_image(path, item.image_size), "", str(path)) for path in images])["image"]
    if sounds:
        heard = [SoundSample(read_sound(path), "", str(path)) for path in sounds]
        given["mel"] = run.field("mel")(heard)["mel"]
    if prompt is not None:
        given["prompt"] = run.tokenizer.prompt(as_text(prompt)).expand(max(len(images), 1), -1)
    if not given and "prompt" in takes:  # one text out of nothing
        given["prompt"] = torch.zeros(1, 0, dtype=torch.long)
    return given


def as_text(words: str) -> str:
    """What was typed, also where the locale has only ASCII. ``ValueError`` for bytes that are no text."""
    try:
        words.encode()
        return words
    except UnicodeEncodeError:  # undecoded bytes of a command line are halves of characters
        try:
            return os.fsencode(words).decode()
        except UnicodeError as error:
            raise ValueError(f"The prompt is no text in UTF-8: {words!a:.60}.") from error


def _check(option: str, run: Run, given: bool, needed: bool | None) -> None:
    """``needed`` is None where the system does not take it."""
    if given and needed is None:
        raise ValueError(f"{run.name} takes no {option}: leave it out.")
    if needed and not given:
        raise ValueError(f"{run.name} cannot write without {option}.")


def lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """A text a line, behind its picture or sound where there are several."""
    sources = [next(value for name, value in row.items() if name != "text") for row in rows]
    many = len(set(sources)) > 1
    return [f"{source}: {row['text']}" if many else row["text"] for source, row in zip(sources, rows)]
