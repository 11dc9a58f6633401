"""Turns of a chat become one text, by the template of a published model: a program, which runs in a sandbox."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.data.tokenizer import SPECIAL_FILE, PublishedTokenizer
from mmlearn.files import written_whole
from mmlearn.generation.cache import pad_left
from mmlearn.generation.decoding import greedy
from mmlearn.models.text.llama import LlamaConfig
from mmlearn.pretrained.extras import opened
from mmlearn.pretrained.llama import config as llama_config
from mmlearn.pretrained.loading import read_config, read_json

CHAT_FILE = "chat.json"  # in a run's folder
LONGEST = 64  # tokens that are written behind a prompt
TEMPLATE_LETTERS, TEMPLATE_ROUNDS = 20_000, 100  # of a chat template, and of a loop in it
AROUND = "<fake_token_around_image>"  # stands before and after the image tokens of Idefics3 and SmolVLM
WHOLE = "<global-img>"  # of an image that is not cut into tiles
NANOVLM_WHOLE = "<|global_image|>"  # the same
MARKS = re.compile(r"<\|[a-z_]+\|>")  # how templates write the ends of turns


def read_chat(
    folder: Path, config: LlamaConfig, image_token: int | None = None, num_image_tokens: int = 0
) -> "ChatTokenizer | None":
    """The tokenizer and the template of a published language model, or None where it has no template.

    ``config`` is that of its weights; ``image_token`` stands ``num_image_tokens`` times for an image. ``ValueError``
    where there is no tokenizer, or one of other weights.
    """
    said = read_config(folder)
    if not (folder / "tokenizer.json").is_file():
        whose = f", that of {said['lm_tokenizer']}" if "lm_tokenizer" in said else ""  # as nanoVLM says
        raise ValueError(f"{folder} has no tokenizer.json: put it beside the weights{whose}.")
    template, start = chat_template(folder), config.start_token
    if template is None:
        return None
    special = dict(end_token=config.end_token, pad_token=config.pad_token)
    special["start_token"] = config.end_token if start is None else start
    chat = ChatTokenizer.read(folder, max_length=LONGEST, **special)
    chat.more_ends = tuple(dict.fromkeys((*more_ends(folder), *config.more_end_tokens)))
    if isinstance(more_tokens := said.get("vlm_extra_tokens"), dict):  # nanoVLM's, which its tokenizer lacks
        chat.engine.add_special_tokens([str(token) for token in more_tokens.values()])
    chat.begin(template, start, image_token, num_image_tokens)
    chat.check(config.vocab_size, folder / "tokenizer.json")
    return chat


def extra_tokenizer(name: str) -> "ChatTokenizer":
    """What the texts of an extra are read with, its chats too. Errors as of ``find_extra``."""
    with opened(name) as (folder, _):
        chat = read_chat(folder, llama_config(read_json(folder / "config.json"), set()))
    assert chat is not None  # as is known of what an extra holds
    return chat


def more_ends(folder: Path) -> list[int]:
    """Which tokens end an answer, where ``generation_config.json`` says it."""
    file = folder / "generation_config.json"
    said = read_json(file).get("eos_token_id") if file.is_file() else None
    ends = said if isinstance(said, list) else [said]
    return [end for end in ends if type(end) is int and end >= 0]


def chat_template(folder: Path) -> str | None:
    """The program by which turns of a chat become one text, or None. ``ValueError`` for one that is no text."""
    if (file := folder / "chat_template.jinja").is_file():
        return file.read_text(encoding="utf-8")
    for name in ("chat_template.json", "processor_config.json", "tokenizer_config.json", "config.json"):
        key = "lm_chat_template" if name == "config.json" else "chat_template"  # nanoVLM's
        if (file := folder / name).is_file() and (found := read_json(file).get(key)) is not None:
            if isinstance(found, list):  # several, by their names
                found = next((one.get("template") for one in found if one.get("name") == "default"), found)
            if not isinstance(found, str):
                raise ValueError(f"{key} in {file} should be one text, not a {type(found).__name__}.")
            return found
    return None


class ChatTokenizer(PublishedTokenizer):
    """Turns of a chat become tokens, behind which the model answers. See :meth:`begin`.

    An image is ``num_image_tokens`` tokens of the number ``image_token``, in their frame; None: none is read.
    """

    asks: str | None = None  # where an image comes without a prompt
    parts = True  # whether the template is given a text and images one by one, where the model reads images
    more_ends: tuple[int, ...] = ()  # tokens besides ``end_token`` that end an answer

    def begin(self, template: str, start_token: int | None, image_token: int | None, num_image_tokens: int) -> None:
        """The ``template`` of the chat, and what stands for an image in it: so many image tokens, in their frame."""
        self.template, self.first, self.image = template, start_token, ""
        self.image_token, self.num_image_tokens = image_token, num_image_tokens
        self.engine.encode_special_tokens = False  # those of the template are what they say
        if image_token is not None:
            self.image, self.asks = self.engine.id_to_token(image_token) or "", "Describe this image."
        framed = self.image * num_image_tokens
        if self.engine.token_to_id(NANOVLM_WHOLE) is not None:
            framed = f"{NANOVLM_WHOLE}{framed}"
        elif self.engine.token_to_id(AROUND) is not None:
            whole = WHOLE if self.engine.token_to_id(WHOLE) is not None else ""
            framed = f"{AROUND}{whole}{framed}{AROUND}"
        self.framed, self.parts = framed, True
        try:
            said = self.text([{"role": "user", "content": "a"}])
            self.parts = "'type'" not in said  # of a template that prints whatever a content is
        except ValueError:  # as of a template that joins a content to others
            self.parts = False

    def save(self, folder: str | Path) -> None:
        """Write the tokenizer, and ``chat.json`` with the template and what stands for an image in it."""
        super().save(folder)
        said = {"template": self.template, "start_token": self.first, "image_token": self.image_token}
        said |= {"num_image_tokens": self.num_image_tokens, "more_ends": self.more_ends, "asks": self.asks}
        with written_whole(Path(folder) / CHAT_FILE) as unfinished:
            unfinished.write_text(json.dumps(said), encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> "ChatTokenizer":
        """Read what :meth:`save` wrote. ``ValueError`` and ``KeyError`` for anything else."""
        said, tokens = (read_json(Path(folder) / name) for name in (CHAT_FILE, SPECIAL_FILE))
        chat = cls.read(folder, **tokens)
        numbers = (said["start_token"], said["image_token"], said["num_image_tokens"])
        if not isinstance(said["template"], str) or not all(one is None or type(one) is int for one in numbers):
            raise ValueError(f"{Path(folder) / CHAT_FILE} should hold a template and numbers of tokens.")
        chat.begin(said["template"], *numbers)
        chat.more_ends, chat.asks = tuple(said["more_ends"]), said["asks"]
        return chat

    def check(self, vocab_size: int, where: Path) -> None:
        """``ValueError`` where these cannot be the tokens of weights for ``vocab_size`` of them, or of the template."""
        added = self.engine.get_added_tokens_decoder()
        marks = MARKS.findall(self.text([{"role": "user", "content": "a"}]))
        unknown = [mark for mark in marks if self.engine.token_to_id(mark) is None]
        if self.vocab_size > vocab_size:
            why = f"it has {self.vocab_size:,} tokens, and the weights are for {vocab_size:,}"
        elif self.end_token not in added or not added[self.end_token].special:
            why = f"its token {self.end_token}, which ends a text by config.json, is a word"
        elif unknown:
            why = f"the chat template writes {unknown[0]}, which it does not know"
        else:
            return
        raise ValueError(f"{where} is not the tokenizer of this model: {why}.")

    def prompt(self, text: str, images: int | None = None) -> Int[Tensor, "t"]:
        """The tokens of a user's turn, about one image where any is read, or about so many. Errors as of `turns`."""
        return self._asked(text, images)

    def _asked(self, text: str, images: int | None) -> Int[Tensor, "t"]:
        return self.turns([{"role": "user", "content": text}], int(bool(self.image)) if images is None else images)

    def tokens(self, text: str) -> list[int]:
        """The tokens of a text alone."""
        return self.engine.encode(text, add_special_tokens=False).ids

    def decode(self, tokens: Int[Tensor, "t"] | Sequence[int]) -> str:
        """The text of an answer, up to the token that ends it."""
        row = tokens.tolist() if isinstance(tokens, Tensor) else list(tokens)
        return super().decode(row[: row.index(self.end_token)] if self.end_token in row else row)

    def encode(
        self, questions: Sequence[str], answers: Sequence[str], images: int | None = None
    ) -> tuple[Int[Tensor, "b t"], Bool[Tensor, "b t"], Bool[Tensor, "b t"]]:
        """Tokens of a question and its answer in each row, which of them answer, its end too, and which are real.

        ``images`` and errors as in :meth:`prompt`.
        """
        before = [self._asked(question, images).tolist() for question in questions]
        self._refuse_special(answers)
        rows = [row + [*self.tokens(answer), self.end_token] for row, answer in zip(before, answers, strict=True)]
        longest = max(map(len, rows))
        tokens = torch.tensor([row + [self.pad_token] * (longest - len(row)) for row in rows])
        at = torch.arange(longest)
        begins, ends = (torch.tensor([len(row) for row in each])[:, None] for each in (before, rows))
        return tokens, (at >= begins) & (at < ends), at < ends

    def ends_answer(self) -> int:
        """The token that the template writes behind an answer; ``end_token`` where it writes a word there."""
        asked, answer = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
        before, row = self.turns([asked]).tolist(), self.turns([asked, answer]).tolist()
        told = [*before, *self.tokens("b")]
        end = row[len(told)] if row[: len(told)] == told and len(row) > len(told) else self.end_token
        added = self.engine.get_added_tokens_decoder()
        return end if end in added and added[end].special else self.end_token

    def answers(
        self,
        model: nn.Module,
        questions: Sequence[str],
        image: Float[Tensor, "b c height width"] | None = None,
        most: int = 8,
        decode: Callable[..., Tensor] = greedy,  # of mmlearn.generation.decoding
    ) -> list[str]:
        """What a model writes after each question, in up to so many tokens: about an image each, or without any.

        Without one a language model is asked, or that of a system.
        """
        reader: Any = getattr(model, "language_model", model) if image is None else model
        images = 0 if image is None else reader.config.num_image_tokens // self.num_image_tokens
        tokens, real = pad_left([self._asked(question, images) for question in questions], self.pad_token)
        seen, begins = {} if image is None else {"image": image}, tokens.shape[1]
        written = reader.generate(**seen, decode=decode, prompt=tokens, prompt_mask=real, max_length=begins + most)
        return [self.decode(row) for row in written[:, begins:]]

    def turns(self, messages: Sequence[Mapping[str, str]], images: int = 0) -> Int[Tensor, "t"]:
        """The tokens of a conversation that the model is to go on with.

        A message has a ``role``, such as "user" or "assistant", and its ``content``. The ``images`` stand before the
        first. Raises ``ValueError`` for a content that is empty or holds special tokens.
        """
        contents = [message["content"] for message in messages]
        if not all(content.strip() for content in contents):
            raise ValueError("The prompt is empty: give it at least a word.")
        self._refuse_special(contents)
        ids = self.engine.encode(self.text(messages, images), add_special_tokens=True).ids
        doubled = self.first is not None and ids[:2] == [self.first] * 2  # by the template, and by the tokenizer
        return torch.tensor(ids[1:] if doubled else ids)

    def _refuse_special(self, texts: Sequence[str]) -> None:
        """``ValueError`` for a text that holds what stands for no word, as for the end of a turn."""
        special = [token.content for token in self.engine.get_added_tokens_decoder().values() if token.special]
        for token in special:
            if any(token in text for text in texts):
                raise ValueError(f"The prompt holds {token}, which is no word for this model: leave it out.")

    def text(self, messages: Sequence[Mapping[str, str]], images: int = 0) -> str:
        """The same as one text."""
        shown: list[dict[str, Any]] = [dict(message) for message in messages]
        for i, message in enumerate(shown if self.image else []):
            count, text = 0 if i else images, message["content"]
            parts = [*[{"type": "image"}] * count, {"type": "text", "text": text}]
            message["content"] = parts if self.parts else self.image * count + text
        said = render(
            self.template,
            messages=shown,
            add_generation_prompt=True,
            bos_token="" if self.first is None else self.engine.id_to_token(self.first),
            eos_token=self.engine.id_to_token(self.end_token),
        )
        return said.replace(self.image, self.framed, images) if self.image else said


