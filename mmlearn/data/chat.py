"""How a chat becomes one text: by the template that comes with a published model.

A template is a small program in Jinja. It runs in a sandbox, which lets it reach the messages and nothing else.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from mmlearn.pretrained.loading import read_json

LONGEST = 1_000_000  # letters of a chat


def render_chat(folder: str | Path, messages: Iterable[Mapping[str, str]], answer: bool = True) -> str:
    """The text of these messages, each a ``role`` (system, user or assistant) and its ``content``.

    With ``answer`` the text ends where the assistant is to speak. The tokens of the text are all there are: it brings
    the start token that its model wants. Raises ``ValueError`` for a folder without a template, and for one that fails
    or does not accept these messages.
    """
    folder = Path(folder)
    source, special = _template(folder)

    def refuse(message: str) -> str:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = refuse  # templates say so what they do not take
    try:
        pieces = environment.from_string(source).generate(messages=[*messages], add_generation_prompt=answer, **special)
        text = ""
        for piece in pieces:
            text += piece
            if len(text) > LONGEST:
                raise ValueError(f"it writes more than {LONGEST:,} letters")
    except Exception as error:  # whatever a program can do wrong
        raise ValueError(f"The chat template of {folder} fails: {' '.join(str(error).split()):.200}.") from error
    return text


def _template(folder: Path) -> tuple[str, dict[str, Any]]:
    """The template, which lies in a file of its own or, in older folders, in ``tokenizer_config.json``."""
    file, settings = folder / "chat_template.jinja", folder / "tokenizer_config.json"
    said = read_json(settings) if settings.is_file() else {}
    template = file.read_text(encoding="utf-8") if file.is_file() else said.get("chat_template")
    if isinstance(template, list):  # several, by their names
        named = {one.get("name"): one.get("template") for one in template if isinstance(one, dict)}
        template = named.get("default")
    if not isinstance(template, str):
        raise ValueError(
            f"{folder} has no chat template (chat_template.jinja), so its model knows of no turns: give it a text to "
            "go on with, or take one that was trained to chat, whose name often ends in Instruct."
        )
    special = {name: said.get(name) for name in ("bos_token", "eos_token", "pad_token")}
    return template, {name: one["content"] if isinstance(one, dict) else one for name, one in special.items()}
