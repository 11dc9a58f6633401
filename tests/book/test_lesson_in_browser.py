"""What the page of chapter 00 carries: the trained model, small enough, and nothing of the machine that trained it."""

import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer as Engine

from mmlearn.data import fetch, load
from mmlearn.data.fields import Image
from mmlearn.data.tokenizer import Tokenizer
from mmlearn.evaluation import recall_at
from mmlearn.models import CLIP, CLIPConfig
from mmlearn.visualization.in_browser import as_bytes, read_for_browser

BOOK = Path(__file__).parents[2] / "book"
WEIGHTS = BOOK / "_static" / "clip_weights.js"


@pytest.fixture(scope="module")
def read():
    return read_for_browser(WEIGHTS)


@torch.no_grad()
def test_its_model_is_as_good_as_the_chapter_asks(read):
    system = CLIP(CLIPConfig.from_dict(read["config"])).eval()
    system.load_state_dict(read["weights"])
    engine = Engine.from_str(json.dumps(read["tokenizer"]))
    tokenizer = Tokenizer(engine, engine.truncation["max_length"])
    held_out = fetch(load("scenes", "test", seed=0), range(256))
    images = Image(tuple(read["mean"]), tuple(read["std"]))(held_out)["image"]
    cosine = system.encode_image(images) @ system.encode_text(*tokenizer([s.caption for s in held_out])).T
    assert min(recall_at(1, cosine), recall_at(1, cosine.T)) >= 0.90


def test_its_images_are_held_out_scenes_with_their_objects(read):
    held_out = fetch(load("scenes", "test", seed=0), range(len(read["gallery"])))
    sizes, textures, colours, shapes = (list(read["scenes"][key]) for key in ("sizes", "textures", "colours", "shapes"))
    for sample, entry, objects in zip(held_out, read["gallery"], read["objects"], strict=True):
        assert entry["caption"] == sample.caption
        assert entry["image"].equal(as_bytes(sample.image))
        names = {
            (cell, sizes[it["size"]], textures[it["texture"]], colours[it["colour"]], shapes[it["shape"]])
            for cell, it in enumerate(objects)
            if it
        }
        assert names == {(o.cell, o.size, o.texture, o.colour, o.shape) for o in sample.objects}


def test_it_is_small_and_names_no_machine(read):
    scripts = sorted((BOOK / "_static").glob("clip*.js"))
    assert [path.name for path in scripts] == ["clip.js", "clip_page.js", "clip_weights.js"]
    assert sum(path.stat().st_size for path in scripts) < 1_500_000
    plain = json.dumps({key: value for key, value in read.items() if key not in ("weights", "gallery", "scenes")})
    assert not any(position in plain for position in ("/home", "/root", "/tmp", "/work", "/Users", "C:\\"))