def render(template: str, **values: Any) -> str:
    """What a chat template makes of these values. It is a program of others: it runs in a sandbox, with short loops.

    ``ValueError`` for one that is too long, is broken, or wants what the sandbox does not give.
    """
    if len(template) > TEMPLATE_LETTERS:
        raise ValueError(f"The chat template has {len(template):,} letters; at most {TEMPLATE_LETTERS:,} are run.")
    try:
        return _in_sandbox(template).render(**values)
    except Exception as error:  # a program of others can fail in any way
        raise ValueError(f"The chat template cannot be run: {' '.join(str(error).split()):.200}.") from error


@lru_cache(maxsize=8)
def _in_sandbox(template: str) -> Any:
    """The program of a template, ready to run: that takes a hundred times as long as a turn."""
    from jinja2 import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment, SecurityError

    class Sandbox(ImmutableSandboxedEnvironment):
        intercepted_binops = frozenset(["*", "**"])  # by which a few letters become all memory

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            raise SecurityError(f"{operator} is not computed in a chat template")

    def short_range(*bounds: int) -> range:
        if len(found := range(*bounds)) > TEMPLATE_ROUNDS:
            raise SecurityError(f"a loop of {len(found)} rounds is too long")
        return found

    def refuse(message: str) -> None:  # templates say so what they do not take
        raise TemplateError(message)

    sandbox = Sandbox(trim_blocks=True, lstrip_blocks=True)
    sandbox.globals = {"range": short_range, "raise_exception": refuse, "dict": dict}
    sandbox.filters["tojson"] = json.dumps
    return sandbox.from_string(template)
