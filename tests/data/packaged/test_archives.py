"""What all packaged sets promise: pictures and sounds are decoded once, and a damaged archive says what to do."""

import re
import subprocess
import sys

import pytest
import torch
from testing_tools import refused
from torch.utils.data import DataLoader

from mmlearn.data import load
from mmlearn.data.packaged import archives, stamps
from mmlearn.data.packaged.emoji import Emoji, OpenMoji
from mmlearn.data.packaged.stamps import Stamps

SETS = {"emoji": lambda: Emoji("unseen-both"), "stamps": lambda: Stamps("val", language="ca", speech=True)}


@pytest.fixture
def decoded(monkeypatch):
    """The names of what is decoded."""
    names = []
    for module, reader in ((archives, "read_image"), (stamps, "read_sound")):
        read = getattr(module, reader)
        monkeypatch.setattr(module, reader, lambda *a, read=read, **b: names.append(b["name"]) or read(*a, **b))
    return names


def parts(sample):
    """The pictures and sounds of a sample."""
    found = (getattr(sample, name, None) for name in ("image", "speech", "effect"))
    return [part for part in found if part is not None]


def same(one, other):
    assert (one.caption, one.category) == (other.caption, other.category)
    for part, expected in zip(parts(one), parts(other), strict=True):
        torch.testing.assert_close(part, expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", SETS)
def test_nothing_is_decoded_until_asked_for_and_then_once(decoded, name):
    data = SETS[name]()
    assert len(data.captions) == len(data)
    assert decoded == []
    first = data[7]
    assert len(decoded) == len(parts(first))
    same(data[7], first)
    data[8]
    assert len(decoded) == len(set(decoded)) or name == "stamps"
    assert len(decoded) == len(parts(first)) + len(parts(data[8]))


def test_the_spoken_caption_alone_is_had_without_image_and_effect(decoded):
    data = Stamps("train", language="ru")
    silent = next(i for i, name in enumerate(data.names) if name not in data._speech["ru"])
    both = next(i for i, name in enumerate(data.names) if name in data._speech["ru"] and name in data._effects)
    assert data.spoken(silent) is None
    alone = data.spoken(both)
    assert decoded == [f"{data.names[both]}.ogg"]
    torch.testing.assert_close(alone, Stamps("train", language="ru")[both].speech, rtol=0, atol=0)


@pytest.mark.parametrize("name", SETS)
def test_a_sample_is_the_same_in_any_order_in_workers_and_whatever_a_caller_writes_on_it(name):
    data, alone = SETS[name](), SETS[name]()
    loader = DataLoader(data, batch_size=25, num_workers=2, collate_fn=lambda batch: batch)
    read = [sample for batch in loader for sample in batch]
    assert [sample.caption for sample in read] == data.captions
    for index in [60, 2, -1, 2, *range(0, len(data), 15)]:
        same(data[index], alone[index])
        same(data[index], read[index])
        for part in parts(data[index]):
            part.zero_()
    for index in (len(data), -len(data) - 1):
        with pytest.raises(IndexError):
            data[index]


@pytest.mark.parametrize("size", [1, 48, 100])
def test_other_sizes_show_the_same(size):
    for small, stored in ((Emoji("unseen-both", size=size), Emoji("unseen-both")), (Stamps(size=size), Stamps())):
        for index in (0, 100, 200):
            image = small[index].image
            assert image.shape == (3, size, size)
            expected = torch.nn.functional.interpolate(
                stored[index].image[None], (size, size), mode="bicubic", antialias=True
            )
            assert (image - expected[0]).abs().mean() < 0.011


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Emoji("test"), "no split 'test'; choose from train, unseen-style, unseen-concept, unseen-both"),
        (lambda: OpenMoji("train"), "no split 'train'; choose from unseen-style, unseen-both"),
        (lambda: Emoji(language="tlh"), "no names in 'tlh'; did you mean 'th'[?] choose from en, ar, "),
        (
            lambda: Emoji(styles=["fluent-3d"]),
            r"'train' of emoji has the styles noto, noto-v1, twemoji, not \['fluent-3d'\]",
        ),
        (lambda: Emoji("unseen-style", styles=["openmoji"]), "has the styles fluent-flat, fluent-3d, not"),
        (lambda: Emoji(styles=[]), "has the styles noto"),
        (lambda: Emoji(size=0), "at least 1 pixel wide, got size 0"),
        (lambda: Stamps("tset"), "stamps has no split 'tset'; did you mean 'test'[?] choose from train, val, test"),
        (lambda: Stamps(language="tlh"), "stamps has no captions in 'tlh'.* choose from en, af, am, "),
        (lambda: Stamps(language="en", speech=True), "Nobody says the captions in 'en'; choose from bg, ca, es, fr,"),
        (lambda: Stamps(size=0), "at least 1 pixel wide, got size 0"),
        (lambda: load("stamps", speach=True), "has no option 'speach'; did you mean 'speech'"),
    ],
)
def test_what_cannot_be_had_is_said_with_the_choices(build, message):
    refused(message, build)


# Damaged archives.


@pytest.mark.parametrize("damage", ["missing", "truncated", "empty"])
@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("emoji", "pictures.zip"),
        ("emoji", "names.json.gz"),
        ("emoji", "concepts.json"),
        ("stamps", "pictures.zip"),
        ("stamps", "captions.json.gz"),
        ("stamps", "speech-fr.zip"),
        ("stamps", "effects.zip"),
    ],
)
def test_a_missing_or_damaged_file_says_what_to_do(archive_copy, name, file, damage):
    path = archive_copy / name / file
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: -1000 if damage == "truncated" else 0])
    with pytest.raises((FileNotFoundError, ValueError)) as caught:
        load(name)[0]
    said = rf"{file} is (missing\.|damaged \(.*) Reinstall mmlearn, or run `python -m mmlearn.data.build {name}`"
    assert re.search(said, str(caught.value))
    assert "\n" not in str(caught.value)
    if file == "speech-fr.zip":
        assert Stamps(language="bg")[0].speech is not None  # other languages are unharmed


@pytest.mark.parametrize(
    ("name", "file", "position"),
    [("emoji-openmoji", "pictures.zip", 200), ("stamps", "pictures.zip", 300), ("stamps", "speech-fr.zip", 300)],
)
def test_a_damaged_member_is_noticed_when_it_is_read(archive_copy, name, file, position):
    path = archive_copy / name / file
    content = bytearray(path.read_bytes())
    content[position] ^= 0xFF  # in the first member
    path.write_bytes(content)
    sets = [OpenMoji("unseen-style")] if name != "stamps" else [Stamps(split) for split in stamps.SPLITS]
    with pytest.raises(ValueError, match=rf"{file} is damaged .*CRC.*build {name}`"):
        [data[index] for data in sets for index in range(len(data))]
    assert parts(sets[-1][-1])


def test_importing_them_is_cheap():
    program = (
        "import sys, mmlearn.data.packaged.emoji, mmlearn.data.packaged.stamps, mmlearn.models.vision.backbone, "
        "mmlearn.data.build.archives; print(*sys.modules)"
    )
    imported = subprocess.run([sys.executable, "-c", program], timeout=60, check=True, capture_output=True, text=True)
    assert "mmlearn.data.packaged.stamps" in imported.stdout.split()
    assert not {"PIL", "torchvision", "torchaudio", "soundfile", "resvg_py"} & set(imported.stdout.split())
