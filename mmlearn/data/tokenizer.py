"""A byte-level BPE tokenizer, trained in code on whatever captions there are, so no script and no symbol is unknown."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from jaxtyping import Bool, Int
from tokenizers import Tokenizer as Engine
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor

from mmlearn.files import written_whole

SPECIAL_FILE = "special_tokens.json"  # of a published tokenizer in a run's folder
PAD, START, END, MASK = SPECIAL = ("<pad>", "<start>", "<end>", "<mask>")  # ids 0 to 3


class Tokenizer:
    """Texts to tokens of one fixed length: ``<start> … <end> <pad> …``, in lower case.

    Source: Sennrich et al. 2016 (byte-pair encoding); Radford et al. 2019 (GPT-2), section 2.2, for bytes.
    """

    pad_token, start_token, end_token, mask_token = range(4)

    def __init__(self, engine: Engine, max_length: int):
        if max_length < 3:
            raise ValueError(
                f"max_length must leave room for <start>, a token and <end>: at least 3, got {max_length}."
            )
        self.engine, self.max_length = engine, max_length
        engine.encode_special_tokens = True  # "<pad>" in a caption is text like any other
        engine.enable_truncation(max_length)
        engine.enable_padding(length=max_length, pad_id=self.pad_token, pad_token=PAD)

    @classmethod
    def train(cls, texts: Iterable[str], *, vocab_size: int = 512, max_length: int = 32) -> "Tokenizer":
        """Merge the most frequent pairs of these texts until there are ``vocab_size`` tokens, or no pair is left.

        Raises ``ValueError`` for fewer than the 256 bytes and 4 special tokens, or no text at all.
        """
        if vocab_size < 256 + len(SPECIAL):
            raise ValueError(f"vocab_size must hold 256 bytes and {len(SPECIAL)} special tokens, got {vocab_size}.")
        texts = list(texts)
        if not texts:
            raise ValueError("There is no text to train a tokenizer on.")
        engine = cls._around(models.BPE())
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=list(SPECIAL),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        engine.train_from_iterator(texts, trainer)
        return cls(engine, max_length)

    @classmethod
    def _around(cls, model: models.BPE) -> Engine:
        """The tokens of a model, and all that comes before and after them."""
        engine = Engine(model)
        engine.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
        engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        engine.decoder = decoders.ByteLevel()
        template = processors.TemplateProcessing(
            single=f"{START} $A {END}", special_tokens=[(START, cls.start_token), (END, cls.end_token)]
        )
        engine.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=True), template])
        return engine

    @property
    def vocab_size(self) -> int:
        return self.engine.get_vocab_size()

    def __call__(self, texts: Sequence[str]) -> tuple[Int[Tensor, "b t"], Bool[Tensor, "b t"]]:
        """Tokens and mask of these texts; what is longer than ``max_length`` is cut, and still ends with ``<end>``."""
        encoded = self.engine.encode_batch_fast(list(texts))
        tokens = torch.tensor([item.ids for item in encoded], dtype=torch.long).reshape(len(encoded), self.max_length)
        return tokens, tokens != self.pad_token

    def positions(self, text: str, start: int, end: int) -> list[int]:
        """Which tokens hold characters of ``text[start:end]``. None that were cut."""
        offsets = self.engine.encode(text).offsets
        return [i for i, (first, last) in enumerate(offsets) if first < end and last > start]

    def words(self, text: str) -> list[tuple[str, list[int]]]:
        """Each word of ``text``, as white space divides it, with its tokens."""
        words, at = [], 0
        for word in text.split():
            start = text.index(word, at)
            at = start + len(word)
            words.append((word, self.positions(text, start, at)))
        return words

    def prompt(self, text: str) -> Int[Tensor, "t"]:
        """The tokens of a text that is to go on, without start and end. ``ValueError`` for an empty or too long one."""
        if not text.strip():
            raise ValueError("The prompt is empty: give it at least a word.")
        encoded = self.engine.encode(text)
        tokens = [token for token, real in zip(encoded.ids, encoded.attention_mask) if real][1:-1]
        if encoded.overflowing:
            most = self.max_length - 2
            raise ValueError(f"The prompt has more than the {most} tokens that this model reads of a text: shorten it.")
        return torch.tensor(tokens)

    def decode(self, tokens: Int[Tensor, "t"] | Sequence[int]) -> str:
        """The text of these tokens, without the special ones."""
        ids = tokens.tolist() if isinstance(tokens, Tensor) else list(tokens)
        return self.engine.decode(ids, skip_special_tokens=True).strip()

    def save(self, folder: str | Path) -> None:
        """Write ``tokenizer.json``, in the format of the ``tokenizers`` library."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        text = self.engine.to_str(pretty=True)  # not engine.save, whose errors are no OSError
        with written_whole(Path(folder) / "tokenizer.json") as unfinished:
            unfinished.write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path) -> "Tokenizer":
        """Read what :meth:`save` wrote. ``FileNotFoundError`` or ``ValueError`` where it is not there or not whole.

        Of a file that says more than tokens and their length, such as a pattern to search for, nothing is believed.
        """
        path, more = Path(folder) / "tokenizer.json", Path(folder) / SPECIAL_FILE
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing; a trained folder has it beside model.safetensors.")
        if more.is_file():
            return PublishedTokenizer.read(folder, **_special_tokens(more))
        values = _read(path)
        try:
            model = values["model"]
            _check_numbers(model["vocab"], len(model["vocab"]))
            engine = cls._around(models.BPE(model["vocab"], [tuple(pair) for pair in model["merges"]]))
            engine.add_special_tokens(list(SPECIAL))
            read = cls(engine, values["truncation"]["max_length"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"{path} was not written by mmlearn ({type(error).__name__}: {error}).") from error
        except Exception as error:  # the library raises bare Exception
            raise ValueError(f"{path} is no whole tokenizer file ({error}).") from error
        if json.loads(read.engine.to_str()) != values:
            raise ValueError(f"{path} was not written by mmlearn: it does more to a text than {cls.__name__} does.")
        return read


# What a published tokenizer may consist of, and how long a text of its own that it puts into others.
PARTS = {
    *("Sequence", "NFC", "NFD", "NFKC", "NFKD", "Lowercase", "Prepend", "Replace", "ByteLevel", "Metaspace", "BPE"),
    *("TemplateProcessing", "ByteFallback", "Fuse", "Strip", "Digits", "Split", "WhitespaceSplit"),
}
LONGEST = 64  # letters
# Patterns by which Llama 3 and Qwen2 cut a text into words; no others are run, for one can take all time.
QWEN2_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3_WORDS = QWEN2_WORDS.replace(r"\p{N}| ", r"\p{N}{1,3}| ")
PATTERNS = {QWEN2_WORDS, LLAMA3_WORDS}


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no whole tokenizer file ({error}).") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} is no whole tokenizer file (it holds no JSON object).")
    return values


