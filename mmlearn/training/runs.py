"""A run's folder: what was trained, on what, and everything needed to use it again."""

import dataclasses
import json
import math
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import Dataset

import mmlearn
from mmlearn.data.batches import Augmented, Collate, PairCollate, fetch, image_statistics
from mmlearn.data.fusion import FusionCollate
from mmlearn.data.made.questions import ANSWERS
from mmlearn.data.made.regions import SceneDetector
from mmlearn.data.tokenizer import Tokenizer
from mmlearn.files import written_whole
from mmlearn.layers import Config
from mmlearn.models import system as find_system
from mmlearn.training.checkpoint import checkpoints, difference
from mmlearn.training.feeding import FEEDS, check_data, choose_objectives, find_feed
from mmlearn.training.hearing import Heard, fit_to_sounds, sound_collate

LATER = ("language", "mark_repeats")  # settings that config.json has not always held


@dataclass(frozen=True)
class Run:
    """A system with the tokenizer, the picture statistics and the objectives that it was trained with."""

    name: str
    system: nn.Module
    tokenizer: Tokenizer
    mean: list[float]
    std: list[float]
    image_size: int = 64  # of the pictures, also where the system reads regions cut out of them
    objectives: tuple[str, ...] = ()  # of those that may be chosen
    together: bool = True  # all in one batch
    answers: tuple[str, ...] = ()  # that it may give, where it learned vqa
    heard: Heard | None = None  # where it reads sounds

    @property
    def learned(self) -> set[str]:
        """All that the system was trained to do."""
        return {*FEEDS[self.name].always, *self.objectives}

    @property
    def parameters(self) -> int:
        """How many numbers are trained."""
        return sum(parameter.numel() for parameter in self.system.parameters() if parameter.requires_grad)

    def collate(self, *, mark_repeats: bool = False, augmented: bool = False, seed: int = 0) -> Collate:
        """The collation that this system trains with; ``seed`` is of what is masked and swapped.

        Raises ``ValueError`` for regions or waveforms that should be ``augmented``.
        """
        feed = FEEDS[self.name]
        if feed.hears:
            return sound_collate(self, mark_repeats=mark_repeats, augmented=augmented)
        if augmented and feed.regions:
            raise ValueError(f"{self.name} reads regions, and augmentation changes pictures: leave augment out.")
        collate = self.pairs(mark_repeats=mark_repeats)
        if self.objectives:
            numbered = ("itc",) if mark_repeats and "itc" in feed.always else ()
            collate = self.labelled(*self.objectives, *numbered, seed=seed)
        return Augmented(collate) if augmented else collate

    def pairs(self, *, mark_repeats: bool = False) -> PairCollate:
        """Pictures with captions and nothing hidden, for a system that reads pixels."""
        return PairCollate(self.tokenizer, mean=self.mean, std=self.std, mark_repeats=mark_repeats)

    def labelled(self, *objectives: str, seed: int = 0) -> FusionCollate:
        """Batches with the labels of these objectives, and with regions if the system reads them."""
        feed = FEEDS[self.name]
        return FusionCollate(
            self.tokenizer,
            objectives,
            detector=SceneDetector() if feed.regions else None,
            mean=self.mean,
            std=self.std,
            whole_words=feed.whole_words,
            together=self.together,
            answers=self.answers,
            seed=seed,
        )

    def check_processes(self, count: int) -> None:
        """``ValueError`` where each of so many processes would draw another objective, or leave a head untrained."""
        wanted = FEEDS[self.name].objectives
        if count > 1 and (set(self.objectives) != set(wanted) or not self.together):
            raise ValueError(
                f"In several processes {self.name} learns {', '.join(wanted)} in every batch: add --together, and "
                "leave --objectives out."
            )

    def to_dict(self) -> dict[str, Any]:
        """What ``config.json`` says."""
        return {
            "mmlearn": mmlearn.__version__,
            "system": self.name,
            "config": self.system.config.to_dict(),
            "mean": self.mean,
            "std": self.std,
            "image_size": self.image_size,
            "objectives": list(self.objectives),
            "together": self.together,
            "answers": list(self.answers),
        } | ({"heard": dataclasses.asdict(self.heard)} if self.heard else {})


