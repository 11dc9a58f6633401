"""Ogg: damage anywhere is found, and nothing is said of whole files; both are read only as far as is asked for."""

import io
import itertools
from functools import partial

import numpy as np
import pytest
import torch
from sound_files import encoded, quiet, said, voice

from mmlearn.data.read.ogg import Page, check_pages, read_page
from mmlearn.data.read.sound import RATE, probe_sound, read_sound, stream_sound

CODECS = ("VORBIS", "OPUS")
refused = partial(said, name="x.ogg", notes=[])


def ogg(codec, seconds, rate=RATE, channels=1):
    return encoded(voice(seconds, rate, channels, noise=0.01), rate, "OGG", codec)


def pages(content):
    """Where each page begins, and where the last one ends."""
    places, place = [], 0
    while place < len(content):
        places.append(place)
        count = content[place + 26]
        place += 27 + count + sum(content[place + 27 : place + 27 + count])
    return [*places, place]


@pytest.fixture(scope="module", params=CODECS)
def whole(request):
    """Twenty seconds, in many pages."""
    content = ogg(request.param, 20)
    assert len(pages(content)) > 10
    assert len(quiet(content)) == 20 * RATE
    return content


@pytest.mark.parametrize("codec", CODECS)
def test_nothing_is_said_of_whole_files(codec):
    rates = (8_000, 16_000, 48_000) if codec == "OPUS" else (8_000, 11_025, 22_050, 44_100, 48_000)
    for rate, channels, seconds in itertools.product(rates, (1, 2), (0.03, 0.5, 1.37, 12)):
        notes = []
        waveform = read_sound(ogg(codec, seconds, rate, channels), name="x", notes=notes)
        assert abs(len(waveform) - seconds * RATE) <= 1
        for word in ("damaged", "missing", "cut", "marked"):
            assert word not in "".join(notes)


