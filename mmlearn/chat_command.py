"""``mmlearn chat``: a conversation in the terminal, or with a program that writes lines to it."""

import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from mmlearn.console import Json, one_line, say
from mmlearn.escaping import in_json, in_terminal

CUT = {  # by what an answer was ended, and what to say of it
    "max_new_tokens": "The answer was cut off at {tokens} tokens: --max-new-tokens allows more.",
    "context": "The answer was cut off where the model's context ends: begin a new conversation.",
    "stop": "The answer was stopped.",
}


def chat(
    name: Annotated[str, typer.Argument(help="smollm2-135m, a folder of a model that chats, a run, or zoo/NAME.")],
    image: Annotated[Path | None, typer.Option(help="What the conversation is about.")] = None,
    picture: Annotated[Path | None, typer.Option(hidden=True)] = None,
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="Of an answer; 256 if not given.")] = None,
    temperature: Annotated[
        float | None, typer.Option(min=0, help="Of draws, such as 0.7; 0 if not given: no draws.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, max=2**32 - 1, help="Where draws start.")] = None,
    as_json: Json = False,
) -> None:
    """Talk with a language model, which remembers what was said. Each line is a turn, also of a pipe.

    Ctrl-C ends an answer, and then the conversation; so does Ctrl-D. With --json each turn is one line of JSON.

    Example: mmlearn chat smollm2-135m
    """
    from mmlearn.training.conversation import open_conversation

    settings = dict(max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)
    given = {option: value for option, value in settings.items() if value is not None}
    conversation = open_conversation(name, picture if image is None else image, **given)
    typed = sys.stdin.isatty() and sys.stdout.isatty() and not as_json
    for text in _lines(typed):
        try:
            answer = conversation.ask(text, (lambda piece: None) if as_json else _print)
        except ValueError as error:
            if not typed:
                raise
            say(f"mmlearn: {one_line(error)}")
            continue
        if as_json:
            print(in_json({"user": text, "answer": answer.text, "tokens": answer.tokens, "cut": answer.cut}, None))
        else:
            print()
            if answer.cut:
                say(CUT[answer.cut].format(tokens=answer.tokens))
        if answer.cut == "stop" and not typed:
            raise KeyboardInterrupt
        sys.stdout.flush()


def _lines(typed: bool) -> Iterator[str]:
    """What the user says; empty lines say nothing."""
    if hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(errors="surrogateescape")  # what is no UTF-8 is told when it is asked
    if typed:
        with suppress(ImportError):  # on Windows
            import readline  # noqa: F401  # arrow keys go back to earlier lines

        say("Ctrl-C ends an answer, Ctrl-D the conversation.")
    while True:
        try:
            line = input("> ") if typed else next(sys.stdin)
        except (EOFError, StopIteration):
            print(end="\n" if typed else "")
            return
        except KeyboardInterrupt:
            print(flush=True)  # behind ^C
            raise
        if line.strip():
            yield line.strip()


def _print(piece: str) -> None:
    print(in_terminal(piece), end="", flush=True)