def preset_of(name: str, preset: str) -> Config:
    """The configuration of this name. ``ValueError`` for a system that is not trained by name, or another preset."""
    find_feed(name)
    return find_system(name)[1].preset(preset)


def new_run(
    name: str,
    data: Dataset,
    *,
    preset: str = "tiny",
    vocab_size: int = 1024,
    max_length: int = 32,
    seed: int = 0,
    objectives: Sequence[str] | None = None,
    together: bool = False,
    queue_size: int | None = None,
) -> Run:
    """Build a system for this data: its preset, with the vocabulary, text length and picture size that the data has.

    One that hears also learns the data's words or clusters, see :func:`~mmlearn.training.hearing.fit_to_sounds`.

    The tokenizer is trained on up to 5,000 captions spread through the data. ``objectives`` are those of the paper
    unless given, and so is whether a batch serves one or all ``together``. ``queue_size`` of ALBEF and BLIP is the
    preset's unless given. Raises ``ValueError`` for a system that does not learn from pairs, an unknown preset or
    objective, data without what the system reads, or a picture size that does not fit the patches.
    """
    feed, config = find_feed(name), preset_of(name, preset)
    model, _ = find_system(name)
    objectives = choose_objectives(name, config, objectives)
    first = fetch(data, [0])[0]
    check_data(name, objectives, first)
    if not feed.hears:
        _check_size(config, int(first.image.shape[-1]))
    spread = torch.linspace(0, len(data) - 1, min(len(data), 5000)).long().tolist()
    texts = _texts(data, spread, questions="vqa" in objectives)
    tokenizer = Tokenizer.train(texts, vocab_size=vocab_size, max_length=max_length)
    tokenizer = Tokenizer(tokenizer.engine, int(tokenizer(texts)[1].sum(1).max()))
    if queue_size is not None and not hasattr(config, "queue_size"):
        raise ValueError(f"{name} has no queue: leave queue_size out.")
    mean, std = [0.0] * 3, [1.0] * 3
    if feed.hears:
        config, heard = fit_to_sounds(name, config, data, tokenizer, texts, seed)
        torch.manual_seed(seed)
        return Run(name, model(config), tokenizer, mean, std, objectives=objectives, heard=heard)
    if name != "lit" and not feed.regions:
        mean, std = (part.tolist() for part in image_statistics(data))
    answers = tuple(getattr(data, "labels", ANSWERS)) if "vqa" in objectives else ()
    config = _fit(config, tokenizer, first, len(answers))
    if feed.regions:
        config = _fit_regions(config, first)
    if queue_size is not None:
        config = dataclasses.replace(config, queue_size=queue_size)
    torch.manual_seed(seed)
    system, size = _build(name, model, config), int(first.image.shape[-1])
    return Run(name, system, tokenizer, mean, std, size, objectives, together or feed.together, answers)


def _texts(data: Dataset, indices: list[int], questions: bool) -> list[str]:
    """The captions of these samples, and questions; without pictures where the data set has ``caption(index)``."""
    if hasattr(data, "caption") and not questions:
        return [data.caption(index) for index in indices]
    parts = (fetch(data, indices[start : start + 256]) for start in range(0, len(indices), 256))
    pairs = [(sample.caption, sample.question.text if questions else "") for part in parts for sample in part]
    return [text for pair in pairs for text in pair if text]


def _check_size(config: Config, size: int) -> None:
    config = getattr(config, "image", config)
    patch = getattr(config, "patch_size", getattr(config, "stride", 1))
    if size < patch:
        raise ValueError(f"Pictures of {size} pixels are smaller than a patch of {patch}.")


