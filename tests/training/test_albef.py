"""ALBEF through ``fit``: what accumulation and half precision do to queues and momentum encoders."""

import dataclasses

import pytest
import torch
from testing_tools import Listed, fit, refused, seeded

from mmlearn.layers import BERTEncoderConfig, ImageEncoderConfig
from mmlearn.models.align.albef import ALBEF, ALBEFConfig

CONFIG = ALBEFConfig(
    image=ImageEncoderConfig(16, 1, 2, image_size=16, patch_size=8, dropout=0.1),
    text=BERTEncoderConfig(16, 1, 2, vocab_size=40, max_length=8, dropout=0.1),
    fusion_depth=1,
    embedding_width=8,
    queue_size=18,  # goes round, and not at a batch's end
    momentum=0.9,
    alpha_ramp=5,
)


# Random pictures with texts of up to 8 tokens; the caption's number is the sample's.
IMAGES, TOKENS = torch.randn(24, 3, 16, 16, generator=seeded(1)), torch.randint(5, 40, (24, 8), generator=seeded(2))
PAIRS = Listed(list(zip(IMAGES, TOKENS, range(24))))


def collate(samples):
    """Every third token hidden, and texts of 5 to 8 tokens."""
    image, tokens, number = (torch.stack(list(map(torch.as_tensor, rows))) for rows in zip(*samples))
    mask = torch.arange(8) < 5 + number[:, None] % 4
    hidden = ((torch.arange(8) + number[:, None]) % 3 == 1) & mask
    return {
        "image": image,
        "tokens": tokens.masked_fill(~mask, 0).masked_fill(hidden, 2),
        "mask": mask,
        "token_label": torch.where(hidden, tokens, -100),
        "caption_id": number,
    }


def train(folder, system=None, steps=8, **options):
    """Eight steps of two batches of four each."""
    torch.manual_seed(0)
    system = system or ALBEF(CONFIG)
    settings = dict(batch_size=4, accumulate=2, warmup=2, checkpoint_every=3, progress=False, output=folder)
    return system, fit(system, PAIRS, collate, steps=steps, **settings | options)


def test_accumulation_moves_the_queue_twice_a_step_and_the_momentum_encoder_once():
    torch.manual_seed(0)
    start = {name: value.clone() for name, value in ALBEF(CONFIG).state_dict().items()}
    end = train(None)[0].state_dict()
    assert end["queue.pointer"].tolist() == [8 * 2 * 4 % 18]
    assert end["steps"].item() == 8
    for name in ("queue.image", "queue.text", "queue.caption_id", "momentum_encoder.image_projection.weight"):
        assert not torch.equal(end[name], start[name]), name


def test_bf16_learns_the_same_way():
    """Embeddings are made in half precision; queues and momentum encoders stay whole."""
    system, history = train(None, precision="bf16", steps=6)
    assert all(value.dtype in (torch.float32, torch.int64) for value in system.state_dict().values())
    _, expected = train(None, steps=6)
    assert [row["loss"] for row in history] == pytest.approx([row["loss"] for row in expected], rel=0.02)
    assert history[-1] != expected[-1]


def test_a_queue_larger_than_the_data(tmp_path):
    """It is told at the start, before anything is written."""
    large = ALBEF(dataclasses.replace(CONFIG, queue_size=1_000_000))
    refused(r"^A queue of 1000000 is larger than the data.* at most \d+\.$", train, tmp_path / "run", large, steps=3)
    assert not (tmp_path / "run").exists()
