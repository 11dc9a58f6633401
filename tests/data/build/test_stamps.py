"""How the archive of stamps is made, on a small package of Debian's format, and what came of it."""

import gzip
import io
import json
import lzma
import tarfile
import zipfile

import numpy as np
import pytest
from sound_files import encoded, tone

from mmlearn.data.build import stamps as stamps_archive
from mmlearn.data.build.stamps import (
    equally_loud,
    mono,
    ogg_checksum,
    ogg_pages,
    opus,
    read_captions,
    unpack_debian,
    without_chance,
)
from mmlearn.data.packaged.archives import ARCHIVES
from mmlearn.data.packaged.stamps import SPOKEN
from mmlearn.data.readers.sound import RATE


def vorbis(wave, rate=44_100):
    return encoded(wave, rate, "OGG", "VORBIS")


def png(colour):
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGBA", (100, 80), colour).save(file, "PNG")
    return file.getvalue()


def member(name, content):
    """A member of an ar archive."""
    header = f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode()
    assert len(header) == 60
    return header + content + b"\n" * (len(content) % 2)


def debian(files):
    """A Debian package with these files."""
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as target:
        for name, content in files.items():
            item = tarfile.TarInfo(f"./{name}")
            item.size = len(content)
            target.addfile(item, io.BytesIO(content))
    control = member("control.tar.xz", b"odd")
    return (
        b"!<arch>\n"
        + member("debian-binary", b"2.0\n")
        + control
        + member("data.tar.xz", lzma.compress(tar.getvalue()))
    )


@pytest.fixture(scope="module")
def package():
    speech = tone(seconds=0.5, rate=44_100)
    stereo = np.stack([tone(440, 0.4, 22_050), np.zeros(8820, np.float32)], 1)
    stamps = {
        "animals/dog.png": png("brown"),
        "animals/dog.txt": b"A dog.\nfr.utf8=Un  chien. \npt_BR.utf8=Um cachorro.\nen_GB.utf8=A dog.\nde.utf8=\n",
        "animals/dog.ogg": vorbis(stereo, 22_050),
        "animals/dog_desc_fr.ogg": vorbis(speech),
        "animals/dog_desc_nn.ogg": vorbis(speech),
        "animals/dog_mirror.png": png("brown"),
        "animals/ghost.png": png("white"),
        "animals/ghost.txt": "A ghost.\r\nfr.utf8=Un fantôme.\r\nsr@latin.utf8=Duh.\r\npt_BR.utf8=Alma.\r\n".encode(),
        "animals/ghost.ogg": vorbis(np.zeros(8000, np.float32), 8000),
        "animals/ghost_desc_ru.ogg": vorbis(tone(440, 0.3, 8000), 8000),
        "vehicles/emergency/firetruck.png": png("red"),
        "vehicles/emergency/firetruck.txt": b"A fire truck.\n",
        "vehicles/emergency/firetruck.ogg": vorbis(speech),
        "symbols/math/1.png": png("black"),
        "symbols/math/1.txt": b"One.\n",
        "symbols/math/1.ogg": vorbis(speech),
        "seasonal/gift.txt": b"A gift without a picture.\n",
        "seasonal/gift_desc_fr.ogg": vorbis(speech),
    }
    files = {f"{stamps_archive.ROOT}{name}": content for name, content in stamps.items()}
    files |= {f"{stamps_archive.DOCUMENTS}changelog.gz": gzip.compress(b"changes"), "usr/bin/other": b"no"}
    return debian(files | {f"{stamps_archive.DOCUMENTS}copyright": b"GPL"})


def test_a_package_becomes_an_archive_the_same_each_time(package, tmp_path, monkeypatch):
    path = tmp_path / "stamps.deb"
    path.write_bytes(package)
    monkeypatch.setattr(stamps_archive, "CAPTIONS", 2)
    (files, counts), again = (stamps_archive.build_stamps({"tuxpaint-stamps-default": path}) for _ in range(2))
    assert again == (files, counts)
    captions = json.loads(gzip.decompress(files["captions.json.gz"]))
    assert list(captions) == ["en", "fr", "pt-BR"]  # Serbian has one caption only, British English is English
    assert captions["fr"] == {"animals/dog": "Un chien.", "animals/ghost": "Un fantôme."}
    zips = {name: zipfile.ZipFile(io.BytesIO(files[name])) for name in files if name.endswith(".zip")}
    assert set(zips) == {"pictures.zip", "effects.zip", *(f"speech-{language}.zip" for language in SPOKEN)}
    assert zips["effects.zip"].namelist() == [
        "animals/dog.ogg"
    ]  # no silence, nothing that is not free, no spoken digit
    assert zips["speech-fr.zip"].namelist() == ["animals/dog.ogg"]
    assert zips["speech-ru.zip"].namelist() == ["animals/ghost.ogg"]
    assert zips["pictures.zip"].namelist() == [
        "animals/dog.webp",
        "animals/ghost.webp",
        "symbols/math/1.webp",
        "vehicles/emergency/firetruck.webp",
    ]
    assert files["CREDITS-changes.txt"] == b"changes"
    assert files["CREDITS-copyright.txt"] == b"GPL"
    assert counts["pictures"] == 4
    assert counts["captions"] == {"en": 4, "fr": 2, "pt-BR": 2}
    assert counts["sounds"] == {f"speech-{each}": int(each in ("fr", "ru")) for each in SPOKEN} | {"effects": 1}