def _fit(config: Config, tokenizer: Tokenizer, sample: Any, answers: int) -> Config:
    """The configuration for texts, pictures and ``answers`` as they are. ``text`` and ``image`` are encoders in it."""
    text = dict(vocab_size=tokenizer.vocab_size, max_length=tokenizer.max_length)
    if hasattr(config, "text"):
        text |= dict(pad_token=tokenizer.pad_token) if hasattr(config.text, "pad_token") else {}
        text = {"text": dataclasses.replace(config.text, **text)}
    changes = text
    size = dict(image_size=int(sample.image.shape[-1]))
    if hasattr(config, "image"):
        changes["image"] = dataclasses.replace(config.image, **size)
    elif hasattr(config, "image_size"):
        changes |= size
    for name in ("end_token", "pad_token"):
        if hasattr(config, name):
            changes[name] = getattr(tokenizer, name)
    if hasattr(config, "answers"):
        changes["answers"] = answers
    return dataclasses.replace(config, **changes)


def _fit_regions(config: Config, sample: Any) -> Config:
    """The configuration for regions as the detector finds them, with as many features and classes."""
    found = SceneDetector()([sample])
    changes = {"region_width": found["regions"].shape[-1], "region_classes": found["region_classes"].shape[-1]}
    changes |= {"region_attributes": 0} if hasattr(config, "region_attributes") else {}
    return dataclasses.replace(config, **changes)


def _build(name: str, model: type[nn.Module], config: Any) -> nn.Module:
    if name != "lit":
        return model(config)
    from mmlearn.models.vision.backbone import load_backbone

    return model(config, load_backbone())


