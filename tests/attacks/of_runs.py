"""Attacks by whoever hands over a run's folder: its weights, configuration, tokenizer and checkpoints."""

import json
import os
import shutil
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from held import Attack
from safetensors.torch import load_file, save
from starts import training

from mmlearn.training.checkpoint import _checksum

EVALUATE = ("evaluate", "run", "--data", "pictures")
ESCAPE = "\x1b]0;title\x07\x1b[2J"
DEEP = "[" * 100_000 + "]" * 100_000
HUGE = 10**9


def given(base: Path, spoil: Callable[[Path], object], checkpoints: bool = True) -> Callable[[Path], None]:
    """A folder with data and a run that is spoiled; without checkpoints it is made sooner."""
    without = shutil.ignore_patterns(*([] if checkpoints else ["checkpoints"]))

    def prepare(here: Path) -> None:
        shutil.copytree(base / "pictures", here / "pictures")
        shutil.copytree(base / "clip", here / "run", ignore=without)
        spoil(here / "run")

    return prepare


def whole(base: Path, spoil: Callable[[Path], object]) -> Callable[[Path], None]:
    """As :func:`given`, of a run that is only evaluated."""
    return given(base, spoil, checkpoints=False)


def text_of(path: Path, change: Callable[[str], str]) -> None:
    path.write_text(change(path.read_text()))


def json_of(path: Path, change: Callable[[Any], Any]) -> None:
    values = json.loads(path.read_text())
    path.write_text(json.dumps(change(values) or values))


# Weights.


def with_header(path: Path, header: bytes, length: int | None = None) -> None:
    """The same tensors behind another header."""
    content = path.read_bytes()
    old = struct.unpack("<Q", content[:8])[0]
    path.write_bytes(struct.pack("<Q", len(header) if length is None else length) + header + content[8 + old :])


def header_of(path: Path, change: Callable[[dict], Any]) -> None:
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + struct.unpack("<Q", content[:8])[0]])
    header.pop("__metadata__", None)
    with_header(path, json.dumps(change(header) or header).encode())


def tensors_of(path: Path, change: Callable[[dict], Any]) -> None:
    tensors = load_file(path)
    path.write_bytes(save(change(tensors) or tensors))


def first(tensors: Mapping) -> str:
    return sorted(tensors)[0]


def spoiled_files() -> dict[str, Callable[[Path], object]]:
    """How any safetensors file may be damaged, by name."""

    def cut(share: float) -> Callable[[Path], object]:
        return lambda path: path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])

    def offsets(low: int, high: int) -> Callable[[Path], object]:
        return lambda path: header_of(path, lambda h: h[first(h)].update(data_offsets=[low, high]))

    def entry(**values: Any) -> Callable[[Path], object]:
        return lambda path: header_of(path, lambda h: h[first(h)].update(values))

    return {
        "empty": lambda path: path.write_bytes(b""),
        "seven bytes": lambda path: path.write_bytes(b"1234567"),
        "cut in the header": cut(0.001),
        "cut in the middle": cut(0.5),
        "without its last byte": lambda path: path.write_bytes(path.read_bytes()[:-1]),
        "with a byte more": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
        "a header of no JSON": lambda path: with_header(path, b"{nonsense"),
        "a deep header": lambda path: with_header(path, b'{"a":' * 60_000),
        "a header that is a list": lambda path: with_header(path, b"[]"),
        "a header of exabytes": lambda path: with_header(path, b"{}", 2**63),
        "a header of 99 MB": lambda path: with_header(path, b"{}", 99 * 10**6),
        "offsets outside": offsets(0, 2**40),
        "offsets in reverse": offsets(64, 0),
        "negative offsets": offsets(-8, 8),
        "overlapping offsets": offsets(0, 4),
        "a shape that overflows": entry(shape=[2**40, 2**40]),
        "a negative shape": entry(shape=[-1, 64]),
        "an unknown kind": entry(dtype="F7"),
        "a kind of another size": entry(dtype="F64"),
        "a pickle": lambda path: path.write_bytes(b"\x80\x04cos\nsystem\n(S'touch sprung'\ntR."),
        "a zip": lambda path: path.write_bytes(b"PK\x03\x04" + bytes(200)),
        "a folder": lambda path: (path.unlink(), path.mkdir()),
        "a pipe that nobody writes": lambda path: (path.unlink(), os.mkfifo(path)),
        "gone": Path.unlink,
    }


