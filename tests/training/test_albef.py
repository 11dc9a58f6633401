"""ALBEF through ``fit``: a resumed run ends as one never stopped, momentum encoders, queues and pointers included."""

import dataclasses

import pytest
import torch
from torch.utils.data import Dataset

from mmlearn.layers import BERTEncoderConfig, ImageEncoderConfig
from mmlearn.models.align.albef import ALBEF, ALBEFConfig
from mmlearn.training import fit
from mmlearn.training.checkpoint import save_checkpoint

CONFIG = ALBEFConfig(
    image=ImageEncoderConfig(16, 1, 2, image_size=16, patch_size=8, dropout=0.1),
    text=BERTEncoderConfig(16, 1, 2, vocab_size=40, max_length=8, dropout=0.1),
    fusion_depth=1,
    embedding_width=8,
    queue_size=18,  # goes round, and not at a batch's end
    momentum=0.9,
    alpha_ramp=5,  # over the stop
)


class Pairs(Dataset):
    """Random pictures with texts of up to 8 tokens; the caption's number is the sample's."""

    def __init__(self, count=24):
        generator = torch.Generator().manual_seed(1)
        self.image = torch.randn(count, 3, 16, 16, generator=generator)
        self.tokens = torch.randint(5, 40, (count, 8), generator=generator)

    def __len__(self):
        return len(self.image)

    def __getitem__(self, index):
        return self.image[index], self.tokens[index], index


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


class Stop(Exception):
    """Ends a run after a step."""


def train(folder, system=None, steps=8, stop_after=None, **options):
    """Eight steps of two batches of four each, with a checkpoint after every third step."""

    def on_step(step, metrics):
        if step == stop_after:
            raise Stop

    torch.manual_seed(0)
    system = system or ALBEF(CONFIG)
    settings = dict(batch_size=4, accumulate=2, warmup=2, checkpoint_every=3, progress=False, output=folder)
    return system, fit(system, Pairs(), collate, steps=steps, on_step=on_step, **settings | options)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_resumed_run_equals_one_that_was_never_stopped(tmp_path, optimizer):
    whole, history = train(tmp_path / "whole", optimizer=optimizer)
    with pytest.raises(Stop):
        train(tmp_path / "stopped", stop_after=5, optimizer=optimizer)
    torch.manual_seed(77)  # what else happens to the generator in between does not matter
    other = ALBEF(dataclasses.replace(CONFIG))  # with other weights and queues
    resumed, rest = train(tmp_path / "stopped", other, resume=True, optimizer=optimizer)
    assert rest == history[3:]
    expected = whole.state_dict()
    assert resumed.state_dict().keys() == expected.keys()
    for name, value in resumed.state_dict().items():
        assert torch.equal(value, expected[name]), name
    assert expected["queue.pointer"].tolist() == [8 * 2 * 4 % 18]
    assert expected["steps"].item() == 8  # the momentum encoder moves once a step, the queue twice


def test_the_run_moves_what_the_checkpoint_must_keep(tmp_path):
    """The control: momentum encoder, queue and pointer are others at the end than at the stop and the start."""
    torch.manual_seed(0)
    start = {name: value.clone() for name, value in ALBEF(CONFIG).state_dict().items()}
    found = [train(None, steps=steps)[0].state_dict() for steps in (3, 8)]
    for one, two in ((start, found[0]), (found[0], found[1])):
        for name in ("queue.image", "queue.text", "queue.caption_id", "queue.pointer", "steps"):
            assert not torch.equal(one[name], two[name]), name
        assert any(not torch.equal(one[name], two[name]) for name in one if name.startswith("momentum_encoder."))
        assert all(
            not torch.equal(one[name], two[name]) for name in one if name.startswith("momentum_encoder.image_proj")
        )


def test_the_momentum_encoder_lost_on_the_way(tmp_path):
    """A run with a momentum encoder cannot go on without it, nor one without it go on as if it had one."""
    train(tmp_path / "with", steps=3)
    bare = ALBEF(CONFIG)
    del bare.momentum_encoder
    with pytest.raises(
        ValueError, match=r"belongs to another model: momentum_encoder\..* are only in the file\.$"
    ) as error:
        train(tmp_path / "with", bare, resume=True)
    assert "\n" not in str(error.value)
    save_checkpoint(tmp_path / "without" / "checkpoints", 3, bare, [])
    with pytest.raises(
        ValueError, match=r"belongs to another model: momentum_encoder\..* are only in the model\.$"
    ) as error:
        train(tmp_path / "without", resume=True)
    assert "\n" not in str(error.value)


def test_bf16_learns_the_same_way(tmp_path):
    """Embeddings are made in half precision; queues and momentum encoders stay whole."""
    system, history = train(None, precision="bf16", steps=6)
    assert all(value.dtype in (torch.float32, torch.int64) for value in system.state_dict().values())
    _, expected = train(None, steps=6)
    assert [row["loss"] for row in history] == pytest.approx([row["loss"] for row in expected], rel=0.02)
    assert history[-1] != expected[-1]


def test_a_queue_larger_than_the_data(tmp_path):
    """It is told at the start, before anything is written."""
    large = ALBEF(dataclasses.replace(CONFIG, queue_size=1_000_000))
    with pytest.raises(ValueError, match=r"^A queue of 1000000 is larger than the data.* at most \d+\.$"):
        train(tmp_path / "run", large, steps=3)
    assert not (tmp_path / "run").exists()