def _check_numbers(vocabulary: dict[str, int], most: int) -> None:
    """``ValueError`` where tokens have numbers from ``most``, for all of which the library would take memory."""
    if wrong := [number for number in vocabulary.values() if type(number) is not int or not 0 <= number < most]:
        raise ValueError(f"{len(vocabulary)} tokens are numbered from 0, and one has {wrong[0]!r:.60}")


def _special_tokens(path: Path) -> dict[str, int]:
    values, names = _read(path), {"max_length", "start_token", "end_token", "pad_token"}
    if values.keys() != names or not all(type(value) is int and value >= 0 for value in values.values()):
        raise ValueError(f"{path} should hold a number for each of {', '.join(sorted(names))}.")
    return values


def _check_parts(part: Any, path: Path) -> None:
    """``ValueError`` for a part that can take all time or memory: a pattern to search for, or a long text to put in."""
    if isinstance(part, dict):
        if part.keys() == {"Regex"} and part["Regex"] in PATTERNS:
            return
        if "Regex" in part or part.get("type", "BPE") not in PARTS:
            what = "searches by a pattern" if "Regex" in part else f"has a part {str(part['type'])[:LONGEST]!r}"
            raise ValueError(f"{path} {what}, which mmlearn does not run; it knows {', '.join(sorted(PARTS))}.")
        for value in part.values():
            _check_parts(value, path)
    elif isinstance(part, list):
        for value in part:
            _check_parts(value, path)
    elif isinstance(part, str) and len(part) > LONGEST:
        raise ValueError(f"{path} puts a text of {len(part):,} letters into others; at most {LONGEST} are taken.")


