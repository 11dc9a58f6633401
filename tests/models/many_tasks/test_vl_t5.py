"""VL-T5: a region is told by its number among those that the detector finds, and its decoder has a depth of its own."""

from dataclasses import replace

import torch
from testing_tools import close

from mmlearn.data import load
from mmlearn.data.fields import Regions
from mmlearn.data.fields.instructions import Instructions
from mmlearn.data.synthetic.instructions import PREFIXES, Instruct
from mmlearn.data.tokenizer import Tokenizer
from mmlearn.models import VLT5, VLT5Config
from mmlearn.recipes.vl_t5 import RegionNumber, RegionTarget


def test_a_region_is_told_by_its_number():
    data = load("scenes", "train", size=32)
    samples = {task: [Instruct(task, PREFIXES[task])(data[i]) for i in range(8)] for task in ("grounding", "naming")}
    tokenizer = Tokenizer.train([one.caption for each in samples.values() for one in each], vocab_size=300)
    words = tokenizer.vocab_size
    found = {}
    for task, each in samples.items():
        batch = Instructions(tokenizer)(each) | Regions(image_size=32)(each) | RegionNumber()(each)
        box = batch["boxes"][torch.arange(8), batch["region"]]
        close(box, torch.stack([one.box for one in each]), 1e-5)
        label = RegionTarget(region=task == "naming")
        found[task] = label(batch, torch.Generator(), {"vocab_size": words}.__getitem__)
    assert found["grounding"]["target"].tolist() == [
        [words + one.number, tokenizer.end_token] for one in samples["grounding"]
    ]
    named = found["naming"]
    for row, real, one in zip(named["tokens"], named["mask"], samples["naming"]):
        assert row[real][-2:].tolist() == [words + one.number, tokenizer.end_token]
    assert [tokenizer.decode(row) for row in named["target"]] == [one.response for one in samples["naming"]]


def test_the_decoder_has_its_own_depth():
    system = VLT5(replace(VLT5Config.tiny(), decoder_depth=1))
    assert (len(system.encoder.blocks), len(system.decoder.blocks)) == (2, 1)