def other_tensors() -> dict[str, Callable[[Path], object]]:
    """Whole files that do not belong to their model, by what they hold."""

    def kind(dtype: torch.dtype) -> Callable[[Path], object]:
        return lambda path: tensors_of(
            path, lambda t: t.update({first(t): torch.zeros(t[first(t)].shape, dtype=dtype)})
        )

    def renamed(name: str) -> Callable[[Path], object]:
        return lambda path: tensors_of(path, lambda t: t.update({name: t.pop(first(t))}))

    whole = (torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64, torch.bool, torch.complex64)
    return {
        **{f"{dtype} for numbers": kind(dtype) for dtype in whole},
        "one tensor less": lambda path: tensors_of(path, lambda t: t.pop(first(t)) is None),
        "one tensor more": lambda path: tensors_of(path, lambda t: t.update(more=torch.zeros(2))),
        "no tensor": lambda path: path.write_bytes(save({})),
        "another shape": lambda path: tensors_of(path, lambda t: t.update({first(t): torch.zeros(3, 3)})),
        "a scalar": lambda path: tensors_of(path, lambda t: t.update({first(t): torch.zeros(())})),
        "an empty tensor": lambda path: tensors_of(path, lambda t: t.update({first(t): torch.zeros(0, 4)})),
        "a name with an escape": renamed(f"a{ESCAPE}"),
        "a name of 5,000 letters": renamed("x" * 5_000),
        "a name with HTML": renamed("<script>alert(1)</script>"),
        "an empty name": renamed(""),
        "10,000 tensors": lambda path: path.write_bytes(save({f"t{i}": torch.zeros(1) for i in range(10_000)})),
    }


def weights(base: Path) -> Iterator[Attack]:
    """``model.safetensors`` of a run that is evaluated."""
    for name, spoil in (spoiled_files() | other_tensors()).items():
        prepare = whole(base, lambda run, spoil=spoil: spoil(run / "model.safetensors"))
        yield Attack(name, prepare, EVALUATE, says=r"model\.safetensors")


# The configuration.

WRONG = (HUGE, -1, 0.5, "x", None, [], {}, True, float("nan"), 10**400)