def save_run(run: Run, folder: str | Path, **more: Any) -> None:
    """Write ``tokenizer.json`` and ``config.json``, with ``more`` entries; ``fit`` adds ``model.safetensors``."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    run.tokenizer.save(folder)
    with written_whole(folder / "config.json") as unfinished:  # last and at once: with it the folder is a run
        unfinished.write_text(json.dumps(run.to_dict() | more, indent=1) + "\n")


def load_run(folder: str | Path) -> Run:
    """Read a trained run, in evaluation mode.

    Raises ``FileNotFoundError`` for a folder without one, and ``ValueError`` for files that are damaged or do not
    belong together.
    """
    folder = Path(folder)
    config, weights = folder / "config.json", folder / "model.safetensors"
    for path in (config, weights):
        if not path.is_file():
            raise FileNotFoundError(
                f"{folder} holds no {path.name}; give the output folder of a finished mmlearn train."
            )
    tokenizer = Tokenizer.load(folder)
    try:
        run = _read(json.loads(config.read_text()), tokenizer)
    except (ValueError, LookupError, TypeError, AttributeError, RuntimeError, ArithmeticError) as error:
        raise ValueError(f"{config} was not written by mmlearn train, or is damaged: {error}") from error
    text = getattr(run.system.config, "text", run.system.config)
    reads = hasattr(text, "max_length")  # systems that only hear do not
    if reads and (tokenizer.vocab_size, tokenizer.max_length) != (text.vocab_size, text.max_length):
        raise ValueError(
            f"{folder / 'tokenizer.json'} does not belong to its config.json: it has {tokenizer.vocab_size} tokens and "
            f"texts of {tokenizer.max_length}, the model {text.vocab_size} and {text.max_length}."
        )
    for name in ("end_token", "pad_token"):
        right = getattr(tokenizer, name)
        if (found := getattr(run.system.config, name, right)) != right:
            raise ValueError(f"{config} does not fit its tokenizer.json, whose {name} is {right}, not {found}.")
    try:
        tensors = load_file(weights)
    except SafetensorError as error:
        raise ValueError(f"{weights} is no whole safetensors file ({error}).") from error
    if found := difference(tensors, run.system.state_dict()):
        raise ValueError(f"{weights} does not fit its config.json: {found}.")
    run.system.load_state_dict(tensors)
    return run


def _read(values: Any, tokenizer: Tokenizer) -> Run:
    """The run that a ``config.json`` describes, with weights as they are at the start."""
    name = values["system"]
    find_feed(name)
    model, configuration = find_system(name)
    mean, std = [float(x) for x in values["mean"]], [float(x) for x in values["std"]]
    if len(mean) != 3 or len(std) != 3 or not all(map(math.isfinite, mean)) or not all(0 < x < math.inf for x in std):
        raise ValueError(f"mean and std are three numbers each, and std above 0, not {mean} and {std}.")
    size = int(values.get("image_size", 64))
    if size < 1:
        raise ValueError(f"image_size is at least 1, not {size}.")
    config = configuration.from_dict(values["config"])
    objectives = choose_objectives(name, config, values.get("objectives") or None)
    if find_feed(name).hears:
        heard = Heard.from_dict(values["heard"])
        heard.check(name, config)
        return Run(name, model(config).eval(), tokenizer, mean, std, size, objectives, heard=heard)
    answers = tuple(map(str, values.get("answers") or ANSWERS)) if "vqa" in objectives else ()
    if answers and len(answers) != config.answers:
        raise ValueError(f"the model has {config.answers} answers, and {len(answers)} are named.")
    system = _build(name, model, config).eval()
    return Run(name, system, tokenizer, mean, std, size, objectives, bool(values.get("together", True)), answers)


def check_output(output: Path, run: Run, training: dict, resume: bool) -> None:
    """Refuse to overwrite a run, and to go on with other settings, captions or sounds than it was started with.

    ``training`` are settings that ``run`` itself does not hold. Raises ``ValueError``, and ``FileNotFoundError`` where
    there is nothing to ``resume``, or where its tokenizer is missing.
    """
    path = output / "config.json"
    if output.exists() and not output.is_dir():
        raise ValueError(f"{output} is a file; give a folder.")
    if not path.exists():
        if resume:
            raise FileNotFoundError(f"{output} holds no run to go on with; start it without --resume.")
        if (output / "model.safetensors").exists():
            raise ValueError(f"{output} holds a model already; give another folder.")
        return
    if not resume:
        raise ValueError(f"{output} holds a run already; add --resume to go on with it, or give another folder.")
    try:
        before = json.loads(path.read_text())
        started = {**before, **before["training"], "system": before["system"], "model": before["config"]}
        heard = Heard.from_dict(before["heard"]) if "heard" in before else None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} was not written by mmlearn train, or is damaged: {error}") from error
    settings = json.loads(json.dumps(run.to_dict() | {"training": training}))  # tuples are lists there
    now = settings["training"] | {name: settings[name] for name in ("system", "image_size", "objectives", "together")}
    known = {name: value for name, value in now.items() if name in started or name not in LATER}
    changed = [f"{k} was {started.get(k)!r}, now {value!r}" for k, value in known.items() if started.get(k) != value]
    if started["model"] != settings["config"]:
        changed.append("the model is another one")
    # Without a checkpoint a run starts once more, and writes its tokenizer again.
    kept = Tokenizer.load(output) if checkpoints(output / "checkpoints") else run.tokenizer
    if not changed and kept.engine.get_vocab() != run.tokenizer.engine.get_vocab():
        changed.append("the captions are others")
    if not changed and heard and not heard.like(run.heard):
        changed.append("the sounds are others")
    if changed:
        raise ValueError(f"{output} was started with other settings: {'; '.join(changed)}.")


@contextmanager
def nothing_half_written(output: Path) -> Iterator[None]:
    """If a run fails before its first checkpoint, what it wrote is removed: there would be nothing to go on from."""
    made = [path for path in (output, *output.parents) if not path.exists()]
    before = set(output.glob("*"))
    try:
        yield
    except BaseException:
        if not checkpoints(output / "checkpoints"):
            for path in set(output.glob("*")) - before:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            for path in made:
                path.rmdir()
        raise
