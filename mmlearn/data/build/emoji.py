"""How :mod:`mmlearn.data.build.archives` makes the archives ``emoji`` and ``emoji-openmoji`` from packages of npm."""

import gzip
import json
import tarfile
from collections import Counter
from collections.abc import Container, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmlearn.data.build.packing import DRAWN, as_json, draw, open_image, webp, zipped
from mmlearn.data.packaged.archives import reading

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


def _unpack(package: Path) -> dict[str, bytes]:
    """Every file of an npm package."""
    with tarfile.open(package) as tar:
        return {item.name.removeprefix("package/"): tar.extractfile(item).read() for item in tar if item.isfile()}


def code_points(text: str) -> str:
    """``"2764-FE0F"`` → ``"2764"``: lower case, four digits at least, no variation selector."""
    return "-".join(f"{int(part, 16):04x}" for part in text.split("-") if part.lower() != "fe0f")


class IconSet:
    """An iconify package: ``names`` (code points → icon), ``category`` (of each icon) and each icon's drawing.

    A package without code points takes those of ``codes``, icon → code points.
    """

    def __init__(self, package: Path, codes: dict[str, str] | None = None):
        files = _unpack(package)
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

    def images(self, style: str, concepts: Iterable[str]) -> dict[str, bytes]:
        """The icons of these concepts as files of this style."""
        return {f"{style}/{code}.webp": webp(self.draw(code)) for code in concepts if code in self.names}


def read_names(packages: dict[str, Path]) -> dict[str, dict[str, dict[str, Any]]]:
    """Language → code points → ``name`` and ``keywords``."""
    kinds = {
        "annotations": _unpack(packages["cldr-annotations-full"]),
        "annotationsDerived": _unpack(packages["cldr-annotations-derived-full"]),
    }
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


def build_emoji(packages: dict[str, Path]) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Five permissive styles, and the names and keywords of what they draw."""
    names = read_names(packages)
    noto, twemoji, flat = (
        IconSet(packages[f"@iconify-json/{name}"]) for name in ("noto", "twemoji", "fluent-emoji-flat")
    )
    concepts = choose_concepts(noto, names["en"])
    noto_v1 = IconSet(packages["@iconify-json/noto-v1"], twemoji.codes(concepts) | noto.codes(concepts))
    noto_v1.names.pop(REVOLVER)
    styles = {"noto": noto, "noto-v1": noto_v1, "twemoji": twemoji, "fluent-flat": flat}
    images = {name: file for style, icons in styles.items() for name, file in icons.images(style, concepts).items()}
    for file, content in sorted(_unpack(packages["@lobehub/fluent-emoji-3d"]).items()):
        code = code_points(Path(file).stem) if file.startswith("assets/") else ""
        if code in concepts and code in flat.names and code not in TRADEMARKS:
            images[f"fluent-3d/{code}.webp"] = webp(open_image(content))
    kept = {language: {code: of[code] for code in concepts if code in of} for language, of in names.items()}
    files = {
        "pictures.zip": zipped(images),
        "concepts.json": as_json(concepts, indent=0),
        "names.json.gz": gzip.compress(as_json(kept), mtime=0),
    }
    return files, {
        "concepts": len(concepts),
        "pictures": len(images),
        "by_style": _count(images),
        "names": {language: len(of) for language, of in kept.items()},
    }


def build_openmoji(packages: dict[str, Path]) -> tuple[dict[str, bytes], dict[str, Any]]:
    """The share-alike style, drawn for the concepts of the archive ``emoji``."""
    with reading("emoji", "concepts.json") as path:
        concepts = json.loads(path.read_bytes())
    images = IconSet(packages["@iconify-json/openmoji"]).images("openmoji", concepts)
    return {"pictures.zip": zipped(images)}, {"pictures": len(images), "by_style": _count(images)}


def _count(images: Iterable[str]) -> dict[str, int]:
    return dict(Counter(name.split("/")[0] for name in images))