def numbers_in(values: Mapping, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Where whole numbers stand in a configuration."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from numbers_in(value, (*path, name))
        elif isinstance(value, int) and not isinstance(value, bool):
            yield (*path, name)


def replaced(values: dict, path: tuple[str, ...], value: Any) -> None:
    for name in path[:-1]:
        values = values[name]
    values[path[-1]] = value


def configurations(base: Path) -> Iterator[Attack]:
    """``config.json`` of a run that is evaluated: every number as 10⁹, and whatever else it may say."""
    known = json.loads((base / "clip" / "config.json").read_text())
    says = r"config\.json|is a run of|There is no part"

    def attack(name: str, change: Callable[[dict], Any]) -> Attack:
        return Attack(name, whole(base, lambda run: json_of(run / "config.json", change)), EVALUATE, says)

    for path in numbers_in(known["config"], ("config",)):
        yield attack(f"{'.'.join(path)} of 10⁹", lambda v, path=path: replaced(v, path, HUGE))
    for path in (("config", "image", "depth"), ("config", "text", "width"), ("config", "embedding_width")):
        for wrong in WRONG[1:]:
            yield attack(f"{'.'.join(path)}: {wrong!r:.20}", lambda v, path=path, w=wrong: replaced(v, path, w))
    yield attack("1,000 layers", lambda v: replaced(v, ("config", "image", "depth"), 1000))
    yield attack("an unknown setting", lambda v: v["config"].update({f"a{ESCAPE}": 1}))
    yield attack("no settings", lambda v: v.pop("config") is None)
    yield attack("no number of blocks", lambda v: v["config"]["image"].pop("depth") and None)
    for name in ("clpi", "../clip", "/etc/passwd", "os", "", f"clip{ESCAPE}", "x" * 5_000, 5, None, ["clip"], "a.py"):
        yield attack(f"a system {name!r:.20}", lambda v, name=name: v.update(system=name))
    for key, value in (
        ("stage", "x"),
        ("objectives", ["x"]),
        ("objectives", []),
        ("objectives", "itc"),
        ("fields", {}),
        ("fields", 3),
        ("stage", 7),
        ("parts", {"a": "/etc"}),
        ("parts", [1]),
    ):
        yield attack(f"{key}: {value!r}", lambda v, key=key, value=value: v.update({key: value}))
    for field in (name for name, value in known["fields"].items() if value):
        for value in ({}, None, HUGE, [DEEP[:20]], {"image_size": HUGE}, {"max_length": HUGE}):
            yield attack(
                f"field {field}: {value!r:.30}", lambda v, f=field, value=value: v["fields"].update({f: value})
            )
    for name, text in {
        "deep": DEEP,
        "deep objects": '{"a":' * 100_000,
        "empty": "",
        "null": "null",
        "a list": "[1]",
        "NaN": "NaN",
        "not UTF-8": None,
        "a number of 100,000 digits": '{"a": ' + "9" * 100_000 + "}",
        "half": '{"system": "cl',
    }.items():
        content = b"\xff\xfe{}" if text is None else text.encode()
        prepare = whole(base, lambda run, content=content: (run / "config.json").write_bytes(content))
        yield Attack(f"JSON: {name}", prepare, EVALUATE, says)
    for name in ("a folder", "a pipe that nobody writes", "gone"):
        spoil = spoiled_files()[name]
        prepare = whole(base, lambda run, spoil=spoil: spoil(run / "config.json"))
        yield Attack(name, prepare, EVALUATE, r"config\.json")


# The tokenizer.


def tokenizers(base: Path) -> Iterator[Attack]:
    """``tokenizer.json`` with more than mmlearn writes, or less; also as that of others, by its special tokens."""
    catastrophe = {"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": "x"}
    growing = {"type": "Replace", "pattern": {"String": "e"}, "content": "e" * 10**5}
    parts = {
        "a pattern that takes for ever": ("normalizer", catastrophe),
        "a text of 10 MB before each": ("normalizer", {"type": "Prepend", "prepend": "x" * 10**7}),
        "a letter that becomes 100,000": ("normalizer", growing),
        "20 times a letter that becomes 64": ("normalizer", {"type": "Sequence", "normalizers": [growing] * 20}),
        "a split by a pattern": (
            "pre_tokenizer",
            {"type": "Split", "pattern": {"Regex": "(x+x+)+y"}, "behavior": "Isolated", "invert": False},
        ),
        "a decoder with a pattern": ("decoder", catastrophe),
        "no splitting": ("pre_tokenizer", None),
        "no end": ("post_processor", None),
        "an unknown part": ("normalizer", {"type": f"Evil{ESCAPE}"}),
        "a deep part": ("normalizer", json.loads("[" * 500 + "]" * 500)),
    }
    changes: dict[str, Callable[[dict], Any]] = {
        name: lambda v, key=key, part=part: v.update({key: part}) for name, (key, part) in parts.items()
    }
    for length in (HUGE, 0, -1, 2.5, "x", None):
        changes[f"max_length {length!r}"] = lambda v, length=length: v["truncation"].update(max_length=length)
    changes |= {
        "no truncation": lambda v: v.update(truncation=None),
        "a number of 10⁹": lambda v: v["model"]["vocab"].update({"zz": HUGE}),
        "a negative number": lambda v: v["model"]["vocab"].update({"zz": -1}),
        "two of one number": lambda v: v["model"]["vocab"].update({"zz": 5}),
        "merges of what is not there": lambda v: v["model"]["merges"].append(["zz", "yy"]),
        "merges of three": lambda v: v["model"]["merges"].append(["a", "b", "c"]),
        "no vocabulary": lambda v: v["model"].update(vocab={}),
        "a vocabulary that is a list": lambda v: v["model"].update(vocab=["a"]),
        "more special tokens": lambda v: v["added_tokens"].append({**v["added_tokens"][0], "id": 4, "content": "e"}),
        "a token with an escape": lambda v: v["model"]["vocab"].update({ESCAPE: len(v["model"]["vocab"])}),
        "another kind of model": lambda v: v["model"].update(type="Unigram"),
        "dropout": lambda v: v["model"].update(dropout=0.5),
    }
    for name, change in changes.items():
        prepare = whole(base, lambda run, change=change: json_of(run / "tokenizer.json", change))
        yield Attack(name, prepare, EVALUATE, r"tokenizer\.json|config\.json")
    for name, text in {"deep": DEEP, "empty": "", "a list": "[]", "null": "null", "half": '{"model": {"vo'}.items():
        prepare = whole(base, lambda run, text=text: (run / "tokenizer.json").write_text(text))
        yield Attack(f"JSON: {name}", prepare, EVALUATE, r"tokenizer\.json")
    own = {"max_length": 16, "start_token": 1, "end_token": 2, "pad_token": 0}
    for name, values in {
        "tokens beyond the vocabulary": own | {"start_token": HUGE},
        "a length of 10⁹": own | {"max_length": HUGE},
        "a length of 0": own | {"max_length": 0},
        "a text": own | {"pad_token": "x"},
        "one more": own | {"a": 1},
        "a list": [],
    }.items():
        prepare = whole(base, lambda run, v=values: (run / "special_tokens.json").write_text(json.dumps(v)))
        yield Attack(f"special tokens: {name}", prepare, EVALUATE, r"special_tokens\.json|tokenizer|config\.json")
    for name, (key, part) in parts.items():

        def both(run: Path, key: str = key, part: Any = part) -> None:
            (run / "special_tokens.json").write_text(json.dumps(own))
            json_of(run / "tokenizer.json", lambda v: v.update({key: part}))

        if name not in ("no splitting", "no end"):
            yield Attack(f"a published one with {name}", whole(base, both), EVALUATE, r"tokenizer\.json|config\.json")


# Checkpoints.


def last(run: Path) -> Path:
    """The newest checkpoint, which is made the only one."""
    *older, newest = sorted(run.glob("checkpoints/step-*"))
    for path in older:
        shutil.rmtree(path)
    return newest


def manifests(base: Path) -> Iterator[Attack]:
    """``manifest.json`` of a checkpoint to go on from, most with a checksum that is right: a stranger can make one."""
    words = training("clip", "run", "--resume")
    says = r"no whole checkpoint to go on from|belongs to another|other optimisers|holds an? |is a pipe or a device"

    def signed(change: Callable[[dict], Any]) -> Callable[[dict], dict]:
        def changed(values: dict) -> dict:
            values.pop("checksum")
            change(values)
            return values | {"checksum": _checksum(values)}

        return changed

    def attack(name: str, change: Callable[[dict], Any]) -> Attack:
        return Attack(name, given(base, lambda run: json_of(last(run) / "manifest.json", change)), words, says)

    yield attack("no checksum", lambda v: v.pop("checksum") and None)
    yield attack("another checksum", lambda v: v.update(checksum="0" * 64))
    yield attack("a checksum that is a list", lambda v: v.update(checksum=[]))
    yield attack("another step, unsigned", lambda v: v.update(step=2))
    yield attack("another rate, unsigned", lambda v: v["optimizers"][0][0].update(lr=1.0))
    yield attack("another scale, unsigned", lambda v: v.update(scaler={"scale": 1}))
    for step in (2, HUGE, -3, "3", None, 3.5, [3]):
        yield attack(f"step {step!r}", signed(lambda v, step=step: v.update(step=step)))
    for world in (HUGE, 0, -1, True, "1", None, 2, 1.5, [1]):
        yield attack(f"world {world!r}", signed(lambda v, world=world: v.update(world=world)))
    for files in ({}, [], None, {"model.safetensors": "0"}, {"../../config.json": "0" * 64}):
        yield attack(f"files {files!r:.30}", signed(lambda v, files=files: v.update(files=files)))
    for optimizers in ([], None, [[]], [[{}]], 7, "x", [[{"params": [HUGE]}]], [[{"params": list(range(10_000))}]]):
        yield attack(f"optimizers {optimizers!r:.30}", signed(lambda v, o=optimizers: v.update(optimizers=o)))
    for name, text in {
        "deep": DEEP,
        "deep objects": '{"a":' * 100_000,
        "empty": "",
        "a list": "[]",
        "a text": '"x"',
    }.items():
        prepare = given(base, lambda run, text=text: (last(run) / "manifest.json").write_text(text))
        yield Attack(f"JSON: {name}", prepare, words, says)
    for name in ("a folder", "gone", "a pipe that nobody writes"):
        spoil = spoiled_files()[name]
        yield Attack(name, given(base, lambda run, s=spoil: s(last(run) / "manifest.json")), words, says)


def checkpoint_files(base: Path) -> Iterator[Attack]:
    """The tensors of a checkpoint: damaged; and exchanged, with a manifest that says so."""
    words = training("clip", "run", "--resume")
    says = (
        r"no whole checkpoint to go on from|belongs to another|other optimisers|damaged|not whole|no state of random"
        r"|is a pipe or a device"
    )
    for file in ("model", "optimizer", "random-0"):
        for name, spoil in spoiled_files().items():
            if file == "model" or name in (
                "empty",
                "cut in the middle",
                "a pickle",
                "gone",
                "a pipe that nobody writes",
            ):
                prepare = given(base, lambda run, f=file, s=spoil: s(last(run) / f"{f}.safetensors"))
                yield Attack(f"{file} {name}", prepare, words, says)
    for file in ("model", "optimizer", "random-0"):
        for name, spoil in other_tensors().items():

            def exchanged(run: Path, file: str = file, spoil: Callable = spoil) -> None:
                folder = last(run)
                spoil(folder / f"{file}.safetensors")
                sign(folder)

            if file == "model" or name in ("torch.int64 for numbers", "one tensor less", "another shape", "no tensor"):
                # Without momentum, or with other random numbers, a run goes on as one may.
                codes = (0, 1) if file != "model" and name in ("no tensor", "torch.int64 for numbers") else (1,)
                yield Attack(f"{file}, signed: {name}", given(base, exchanged), words, says, codes)


def sign(folder: Path) -> None:
    """Make the manifest of a checkpoint agree with its files."""
    from mmlearn.training.checkpoint import _digest

    values = json.loads((folder / "manifest.json").read_text())
    values.pop("checksum")
    values["files"] = {name: _digest(folder / name) for name in values["files"]}
    (folder / "manifest.json").write_text(json.dumps(values | {"checksum": _checksum(values)}))
