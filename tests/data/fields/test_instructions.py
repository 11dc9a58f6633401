"""One vocabulary of words, positions and codes: targets can be read back, and what cannot be is told."""

import pytest
import torch
from testing_tools import close, refused

from mmlearn.data import load
from mmlearn.data.fields import PatchCodes
from mmlearn.data.fields.instructions import (
    Box,
    BoxTarget,
    InfillingTarget,
    Instructions,
    TextTarget,
    hide_middle,
    middle_codes,
)
from mmlearn.data.synthetic.instructions import Instruct
from mmlearn.data.tokenizer import Tokenizer
from mmlearn.objectives.boxes import dequantise

BINS = 32


@pytest.fixture(scope="module")
def build():
    """Samples of a task, their tokenizer, and the batch that a label makes of them."""
    data = load("scenes", "train", size=32)
    samples = [data[i] for i in range(12)]
    captions = [Instruct(task)(one).caption for task in ("caption", "vqa", "grounding", "naming") for one in samples]
    tokenizer = Tokenizer.train(captions, vocab_size=500, max_length=48)
    sizes = {"vocab_size": tokenizer.vocab_size, "bins": BINS}

    def make(task, label, *fields):
        asked = [Instruct(task)(sample) for sample in samples]
        batch = Instructions(tokenizer, bins=BINS)(asked)
        for field in fields:
            batch |= field(asked)
        image = torch.stack([one.image for one in asked])
        return asked, tokenizer, label(batch | {"image": image}, torch.Generator(), sizes.__getitem__), batch

    return make


def texts(tokenizer, tokens, mask):
    return [tokenizer.decode(row[real]) for row, real in zip(tokens, mask)]


@pytest.mark.parametrize("task", ["caption", "vqa"])
def test_words(build, task):
    asked, tokenizer, batch, _ = build(task, TextTarget())
    assert texts(tokenizer, batch["tokens"], batch["mask"]) == [one.prompt for one in asked]
    assert texts(tokenizer, batch["target"], batch["target_mask"]) == [one.response for one in asked]
    last = batch["target_mask"].sum(1) - 1
    assert (batch["target"].gather(1, last[:, None]) == tokenizer.end_token).all()
    assert "response" not in batch


def test_positions(build):
    _, tokenizer, batch, _ = build("grounding", BoxTarget(), Box())
    found = dequantise(batch["target"][:, :4] - tokenizer.vocab_size, BINS)
    assert (found - batch["box"]).abs().max() <= 0.5 / (BINS - 1) + 1e-6
    assert (batch["target"][:, 4] == tokenizer.end_token).all()
    asked, _, named, _ = build("naming", TextTarget(region=True), Box())
    for row, real, box in zip(named["tokens"], named["mask"], named["box"]):
        close(dequantise(row[real][-5:-1] - tokenizer.vocab_size, BINS), box, 0.5 / (BINS - 1) + 1e-5)
    assert texts(tokenizer, named["target"], named["target_mask"]) == [one.response for one in asked]


def test_codes(build):
    codes = PatchCodes(lambda image: torch.arange(16).expand(len(image), 16))
    _, tokenizer, batch, before = build("infilling", InfillingTarget(), codes)
    assert (batch["target"][0, :4] - tokenizer.vocab_size - BINS).tolist() == [5, 6, 9, 10]
    assert not batch["image"][..., 8:24, 8:24].any()
    whole = batch["image"].clone()
    whole[..., 8:24, 8:24] = 1
    assert torch.equal(hide_middle(whole), batch["image"])
    assert "code" in before
    assert "code" not in batch


def test_what_cannot_be_is_told(build):
    field = Box()
    for wrong in ([0.5, 0.2, 0.1, 0.6], [0.1, 0.2, 0.1, 0.6], [0.1, 0.2, 1.5, 0.6]):
        one = type("Wrong", (), {"box": torch.tensor(wrong)})()
        box = field([one])["box"].expand(12, 4)
        batch = build("grounding", BoxTarget(), Box())[3] | {"box": box}
        refused("Box 0 of picture 0", BoxTarget(), batch, torch.Generator(), {"vocab_size": 9, "bins": 4}.__getitem__)
    refused("square of at least 2 × 2 codes, got 8", middle_codes, 8)
