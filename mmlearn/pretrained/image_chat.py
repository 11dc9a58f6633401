"""A language model that is asked about images: its weights, and how a question and its answer become tokens."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

import torch
from tokenizers import Tokenizer as Engine
from tokenizers.processors import ByteLevel
from torch import nn

from mmlearn.data.tokenizer import Tokenizer
from mmlearn.layers import Config
from mmlearn.models.bridges.vlm import VLMConfig
from mmlearn.models.text.llama import Llama, LlamaConfig
from mmlearn.pretrained.chat import ChatTokenizer, read_chat
from mmlearn.pretrained.extras import is_extra, opened
from mmlearn.pretrained.loading import load_pretrained, published_folder
from mmlearn.pretrained.zoo import load_zoo

EXTRA = "smollm2-135m"
ENDS = "<|im_end|>"  # a turn of the chats of SmolLM2 and Qwen2
# Tokens of the vocabularies of SmolLM2, Qwen2 and Llama 3 that no chat holds: an image takes the position of one.
IMAGES = ("<filename>", "<image>", "<|image_pad|>", "<|reserved_special_token_0|>")

TEMPLATE = (  # without the first turn of SmolLM2, which says that the model is a helpful assistant
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}" + IMAGES[0] + "{% else %}{{ part['text'] }}{% endif %}{% endfor %}" + ENDS + "\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PLAIN = (  # of zoo/llama-collages, which knows no turns
    "{{ bos_token }}{% for message in messages %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<mask>{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endfor %}"
)


class ImageChat(ChatTokenizer):
    """A chat in which each prompt says how many image tokens it has, and has none where it does not say it."""

    @classmethod
    def of(cls, chat: ChatTokenizer) -> Self:
        """The same words and turns."""
        found = cls.__new__(cls)
        vars(found).update(vars(chat))
        return found

    @property
    def end(self) -> int:
        """The token that ends an answer."""
        return self.end_token

    @property
    def pad(self) -> int:
        """The token that stands where a row has none."""
        return self.pad_token

    def prompt(self, text: str, images: int | None = 0) -> list[int]:  # type: ignore[override]
        """The tokens of a question, in a list. Errors as of :meth:`turns`."""
        return self._asked(text, images).tolist()


def read_image_chat(folder: Path, config: LlamaConfig, num_image_tokens: int = 1) -> tuple[ChatTokenizer, LlamaConfig]:
    """What chats about images are read with, and the configuration of a published language model that so learns them.

    ``ValueError`` for a model without a chat template, or without a token that can stand for an image; else as of
    :func:`~mmlearn.pretrained.chat.read_chat`.
    """
    chat = read_chat(folder, config)
    if chat is None:
        raise ValueError(f"{folder} has no chat template (chat_template.jinja), by which a question becomes a text.")
    known = [token for token in IMAGES if chat.engine.token_to_id(token) is not None]
    if not known:
        raise ValueError(f"{folder} has no token that can stand for an image; known are {', '.join(IMAGES)}.")
    turns = chat.engine.token_to_id(ENDS) is not None and chat.engine.token_to_id("<|im_start|>") is not None
    template = TEMPLATE.replace(IMAGES[0], known[0]) if turns else chat.template
    chat.begin(template, None if turns else chat.first, chat.engine.token_to_id(known[0]), num_image_tokens)
    chat.end_token = chat.ends_answer()
    ends = [end for end in dict.fromkeys((chat.end_token, *chat.more_ends)) if end != config.end_token]
    return chat, replace(config, start_token=None, more_end_tokens=tuple(ends))


def image_tokenizer(config: Config, parts: Mapping[str, str]) -> ChatTokenizer:
    """What chats about an image are read with by a system of the zoo whose language model is an extra.

    ``ValueError`` where none of its ``parts`` is one.
    """
    name = parts.get("language_model", "")
    if not is_extra(name) or not isinstance(config, VLMConfig) or config.image_token is None:
        raise ValueError(f"What {type(config).__name__} configures was kept without a tokenizer.")
    with opened(name) as (folder, _):
        chat = read_image_chat(folder, config.language_model, config.num_image_tokens)[0]
    chat.asks = "What does the picture show?"
    return chat


def frozen_language_model(
    name: str | Sequence[str] = EXTRA, dtype: torch.dtype = torch.float32
) -> tuple[Llama, ImageChat]:
    """A language model whose weights learn nothing, and its chat: ``smollm2-135m``, or ``zoo/llama-collages``.

    It may also be the folder or the hub id of a Llama that chats; of several names the first that can be had, and a
    warning tells which. An image takes as many image tokens as are asked for. The one of the zoo comes with the package
    and knows no turns: to it a question and its answer follow the image, in small letters. Errors as of
    :func:`~mmlearn.load_pretrained`; ``ValueError`` for what is no language model, or has no chat template.
    """
    first, *others = [name] if isinstance(name, str) else name
    try:
        model, chat = with_chat(first, dtype)
    except FileNotFoundError:
        if not others:
            raise
        warnings.warn(f"{others[0]} in place of {first}, which cannot be had here", stacklevel=2)
        return frozen_language_model(others, dtype)
    return model.to(dtype).requires_grad_(False), ImageChat.of(chat)


def with_chat(name: str, dtype: torch.dtype = torch.float32) -> tuple[Llama, ChatTokenizer]:
    """A language model and what its texts are read with, by one name of :func:`frozen_language_model`."""
    if is_extra(name):
        with opened(name) as (folder, load):
            return _read_chat(name, load(dtype), folder)
    if Path(name).is_dir() or "/" in name.removeprefix("zoo/"):
        folder = published_folder(name)
        return _read_chat(name, load_pretrained(folder, dtype), folder)
    model, words, _ = load_zoo(name.removeprefix("zoo/"))
    if words is None or not isinstance(model, Llama):
        raise ValueError(f"{name} is no language model that can be asked: {EXTRA} and zoo/llama-collages are.")
    model.config = replace(model.config, start_token=None)  # which is a part of what it is asked
    return model, plain_chat(words)


def plain_chat(words: Tokenizer) -> ChatTokenizer:
    """Questions and answers of a vocabulary that was trained here: one behind the other, without turns."""
    engine = Engine.from_str(words.engine.to_str())
    engine.post_processor = ByteLevel(trim_offsets=True)  # puts in no start and end, as the template does
    chat = ChatTokenizer(engine, words.max_length, words.start_token, words.end_token, words.pad_token)
    chat.begin(PLAIN, words.start_token, words.mask_token, 1)
    return chat


def _read_chat(name: str, model: nn.Module, folder: Path) -> tuple[Llama, ChatTokenizer]:
    if not isinstance(model, Llama):
        raise ValueError(f"{name} is a {type(model).__name__}, and no language model of Llama's kind.")
    chat, model.config = read_image_chat(folder, model.config)
    return model, chat
