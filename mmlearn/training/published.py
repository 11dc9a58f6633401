"""A published checkpoint as a run, so that ``mmlearn generate`` writes with it: its words, its images, its chat."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from mmlearn.data.fields import Field, Image, Tokens, size
from mmlearn.data.grid_features import STRIDE
from mmlearn.data.tokenizer import PublishedTokenizer
from mmlearn.pretrained import load_pretrained
from mmlearn.pretrained.loading import published_folder, read_json
from mmlearn.pretrained.zoo import load_zoo, zoo_record, zoo_records
from mmlearn.recipes.discovery import find_recipe
from mmlearn.training.runs import Run, load_run

LONGEST = 64  # tokens that are written behind a prompt
TEMPLATE_LETTERS, TEMPLATE_ROUNDS = 20_000, 100  # of a chat template, and of a loop in it
AROUND = "<fake_token_around_image>"  # stands before and after the image tokens of Idefics3 and SmolVLM
WHOLE = "<global-img>"  # of an image that is not cut into tiles


def open_run(folder: Path, system: Path | None = None, ema: bool = False) -> Run:
    """The run of this folder (:func:`~mmlearn.training.runs.load_run`), or a model of the zoo: ``zoo/NAME``."""
    if folder.parts[:1] != ("zoo",) or folder.is_dir():
        return load_run(folder, system, ema)
    if system is not None or ema:
        raise ValueError(f"{folder} comes with the package, and is no run: leave out --system and --ema.")
    return load_zoo_run(folder.name)


def load_zoo_run(name: str) -> Run:
    """A model of the zoo with what its pictures and texts are read with. Errors as of ``load_zoo``.

    ``ValueError`` for a model that its lesson defines, and for one that reads anything else.
    """
    record = zoo_record(name)
    if not record["system"]:
        others = ", ".join(f"zoo/{each}" for each, known in zoo_records().items() if known["system"])
        lesson = f"lesson {record['lesson']} defines it, and measures it: mmlearn run {record['lesson']}"
        raise ValueError(f"zoo/{name} is no system that commands know; {lesson}. They know {others}.")
    system, tokenizer, _ = load_zoo(name)
    recipe, config = find_recipe(record["system"]), system.config
    fields: dict[Field, Field] = {}
    for item in recipe.reads:
        fields[item] = item
        if isinstance(item, Image):
            frozen, side = size(config, "channels", 3) != 3, size(config, "image_size")
            fields[item] = replace(item, frozen_grid=frozen, image_size=side * STRIDE if frozen else side)
        elif isinstance(item, Tokens):
            fields[item] = replace(item, tokenizer=tokenizer)
        else:
            raise ValueError(f"zoo/{name} reads {type(item).__name__}, of which the zoo keeps nothing.")
    stage = recipe.stages[-1]
    return Run(record["system"], recipe, system, fields, stage, tuple(stage.objectives()))


def load_writer(folder: Path, system: Path | None = None, ema: bool = False) -> Run:
    """The run of this folder, or of the zoo (:func:`open_run`), or the published checkpoint that it holds."""
    try:
        said = read_json(folder / "config.json")
    except (OSError, ValueError):  # of which load_run says more
        said = {}
    if "model_type" not in said or "fields" in said:
        return open_run(folder, system, ema)
    if system is not None or ema:
        raise ValueError(f"{folder} holds a published checkpoint, and no run: leave out --system and --ema.")
    return load_published(folder)


def load_published(folder: str | Path) -> Run:
    """The checkpoint of this folder with all that lies beside its weights: tokenizer, size of images, chat template.

    Raises ``ValueError`` for a system that writes nothing, and where something is missing that its words or images
    need; and whatever :func:`~mmlearn.load_pretrained` raises.
    """
    folder = published_folder(folder)
    system = load_pretrained(folder)
    name = type(system).__module__.rpartition(".")[2].replace("_", "-")
    recipe = find_recipe(name)
    if not recipe.writes:
        raise ValueError(f"{folder} holds a {type(system).__name__}, which writes no text.")
    fields: dict[Field, Field] = {}
    for item in recipe.reads:
        fields[item] = item
        if isinstance(item, Image):
            fields[item] = replace(item, **image_settings(folder, system))
        elif isinstance(item, Tokens):
            fields[item] = replace(item, tokenizer=read_tokenizer(folder, system))
    stage = recipe.stages[-1]
    return Run(name, recipe, system, fields, stage, tuple(stage.objectives()))


def image_settings(folder: Path, system: nn.Module) -> dict[str, Any]:
    """How large images are, and the mean and spread of their pixels. ``ValueError`` where no file says it."""
    tower = next(part for name, part in vars(system.config).items() if name in ("image_encoder", "image"))
    for file, part in (("preprocessor_config.json", None), ("processor_config.json", "image_processor")):
        if (folder / file).is_file():
            said = read_json(folder / file)
            said = said.get(part) or {} if part else said
            mean, std = said.get("image_mean"), said.get("image_std")
            if isinstance(mean, list) and isinstance(std, list):
                side = tower.image_size if isinstance(tower.image_size, int) else min(tower.image_size)
                return dict(mean=tuple(mean), std=tuple(std), image_size=side)
    raise ValueError(
        f"{folder} does not say how images are normalised: put the model's preprocessor_config.json into it, with "
        "image_mean and image_std."
    )


def read_tokenizer(folder: Path, system: nn.Module) -> PublishedTokenizer:
    """What the texts of a published model are read with; of one that chats, with its template.

    Raises ``ValueError`` where there is no tokenizer, and where a model that reads images among words has no template.
    """
    if not (folder / "tokenizer.json").is_file():
        raise ValueError(f"{folder} has no tokenizer.json: put it beside the weights.")
    language = getattr(system, "language_model", system)
    config, image_token = language.config, getattr(system, "image_token", None)
    template = chat_template(folder) if hasattr(config, "more_end_tokens") else None  # a Llama may end a turn
    special = dict(end_token=config.end_token, pad_token=config.pad_token)
    start = getattr(config, "start_token", config.pad_token)  # an encoder-decoder begins with padding
    if image_token is not None and template is None:
        raise ValueError(
            f"{folder} has no chat template, which says where in a text the image and the prompt stand: put the "
            "model's chat_template.jinja or chat_template.json into it."
        )
    if template is None:
        known = {"start_token": config.end_token if start is None else start} | special
        return PublishedTokenizer.read(folder, max_length=LONGEST, **known)
    # The template says with what a text begins, and a turn may end with a token of its own.
    ends = tuple(dict.fromkeys((*more_ends(folder), *config.more_end_tokens)))
    language.config = replace(config, start_token=None, more_end_tokens=ends)
    known = dict(start_token=config.end_token if start is None else start) | special
    chat = ChatTokenizer.read(folder, max_length=LONGEST, **known)
    chat.begin(template, start, image_token, 0 if image_token is None else system.config.num_image_tokens)
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
    for name in ("chat_template.json", "processor_config.json", "tokenizer_config.json"):
        if (file := folder / name).is_file() and (found := read_json(file).get("chat_template")) is not None:
            if isinstance(found, list):  # several, by their names
                found = next((one.get("template") for one in found if one.get("name") == "default"), found)
            if not isinstance(found, str):
                raise ValueError(f"chat_template in {file} should be one text, not a {type(found).__name__}.")
            return found
    return None


class ChatTokenizer(PublishedTokenizer):
    """Prompts become a user's turn of a chat, behind which the model answers. See :meth:`begin`."""

    asks: str | None = None  # where an image comes without a prompt

    def begin(self, template: str, start_token: int | None, image_token: int | None, num_image_tokens: int) -> None:
        """The ``template`` of the chat, and what stands for an image in it: so many image tokens, in their frame."""
        self.template, self.first, self.image = template, start_token, ""
        self.engine.encode_special_tokens = False  # those of the template are what they say
        if image_token is not None:
            self.image, self.asks = self.engine.id_to_token(image_token) or "", "Describe this image."
        framed = self.image * num_image_tokens
        if self.engine.token_to_id(AROUND) is not None:
            whole = WHOLE if self.engine.token_to_id(WHOLE) is not None else ""
            framed = f"{AROUND}{whole}{framed}{AROUND}"
        self.framed = framed

    def prompt(self, text: str) -> Int[Tensor, "t"]:
        """The tokens of a user's turn. ``ValueError`` for a text that is empty or holds special tokens."""
        if not text.strip():
            raise ValueError("The prompt is empty: give it at least a word.")
        for token in self.engine.get_added_tokens_decoder().values():
            if token.special and token.content in text:
                raise ValueError(f"The prompt holds {token.content}, which is no word for this model: leave it out.")
        content: Any = [{"type": "image"}, {"type": "text", "text": text}] if self.image else text
        said = render(
            self.template,
            messages=[{"role": "user", "content": content}],
            add_generation_prompt=True,
            bos_token="" if self.first is None else self.engine.id_to_token(self.first),
            eos_token=self.engine.id_to_token(self.end_token),
        )
        if self.image:
            said = said.replace(self.image, self.framed, 1)
        ids = self.engine.encode(said, add_special_tokens=True).ids
        doubled = self.first is not None and ids[:2] == [self.first] * 2  # by the template, and by the tokenizer
        return torch.tensor(ids[1:] if doubled else ids)


def render(template: str, **values: Any) -> str:
    """What a chat template makes of these values. It is a program of others: it runs in a sandbox, with short loops.

    ``ValueError`` for one that is too long, is broken, or wants what the sandbox does not give.
    """
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

    if len(template) > TEMPLATE_LETTERS:
        raise ValueError(f"The chat template has {len(template):,} letters; at most {TEMPLATE_LETTERS:,} are run.")
    sandbox = Sandbox(trim_blocks=True, lstrip_blocks=True)
    sandbox.globals = {"range": short_range, "raise_exception": refuse, "dict": dict}
    sandbox.filters["tojson"] = json.dumps
    try:
        return sandbox.from_string(template).render(**values)
    except Exception as error:  # a program of others can fail in any way
        raise ValueError(f"The chat template cannot be run: {' '.join(str(error).split()):.200}.") from error