def test_any_byte(whole):
    """One wrong byte in a page, in its head, its table or what it holds."""
    places = pages(whole)
    draw = np.random.default_rng(0)
    for start, stop in [*itertools.pairwise(places)][:: max(1, len(places) // 8)]:
        for place in (start, start + 4, start + 20, start + 24, start + 26, *draw.integers(start, stop, 2)):
            broken = bytearray(whole)
            broken[place] ^= 1 + draw.integers(255)
            text = refused(bytes(broken))
            if start >= places[2]:  # before, the sound cannot even be opened
                assert "damaged: " in text or "is cut off: its last page" in text


@pytest.mark.parametrize("how", ["overwritten", "zero", "gone", "added", "here and there"])
def test_damage_in_the_middle(whole, how):
    draw = np.random.default_rng(1)
    first, last = pages(whole)[2], len(whole) - 4000
    for _ in range(10):
        place, broken = draw.integers(first, last), bytearray(whole)
        match how:
            case "overwritten":
                broken[place : place + 3000] = draw.bytes(3000)
            case "zero":
                broken[place : place + 3000] = bytes(3000)
            case "gone":
                del broken[place : place + 1000]
            case "added":
                broken[place:place] = draw.bytes(500)
            case "here and there":
                for one in draw.integers(first, len(whole), 50):
                    broken[one] ^= 1 + draw.integers(255)
        assert "damaged: " in refused(bytes(broken))


def test_what_is_damaged_is_named(whole):
    places = pages(whole)
    broken = bytearray(whole)
    broken[places[4] + 100] ^= 1
    expected = f"x.ogg is damaged: the page of Ogg at byte {places[4]:,} is not as it was written."
    assert refused(bytes(broken)) == f"{expected} Take another copy, or leave it out."
    broken[places[4]] ^= 1
    assert f"is damaged: no page of Ogg begins at byte {places[4]:,}." in refused(bytes(broken))
    without = whole[: places[4]] + whole[places[5] :]
    assert "is damaged: after page 3 of its Ogg comes page 5." in refused(without)
    half = whole[: places[-2]] + b"Ogg"  # what is left of a page
    assert f"x.ogg is cut off or damaged: the page of Ogg at byte {places[-2]:,} is not complete." in refused(half)


def test_a_damaged_head_is_no_other_format(whole):
    broken = bytearray(whole)
    broken[pages(whole)[1] + 40] ^= 1
    assert "is damaged: the page of Ogg at byte" in refused(bytes(broken))


def test_a_recording_of_a_running_stream(whole):
    """Its first pages tell how to read it, and the next is any."""
    places, notes = pages(whole), []
    late = whole[: places[2]] + whole[places[5] :]
    waveform = read_sound(late, name="x.ogg", notes=notes)
    assert RATE < len(waveform) < 19 * RATE
    assert notes == ["x.ogg: its beginning is missing."]


def test_several_in_one(whole):
    other = ogg("VORBIS", 3)
    assert "x.ogg is several sounds one after another, of which only the first would be read" in refused(whole + other)
    assert len(read_sound(whole + other, name="x.ogg", seconds=5, notes=[])) == 5 * RATE


@pytest.mark.parametrize("more", [b"TAG" + bytes(125), bytes(200_000), b"OggS\0", b"x"])
def test_what_follows_the_last_page_does_no_harm(whole, more):
    if more == b"OggS\0":  # taken for the last page
        assert "its last page is not complete" in refused(whole + more)
    else:
        assert torch.equal(quiet(whole + more), quiet(whole))


def test_only_what_is_read_is_looked_at(whole, tmp_path):
    places = pages(whole)
    broken = bytearray(whole)
    broken[places[-3] + 100] ^= 1
    path = tmp_path / "x.ogg"
    path.write_bytes(broken)
    for source in (path, bytes(broken)):
        notes = []
        start = read_sound(source, seconds=4.5, name="x.ogg", notes=notes)
        assert torch.equal(start, read_sound(whole, seconds=4.5, notes=[]))
        assert notes == ["x.ogg: only its first 4.5 s are taken."]
        assert probe_sound(source) == ""
        parts = []
        with pytest.raises(ValueError, match="is damaged"):
            parts.extend(stream_sound(source, 1.0))
        assert torch.equal(torch.cat(parts), quiet(whole)[: len(parts) * RATE])
        assert 4 <= len(parts) < 20
    broken[places[3] + 100] ^= 1
    refused(bytes(broken), seconds=4.5)


def one_page(body):
    """A stream of one page, with the checksum of RFC 3533, computed bit by bit."""
    table = bytes([255] * (len(body) // 255) + [len(body) % 255])
    page = b"OggS\0\x06" + bytes(8) + b"abcd" + bytes(8) + bytes([len(table)]) + table + body
    value = 0
    for byte in page:
        value ^= byte << 24
        for _ in range(8):
            value = (value << 1 ^ (0x04C11DB7 if value >> 31 else 0)) & 0xFFFFFFFF
    return page[:22] + value.to_bytes(4, "little") + page[26:]


def test_flac_within_ogg():
    text = refused(one_page(b"\x7fFLAC\1\0\0\1fLaC" + bytes(38)))
    assert text.endswith("it is FLAC within Ogg; turn it into FLAC by itself, WAV or MP3.")


def test_checksums_are_those_of_the_specification():
    page = one_page(np.random.default_rng(2).bytes(300))
    assert read_page(io.BytesIO(page)).checksum == page[22:26]
    assert list(check_pages(io.BytesIO(page), "x", [])) == [len(page)]
    for place in range(len(page)):
        broken = bytearray(page)
        broken[place] ^= 8
        with pytest.raises(ValueError, match=r"^x is (cut off or )?damaged: "):
            list(check_pages(io.BytesIO(bytes(broken)), "x", []))
    assert [read_page(io.BytesIO(page[:length])).whole for length in (len(page), len(page) - 1, 28, 27, 5, 0)] == [
        True, False, False, False, False, False,
    ]  # fmt: skip
    assert Page(b"", b"", b"").checksum == bytes(4)
