"""What attacks begin with: small trained runs, and small data of every kind that is in order."""

import json
import shutil
import tarfile
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
from held import command
from PIL import Image
from small_coco import write_coco

TRAIN = ("--steps", "6", "--batch-size", "4", "--checkpoint-every", "2", "--seed", "3")
SIZES = ("--image-size", "32", "--vocab-size", "280")
# Each run by its name: what is trained, on what, and how.
RUNS = {
    "clip": ("clip", "--data", "pictures", *SIZES),
    "albef": ("albef", "--data", "pictures", *SIZES, "--set", "queue_size=8"),
    "bert": ("bert", "--data", "pictures", "--vocab-size", "280"),
    "gpt2": ("gpt2", "--data", "pictures", "--vocab-size", "280"),
    "wav2vec2": ("wav2vec2", "--data", "sounds"),
}


def training(name: str, output: str, *more: str) -> tuple[str, ...]:
    """The command that trains one of ``RUNS``."""
    return ("train", *RUNS[name], *TRAIN, "--output", output, *more)


def write_images(folder: Path, count: int = 16) -> Path:
    """Pictures with captions, half of them to be evaluated on."""
    folder.mkdir(parents=True)
    lines = ["image,caption,split"]
    for i in range(count):
        shades = np.random.default_rng(i).integers(0, 255, (36, 40, 3), np.uint8)
        Image.fromarray(shades).save(folder / f"{i}.png")
        lines.append(f"{i}.png,picture number {i} of some,{'test' if i % 2 else 'train'}")
    (folder / "captions.csv").write_text("\n".join(lines) + "\n")
    return folder


def write_sound(path: Path, seconds: float = 0.3, pitch: float = 440) -> None:
    """A tone as a WAV."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        tone = np.sin(np.arange(int(16_000 * seconds)) * 2 * np.pi * pitch / 16_000) * 9_000
        file.writeframes(tone.astype("<i2").tobytes())


def write_sounds(folder: Path, count: int = 12) -> Path:
    """Sounds with captions."""
    folder.mkdir(parents=True)
    for i in range(count):
        write_sound(folder / f"{i}.wav", 0.3 + 0.02 * i, 300 + 40 * i)
    lines = [f"{i}.wav,tone number {i},{'test' if i % 3 == 0 else 'train'}" for i in range(count)]
    (folder / "captions.csv").write_text("\n".join(["sound,caption,split", *lines]) + "\n")
    return folder


def write_shard(path: Path, count: int = 6) -> Path:
    """Pictures and captions as WebDataset has them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    source = write_images(path.parent / ".source", count)
    with tarfile.open(path, "w") as archive:
        for i in range(count):
            (source / f"{i}.json").write_text(json.dumps({"caption": f"picture {i}"}))
            archive.add(source / f"{i}.png", f"{i}.png")
            archive.add(source / f"{i}.json", f"{i}.json")
    shutil.rmtree(source)
    return path


def write_data(folder: Path) -> None:
    """Every kind of data."""
    write_images(folder / "pictures")
    write_sounds(folder / "sounds")
    write_coco(folder / "coco")
    write_shard(folder / "shards" / "train-0.tar")


def write_runs(start: Callable, folder: Path, names: tuple[str, ...] = tuple(RUNS)) -> None:
    """Train runs beside their data. This also says that the same commands work where nothing is spoiled."""
    write_data(folder)
    for name in names:
        said = command(start, training(name, name), folder, folder / f".{name}-said", seconds=300)
        if said.code != 0:
            raise RuntimeError(f"{name} was not trained: {said.err[-2000:]}")
