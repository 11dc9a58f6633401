"""A page of pictures and sounds: what it holds, and that nothing in it can be more than text."""

import base64
import re

import torch
from testing_tools import refused

from mmlearn.visualization import listening_page

IMAGE = torch.zeros(3, 4, 4)
WAVE = torch.tensor([0.0, 0.5, -1.0, 1.0, 7.0])


def test_the_sound_on_the_page_is_the_sound():
    page = listening_page([IMAGE, IMAGE], ["one", "two"], [{"spoken": WAVE, "effect": WAVE}, {}], title="all")
    sounds = re.findall(r'src="data:audio/wav;base64,([^"]+)"', page)
    assert len(sounds) == 2
    content = base64.b64decode(sounds[0])
    assert content[:4] == b"RIFF"
    assert int.from_bytes(content[24:28], "little") == 16_000
    found = [int.from_bytes(content[44 + 2 * i : 46 + 2 * i], "little", signed=True) for i in range(5)]
    assert found == [0, 16384, -32767, 32767, 32767]
    assert len(content) == 44 + 10
    assert page.count("<figure>") == page.count("<img ") == 2
    assert "<h1>all</h1>" in page


def test_texts_are_escaped():
    evil = "<script>alert('x')</script> \" & </figcaption>"
    page = listening_page([IMAGE], [evil], [{evil: WAVE}], title=evil)
    assert "<script" not in page
    assert "alert(&#x27;x&#x27;)" in page
    assert page.count("&lt;script&gt;") == 4  # caption, label, title twice


def test_nothing_is_loaded_from_outside():
    page = listening_page([IMAGE], ["a"], [{"b": WAVE}])
    assert re.findall(r'(?:src|href)="([a-z]+:[a-z]+)', page) == ["data:image", "data:audio"]
    assert "http" not in page


def test_counts_that_do_not_fit():
    refused("got 2 pictures, 1 captions and 1 times sounds", listening_page, [IMAGE, IMAGE], ["a"], [{}])