def test_what_is_no_package_is_refused(tmp_path):
    path = tmp_path / "x.deb"
    for content, message in ((b"PK", "does not begin as an ar archive"), (b"!<arch>\n", "holds no data.tar")):
        path.write_bytes(content)
        with pytest.raises(SystemExit, match=message):
            unpack_debian(path, stamps_archive.re.compile(""))


def test_a_text_without_translations():
    assert read_captions({"a": "A  dog.", "b": "A cat.\n# a comment"}) == {"en": {"a": "A dog.", "b": "A cat."}}


@pytest.mark.parametrize("rate", [5_000, 8_000, 16_000, 22_050, 44_100])
def test_sounds_of_any_rate_keep_their_length_and_their_tone(rate):
    wave = mono(vorbis(tone(440, 0.5, rate), rate))
    assert wave.dtype == np.float32
    assert abs(len(wave) - 8000) <= 1
    spectrum = np.abs(np.fft.rfft(wave))
    assert abs(np.fft.rfftfreq(len(wave), 1 / RATE)[spectrum.argmax()] - 440) < 3


@pytest.mark.parametrize("loudness", [0.001, 0.1, 2.0])
def test_sounds_become_equally_loud(loudness):
    loud = equally_loud(tone(amplitude=loudness))
    assert np.sqrt((loud**2).mean()) == pytest.approx(0.1, rel=1e-4)
    click = np.zeros(8000, np.float32)
    click[100] = loudness
    assert np.abs(equally_loud(click)).max() == pytest.approx(0.9, rel=1e-4)


def pages(file):
    """The pages of an Ogg file, whose checksums are right."""
    found = list(ogg_pages(file))
    for head, body in found:
        assert ogg_checksum(head[:22] + bytes(4) + head[26:] + body) == head[22:26]
    return found


def serials(file):
    return {head[14:18] for head, _ in pages(file)}


def test_opus_is_the_same_each_time_and_sounds_the_same():
    import soundfile

    wave = equally_loud(tone(440, 3.3) + tone(1234, 3.3))
    file = opus(wave)
    assert file == opus(wave)
    assert len(file) < 9_000
    read, rate = soundfile.read(io.BytesIO(file), dtype="float32")
    assert (rate, read.shape) == (RATE, wave.shape)
    assert np.corrcoef(read, wave)[0, 1] > 0.98
    assert len(pages(file)) >= 4  # the head, the comments, and one for each second
    assert serials(file) == {bytes(4)}
    assert without_chance(file) == file


def test_what_is_taken_from_an_opus_file_is_chance_and_padding_only():
    import soundfile

    raw = encoded(tone(440, 1.5), RATE, "OGG", "OPUS")
    assert len(pages(raw)) > 2  # libogg's own checksums are as ours
    short = without_chance(raw)
    assert len(short) < len(raw) - 700
    before, after = (soundfile.read(io.BytesIO(file), dtype="float32")[0] for file in (raw, short))
    np.testing.assert_array_equal(before, after)


# What lies in the package.


@pytest.mark.parametrize("kind", ["effects", *(f"speech-{language}" for language in SPOKEN)])
def test_the_sounds_of_the_archive(kind):
    import soundfile

    manifest = json.loads((ARCHIVES / "stamps" / "manifest.json").read_bytes())
    with zipfile.ZipFile(ARCHIVES / "stamps" / f"{kind}.zip") as sounds:
        items = sounds.infolist()
        names = [item.filename for item in items]
        assert names == sorted(names, key=lambda name: name[:-4])
        assert len(items) == manifest["counts"]["sounds"][kind]
        assert all(item.compress_type == zipfile.ZIP_STORED for item in items)  # Opus cannot be made smaller
        for item in items[::25]:
            file = sounds.read(item)
            assert serials(file) == {bytes(4)}
            info = soundfile.info(io.BytesIO(file))
            assert (info.format, info.subtype, info.samplerate, info.channels) == ("OGG", "OPUS", RATE, 1)


def test_the_images_of_the_archive():
    from PIL import Image

    with zipfile.ZipFile(ARCHIVES / "stamps" / "pictures.zip") as images:
        items = images.infolist()
        assert len(items) == 951
        for item in items[::40]:
            image = Image.open(io.BytesIO(images.read(item)))
            assert (image.format, image.size) == ("WEBP", (64, 64)), item.filename


def test_upstream_is_credited_in_its_own_words():
    folder = ARCHIVES / "stamps"
    contributors = (folder / "CREDITS-contributors.txt").read_text(encoding="utf-8")
    assert "Stas Zytkiewicz" in contributors
    assert "Descriptive sounds: Estefanía Ortiz" in contributors
    assert "Krasimir Petkov" in (folder / "CREDITS-changes.txt").read_text(encoding="utf-8")
    assert "License: GPL-2" in (folder / "CREDITS-copyright.txt").read_text(encoding="utf-8")
    assert "Version 1.2, November 2002" in (folder / "LICENSE-GFDL-1.2.txt").read_text(encoding="utf-8")
    assert json.loads((folder / "manifest.json").read_bytes())["licences"] == ["GPL-2.0-or-later"]
