"""A chat in a notebook."""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from mmlearn.escaping import in_html


@runtime_checkable
class Answers(Protocol):
    """What can be asked; it tells each piece of its answer as soon as it is written."""

    def ask(self, text: str, tell: Callable[[str], None]) -> Any:
        """An answer with its ``text``, and ``cut``: by what it was cut off, or None."""


def chat_widget(conversation: Answers) -> Any:
    """A line to type in, and above it what was said; an answer grows as it is written.

    ``conversation`` is what :func:`~mmlearn.training.conversation.open_conversation` gives. Needs ipywidgets, which
    the extra ``notebooks`` brings.
    """
    from ipywidgets import HTML, Text, VBox

    said, line = HTML(), Text(placeholder="Ask something, and press Enter.", continuous_update=False)
    turns: list[str] = []

    def show(speaker: str, text: str) -> str:
        return f"<p style='white-space: pre-wrap; margin: 0.3em 0'><b>{speaker}</b> {in_html(text)}</p>"

    def ask(change: dict[str, Any]) -> None:
        text = change["new"].strip()
        if not text:
            return
        line.value, line.disabled, pieces = "", True, [""]
        turns.append(show("You:", text))

        def grow(piece: str) -> None:
            pieces.append(piece)
            said.value = "".join([*turns, show("Model:", "".join(pieces))])

        try:
            answer = conversation.ask(text, grow)
            turns.append(show("Model:", answer.text + (f" … [cut off: {answer.cut}]" if answer.cut else "")))
        except ValueError as error:
            turns.append(show("mmlearn:", str(error)))
        finally:
            said.value, line.disabled = "".join(turns), False

    line.observe(ask, "value")
    return VBox([said, line])
