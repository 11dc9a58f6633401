"""A chat with a language model, or with one that sees an image: turns, answers, and the keys of all that was said."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmlearn.data.readers.images import ImageText, read_image
from mmlearn.data.tokenizer import PublishedTokenizer
from mmlearn.generation.cache import Cache, DecodingStep, cached
from mmlearn.generation.decoding import greedy, is_end, sample
from mmlearn.pretrained.chat import ChatTokenizer
from mmlearn.pretrained.extras import EXTRAS, is_extra
from mmlearn.suggestions import suggest
from mmlearn.training.published import load_writer
from mmlearn.training.runs import Run
from mmlearn.training.writing import as_text, write

Tell = Callable[[str], None]  # is given each piece of an answer as soon as it is written


class Answer(NamedTuple):
    """What the model said, in how many tokens."""

    text: str
    tokens: int
    cut: str | None  # by what it was ended: max_new_tokens, the context or a stop; None: by itself


class Conversation:
    """A chat. :meth:`ask` adds a turn of the user and one of the model to ``turns``.

    At ``temperature`` 0 the model takes the likeliest token each time, else it draws. Raises ``ValueError`` for a model
    that has no chat template, for an ``image`` that it does not read, and for a number that cannot be.
    """

    def __init__(
        self, run: Run, image: Path | None = None, *, max_new_tokens: int = 256, temperature: float = 0.0, seed: int = 0
    ):
        if not isinstance(run.tokenizer, ChatTokenizer):
            raise ValueError(
                f"This {run.name} has no chat template, by which turns become a text. One that chats has it as "
                "chat_template.jinja beside its weights; another one is asked by mmlearn generate."
            )
        if max_new_tokens < 1 or not 0 <= temperature < float("inf"):
            raise ValueError(f"max_new_tokens {max_new_tokens} is at least 1, temperature {temperature} at least 0.")
        self.run, self.system, self.chat = run, run.system, run.tokenizer
        self.language = getattr(run.system, "language_model", run.system)
        self.image: Float[Tensor, "1 n d"] | None = None if image is None else self.look_at(image)
        self.max_new_tokens = max_new_tokens
        self.ends = (self.language.config.end_token, *self.language.config.more_end_tokens)
        generator = torch.Generator().manual_seed(seed)
        self.decode = partial(sample, temperature=temperature, generator=generator) if temperature else greedy
        self.turns: list[dict[str, str]] = []
        self.cache = Cache()

    @torch.no_grad()
    def look_at(self, image: Path) -> Float[Tensor, "1 n d"]:
        """The embeddings of an image that all turns are about."""
        if self.system is self.language:
            raise ValueError(f"{self.run.name} reads words alone: leave out the image.")
        item = self.run.field("image")
        pixels = item([ImageText(read_image(image, item.image_size), "", str(image))])["image"]
        return self.system.encode_image(pixels.to(self.run.device))

    def ask(self, text: str, tell: Tell = lambda piece: None) -> Answer:
        """What the model says to this, after all that was said before.

        ``tell`` may raise ``KeyboardInterrupt``, as Ctrl-C does: what was written up to there is the answer. Raises
        ``ValueError``, and forgets the text, where it is empty, holds special tokens, or leaves no room in the context.
        """
        turns = [*self.turns, {"role": "user", "content": as_text(text)}]
        prompt = self.chat.turns(turns, images=int(self.image is not None))[None].to(self.run.device)
        begun, most = prompt.shape[1], self.language.config.max_length
        if begun >= most:
            seen = "" if self.image is None else f", {self.image.shape[1]} of them of the image"
            raise ValueError(
                f"The conversation has {begun} tokens with this text{seen}, and the model reads {most}: ask something "
                "shorter, or begin a new one."
            )
        written, stopped = self._write(prompt, min(most, begun + self.max_new_tokens), tell)
        ended = bool(is_end(torch.tensor(written[-1:]), self.ends).any())
        at_most = "context" if begun + self.max_new_tokens > most else "max_new_tokens"
        answer = Answer(self.chat.decode(written), len(written), "stop" if stopped else None if ended else at_most)
        said = self._without_special(answer.text)
        if said.strip():  # what says nothing is no turn, and nor is what it was said to
            self.turns = [*turns, {"role": "assistant", "content": said}]
        return answer

    def _write(self, prompt: Int[Tensor, "1 t"], max_length: int, tell: Tell) -> tuple[list[int], bool]:
        """The tokens behind a prompt, and whether they were stopped."""
        written, told = prompt, ""

        def pass_on(tokens: Tensor) -> None:
            nonlocal written, told
            written = tokens
            text = self.chat.engine.decode(tokens[0, prompt.shape[1] :].tolist(), skip_special_tokens=True).lstrip()
            if not text.endswith("\N{REPLACEMENT CHARACTER}"):  # of a character some bytes are still to come
                piece, told = text[len(told) :], text
                tell(piece)

        how = dict(end_token=self.ends, pad_token=self.language.config.pad_token, turns=True, max_length=max_length)
        mask, stopped = torch.ones_like(prompt, dtype=torch.bool), False
        try:
            with cached(self.language, self._read, mask, self.cache) as next_logits:

                def streamed(tokens: Tensor) -> Tensor:
                    pass_on(tokens)
                    return next_logits(tokens)

                pass_on(self.decode(streamed, prompt, **how))
        except BaseException as error:
            self.cache = Cache()  # of which some layers may have read more than others
            if not isinstance(error, KeyboardInterrupt):
                raise
            stopped = True
        return written[0, prompt.shape[1] :].tolist(), stopped

    def _read(self, step: DecodingStep) -> Float[Tensor, "1 v"]:
        """Scores of the next token, as of Llama's and VLM's own ``generate``."""
        if self.image is None:
            x = self.language.embed(step.tokens)  # (1, t, d)
        else:  # whose embeddings are read in the first step alone
            is_image = (step.tokens == self.system.image_token) & step.new
            x = self.system.embed(step.context(self.image), step.tokens, is_image)  # (1, t, d)
        position = torch.arange(step.mask.shape[1], device=x.device)[None]  # nothing is padding
        return self.language.logits(self.language.read(x, None, position)[:, -1])

    def _without_special(self, text: str) -> str:
        """A model may spell what is a special token when it is read again."""
        for token in self.chat.engine.get_added_tokens_decoder().values():
            text = text.replace(token.content, "") if token.special else text
        return text


class SingleTurns:
    """What a run that has learned no turns is asked: each text for itself, all about one image."""

    def __init__(self, run: Run, image: Path | None = None):
        self.run, self.images = run, [] if image is None else [image]

    def ask(self, text: str, tell: Tell = lambda piece: None) -> Answer:
        """What the run writes behind this text. Errors as of :func:`~mmlearn.training.writing.write`."""
        said = str(write(self.run, self.images, prompt=text)[0]["text"])
        tell(said)
        return Answer(said, len(self.run.tokenizer.engine.encode(said, add_special_tokens=False).ids), None)


def open_conversation(name: str | Path, image: Path | None = None, **settings: Any) -> Conversation | SingleTurns:
    """A chat with ``smollm2-135m``, a published folder, a run, or ``zoo/NAME``; settings are :class:`Conversation`'s.

    A run that has learned no turns is asked each text for itself, and takes no settings. Errors as of ``load_writer``
    and of these classes.
    """
    if not (Path(name).exists() or is_extra(name) or str(name).startswith("zoo/")):
        models = [each for each, parts in EXTRAS.items() if parts[0].path.endswith(".gguf")]
        raise FileNotFoundError(f"There is no folder {name}, and no model of this name; {suggest(str(name), models)}.")
    run = load_writer(Path(name))
    if not run.recipe.writes:
        write(run)  # says so
    if isinstance(run.tokenizer, PublishedTokenizer):
        return Conversation(run, image, **settings)
    if settings:
        raise ValueError(f"{name} has learned no turns, and takes no {' and no '.join(settings)}: leave this out.")
    return SingleTurns(run, image)
