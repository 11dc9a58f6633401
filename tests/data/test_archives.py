"""The packaged archives: whole, licensed, credited, small, and made by the script that says it made them."""

import gzip
import io
import json
import re
import tarfile
import zipfile
from dataclasses import asdict
from hashlib import sha256

import pytest
import torch

from mmlearn.data.build import archives as build
from mmlearn.data.build import packing, sources
from mmlearn.data.packaged import archives as packaged
from mmlearn.data.packaged.archives import ARCHIVES
from mmlearn.data.packaged.emoji import Emoji
from mmlearn.models.vision.backbone import MEAN, STD, load_backbone

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
    credits = (ARCHIVES / name / "CREDITS.md").read_text(encoding="utf-8")
    assert manifest(name)["sources"]
    for source in manifest(name)["sources"]:
        licence = (ARCHIVES / name / f"LICENSE-{source['licence']}.txt").read_text(encoding="utf-8")
        assert PHRASES[source["licence"]] in licence
        section = next(part for part in credits.split("\n## ") if source["package"] in part)
        for field in ("title", "author", "home", "licence", "version", "changes"):
            assert source[field] in section, (source["package"], field)


def test_share_alike_keeps_to_itself():
    assert manifest("emoji-openmoji")["licences"] == ["CC-BY-SA-4.0"]
    assert manifest("emoji")["licences"] == ["Apache-2.0", "CC-BY-4.0", "MIT", "Unicode-3.0"]
    with zipfile.ZipFile(ARCHIVES / "emoji" / "pictures.zip") as pictures:
        assert not any("openmoji" in name for name in pictures.namelist())


@pytest.mark.parametrize("name", NAMES)
def test_the_archives_are_what_the_script_would_build(name):
    recipe = build.ARCHIVE[name]
    assert manifest(name)["sources"] == [asdict(source) for source in recipe.sources]
    assert manifest(name)["licences"] == sorted({source.licence for source in recipe.sources})
    assert set(manifest(name)["built_with"]) == set(recipe.tools)


@pytest.mark.parametrize(("name", "total"), [("emoji", 7645), ("emoji-openmoji", 1644)])
def test_the_pictures_are_those_of_the_manifest(name, total):
    from PIL import Image

    with zipfile.ZipFile(ARCHIVES / name / "pictures.zip") as pictures:
        items = pictures.infolist()
        codes = [item.filename.removesuffix(".webp") for item in items]
        assert codes == sorted(codes)
        assert {(item.compress_type, item.date_time[:3]) for item in items} == {(zipfile.ZIP_STORED, (1980, 1, 1))}
        styles = [item.filename.split("/")[0] for item in items]
        assert {style: styles.count(style) for style in set(styles)} == manifest(name)["counts"]["by_style"]
        assert len(items) == total
        for item in items[::50]:
            picture = Image.open(io.BytesIO(pictures.read(item)))
            assert (picture.format, picture.mode, picture.size) == ("WEBP", "RGBA", (64, 64)), item.filename


def test_what_microsoft_keeps_for_itself_is_not_here():
    with zipfile.ZipFile(ARCHIVES / "emoji" / "pictures.zip") as pictures:
        names = set(pictures.namelist())
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


def test_icons_are_found_by_code_points_and_by_former_names(tmp_path, monkeypatch):
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
    npm_package(tmp_path / sources.NOTO.file, {name: json.dumps(value).encode() for name, value in files.items()})
    monkeypatch.setattr(build, "fetch", lambda source, downloads: downloads / source.file)
    noto = build.IconSet(sources.NOTO, tmp_path)
    assert noto.names == {"2764": "red-heart", "1f436": "dog", "e001": "dog"}
    assert noto.category == {"red-heart": "Symbols"}
    assert noto.codes(["2764", "1f436"]) == {"red-heart": "2764", "heart": "2764", "dog": "1f436"}
    older = build.IconSet(sources.NOTO, tmp_path, {"dog": "1f436", "mouse": "1f42d"})
    assert older.names == {"1f436": "dog"}

    wide = noto.draw("2764")  # twice as wide as high: stands in the middle, in its own proportions
    assert wide.size == (256, 256)
    assert [wide.getpixel((128, y)) for y in (20, 128, 235)] == [(0, 0, 0, 0), (255, 0, 0, 255), (0, 0, 0, 0)]
    once, twice = packing.webp(wide), packing.webp(wide)
    assert once == twice
    assert packing.zipped({"b/2.x": once, "a/1.x": once}) == packing.zipped({"a/1.x": twice, "b/2.x": twice})


def test_the_edge_of_a_picture_keeps_its_colour():
    from PIL import Image, ImageDraw

    disc = Image.new("RGBA", (256, 264), (0, 0, 0, 0))
    ImageDraw.Draw(disc).ellipse((30, 30, 226, 226), fill=(255, 0, 0, 255))
    small = Image.open(io.BytesIO(packing.webp(disc))).convert("RGBA")
    assert small.size == (64, 64)
    edge = [pixel for pixel in small.get_flattened_data() if 60 < pixel[3] < 200]
    assert len(edge) > 50
    assert min(red for red, _, _, _ in edge) > 200  # black, were the colour of clear pixels mixed in