def _without_precompiled(normalizer: Any) -> Any:
    """SentencePiece's tables of letters, as in T5, are NFKC and little more; a table of others is not read."""
    if not isinstance(normalizer, dict):
        return normalizer
    if normalizer.get("type") == "Precompiled":
        return {"type": "NFKC"}
    inside = normalizer.get("normalizers")
    if isinstance(inside, list):
        return normalizer | {"normalizers": [_without_precompiled(one) for one in inside]}
    return normalizer


class PublishedTokenizer(Tokenizer):
    """The vocabulary of a published language model, whose texts keep their case: ``start … end pad …``.

    Its special tokens are those that the model says, and may be one and the same, as in GPT-2.
    """

    def __init__(self, engine: Engine, max_length: int, start_token: int, end_token: int, pad_token: int):
        engine.no_padding()
        engine.no_truncation()
        self.engine, self.max_length = engine, max_length
        self.start_token, self.end_token, self.pad_token = start_token, end_token, pad_token

    def __call__(self, texts: Sequence[str]) -> tuple[Int[Tensor, "b t"], Bool[Tensor, "b t"]]:
        encoded = self.engine.encode_batch_fast(list(texts), add_special_tokens=False)
        rows = [[self.start_token, *item.ids[: self.max_length - 2], self.end_token] for item in encoded]
        padded = [row + [self.pad_token] * (self.max_length - len(row)) for row in rows]
        lengths = torch.tensor([len(row) for row in rows], dtype=torch.long)
        tokens = torch.tensor(padded, dtype=torch.long).reshape(len(rows), self.max_length)
        return tokens, torch.arange(self.max_length) < lengths[:, None]

    def positions(self, text: str, start: int, end: int) -> list[int]:
        found = self.engine.encode(text, add_special_tokens=False).offsets[: self.max_length - 2]
        return [i for i, (first, last) in enumerate(found, 1) if first < end and last > start]

    def prompt(self, text: str) -> Int[Tensor, "t"]:
        ids, most = self.engine.encode(text, add_special_tokens=False).ids, self.max_length - 2
        if not text.strip():
            raise ValueError("The prompt is empty: give it at least a word.")
        if len(ids) > most:
            raise ValueError(f"The prompt has more than the {most} tokens that this model reads of a text: shorten it.")
        return torch.tensor(ids)

    def save(self, folder: str | Path) -> None:
        """Write ``tokenizer.json``, and ``special_tokens.json`` with what it does not say."""
        super().save(folder)
        names = ("max_length", "start_token", "end_token", "pad_token")
        with written_whole(Path(folder) / SPECIAL_FILE) as unfinished:
            unfinished.write_text(json.dumps({name: getattr(self, name) for name in names}), encoding="utf-8")

    @classmethod
    def read(cls, folder: str | Path, **settings: int) -> Self:
        """The ``tokenizer.json`` of this folder; ``settings`` are the other arguments. ``ValueError`` for another."""
        path = Path(folder) / "tokenizer.json"
        values = _read(path)
        values["normalizer"] = _without_precompiled(values.get("normalizer"))
        for name in ("normalizer", "pre_tokenizer", "post_processor", "decoder"):
            _check_parts(values.get(name), path)
        try:
            if isinstance(vocabulary := values["model"]["vocab"], dict):  # a list, as of T5, numbers itself
                _check_numbers(vocabulary, 2 * len(vocabulary) + len(SPECIAL))
            return cls(Engine.from_str(json.dumps(values)), **settings)
        except Exception as error:  # the library raises bare Exception
            raise ValueError(f"{path} is no whole tokenizer file ({error}).") from error
