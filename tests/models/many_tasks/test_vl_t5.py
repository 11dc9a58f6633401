"""VL-T5: a region is told by its number among those that the detector finds, and its decoder has a depth of its own."""

from dataclasses import replace

import torch
from testing_tools import close, shaken
from torch import nn
from transformers.models.t5.modeling_t5 import T5LayerNorm

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


def test_features_and_boxes_are_normed_each_alone_and_numbers_are_not():
    """Against the official ``VisualEmbedding`` with ``individual_vis_layer_norm``, laid out anew from T5's norm."""
    torch.manual_seed(0)
    config = VLT5Config.tiny()
    system = shaken(VLT5(config))
    official = nn.ModuleDict(
        {
            "features": nn.Sequential(nn.Linear(config.region_width, 64), T5LayerNorm(64, eps=config.norm_epsilon)),
            "boxes": nn.Sequential(nn.Linear(5, 64), T5LayerNorm(64, eps=config.norm_epsilon)),
        }
    )
    for name, norm in (("features", system.feature_norm), ("boxes", system.box_norm)):
        official[name][0].load_state_dict(getattr(system, name).state_dict())
        official[name][1].load_state_dict(norm.state_dict())
    regions, corner = torch.randn(3, 7, config.region_width), torch.rand(3, 7, 2) * 0.5
    boxes = torch.cat([corner, corner + 0.1 + 0.3 * torch.rand(3, 7, 2)], -1)
    area = (boxes[..., 2:] - boxes[..., :2]).prod(-1, keepdim=True)
    numbers = system.tokens.weight[config.vocab_size + torch.arange(7)]
    expected = official["features"](regions) + official["boxes"](torch.cat([boxes, area], -1)) + numbers
    close(system.embed_regions(regions, boxes, None)[0], expected + system.image_embedding)