def test_a_download_that_is_another_file_is_refused(tmp_path):
    (tmp_path / sources.NOTO.file).write_bytes(b"something else")
    with pytest.raises(SystemExit, match=r"noto-1.2.9.tgz has SHA-256 \w{64}, expected 3e918d88"):
        sources.fetch(sources.NOTO, tmp_path)


def test_what_is_missing_to_build_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match="npm is not installed; it fetches @iconify-json/noto"):
        sources.fetch(sources.NOTO, tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "resvg_py", None)
    with pytest.raises(SystemExit, match="pip install resvg-py"):
        packing.draw("<svg/>")


def test_a_built_archive_is_complete_and_the_same_each_time(tmp_path, monkeypatch):
    content = gzip.compress(b"data", mtime=0)
    recipe = build.Archive(lambda downloads: ({"data.gz": content}, {"things": 1}), (sources.OPENMOJI,), ("pillow",))
    monkeypatch.setitem(build.ARCHIVE, "emoji-openmoji", recipe)
    for folder in ("one", "two"):
        build.main(["emoji-openmoji", "--output", str(tmp_path / folder)])
    written = [{path.name: path.read_bytes() for path in (tmp_path / folder).iterdir()} for folder in ("one", "two")]
    assert written[0] == written[1]
    assert set(written[0]) == {"data.gz", "CREDITS.md", "LICENSE-CC-BY-SA-4.0.txt", "manifest.json"}
    assert json.loads(written[0]["manifest.json"])["files"]["data.gz"]["sha256"] == sha256(content).hexdigest()


@pytest.fixture(scope="module")
def backbone():
    return load_backbone(64)


def test_the_backbone_is_frozen_and_stays_in_evaluation_mode(backbone):
    torch.nn.Sequential(backbone).train()
    assert not any(module.training for module in backbone.modules())
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    assert sum(parameter.numel() for parameter in backbone.parameters()) == 2_223_872 - 17_056  # folded norms
    assert {parameter.dtype for parameter in backbone.parameters()} == {torch.float32}
    images = torch.rand(2, 3, 40, 56, requires_grad=True)
    backbone(images).sum().backward()
    assert images.grad.abs().sum() > 0


def test_the_backbone_resizes_and_normalises_by_itself(backbone):
    images = torch.rand(2, 3, 40, 56)
    features = backbone(images)
    assert features.shape == (2, backbone.width) == (2, 1280)
    resized = torch.nn.functional.interpolate(images, (64, 64), mode="bilinear", antialias=True)
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    expected = backbone.features((resized - mean) / std).mean((2, 3))
    torch.testing.assert_close(features, expected)
    torch.testing.assert_close(backbone(resized), expected)
    assert load_backbone(96).features(torch.zeros(1, 3, 96, 96)).shape == (1, 1280, 3, 3)


@pytest.mark.parametrize("shape", [(2, 1, 64, 64), (2, 4, 64, 64), (2, 64, 64, 3), (3, 64, 64)])
@pytest.mark.usefixtures("unchecked")
def test_the_backbone_refuses_what_is_no_picture(backbone, shape):
    """One channel would be normalised as if it were three."""
    with pytest.raises(ValueError, match=re.escape(f"(b, 3, height, width); got torch.float32 {shape}")):
        backbone(torch.zeros(shape))
    with pytest.raises(ValueError, match=r"got torch\.uint8"):
        backbone(torch.zeros(2, 3, 64, 64, dtype=torch.uint8))
    assert backbone(torch.zeros(0, 3, 40, 40)).shape == (0, 1280)


def test_the_backbone_sees_what_two_drawings_have_in_common(backbone):
    features = []
    for style in ("noto", "twemoji"):
        data = Emoji("unseen-concept", styles=[style])
        images = torch.stack([sample.image for sample in data.__getitems__(range(len(data)))])
        with torch.no_grad():
            features.append(backbone(images))
    noto, twemoji = (torch.nn.functional.normalize(each - each.mean(0), dim=1) for each in features)
    found = ((noto @ twemoji.T).argmax(1) == torch.arange(200)).float().mean()
    assert found > 0.3  # chance is 0.005


def test_a_backbone_that_is_damaged_or_missing_or_too_small(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="at least 32 pixels, got input_size 16"):
        load_backbone(16)
    weights = (ARCHIVES / "backbone" / "mobilenet_v2.safetensors").read_bytes()
    monkeypatch.setattr(packaged, "ARCHIVES", tmp_path)
    with pytest.raises(FileNotFoundError, match="build backbone"):
        load_backbone()
    (tmp_path / "backbone").mkdir()
    (tmp_path / "backbone" / "mobilenet_v2.safetensors").write_bytes(weights[:-2])
    with pytest.raises(ValueError, match=r"mobilenet_v2.safetensors is damaged .*build backbone"):
        load_backbone()
