"""Promises are broken where a system does what it should not, so that they prove something."""

from pathlib import Path

import pytest
import torch
from contract import (
    equal_captions_are_no_negatives,
    nothing_is_on_the_wrong_device,
    processes_together_learn_what_one_learns_of_all,
)
from ranks import in_ranks

from mmlearn.models.contrastive.clip import CLIP
from mmlearn.objectives import gather, gathered_positives, info_nce, own_rows, same_caption


def forgets_to_gather(self, batch):
    image, text, scale = self(batch["image"], batch["tokens"], batch["mask"])
    return {"itc": info_nce(image, text, scale, same_caption(batch["caption_id"]))}


def cuts_the_gradient_of_others(self, batch):
    image, text, scale = self(batch["image"], batch["tokens"], batch["mask"])
    rows, positives = own_rows(image), gathered_positives(batch["caption_id"])
    own = torch.arange(len(positives.T))[rows]
    image, text = (gather(x).detach().index_put((own,), x) for x in (image, text))
    return {"itc": info_nce(image, text, scale, positives, rows)}


def passes_over_captions(self, batch):
    image, text, scale = self(batch["image"], batch["tokens"], batch["mask"])
    return {"itc": info_nce(gather(image), gather(text), scale, rows=own_rows(image))}


def reads_captions_as_numbers(self, batch):
    losses = forgets_to_gather(self, batch)
    return losses | {"itc": losses["itc"] + batch["caption_id"].float().mean()}


@pytest.mark.parametrize("loss", [forgets_to_gather, cuts_the_gradient_of_others])
def test_a_system_that_compares_the_rows_of_its_own_process_is_caught(monkeypatch, loss):
    processes_together_learn_what_one_learns_of_all("clip", Path())
    monkeypatch.setattr(CLIP, "loss", loss)
    with pytest.raises(AssertionError):
        processes_together_learn_what_one_learns_of_all("clip", Path())


@pytest.mark.parametrize("loss", [passes_over_captions, reads_captions_as_numbers])
def test_a_system_that_passes_over_equal_captions_is_caught(monkeypatch, loss):
    equal_captions_are_no_negatives("clip", Path())
    monkeypatch.setattr(CLIP, "loss", loss)
    with pytest.raises(AssertionError, match="caption"):
        equal_captions_are_no_negatives("clip", Path())


def test_what_stops_one_rank_stops_all():
    def work(rank):
        if rank == 1:
            raise KeyError("no such pair")
        return gather(torch.ones(2))

    with pytest.raises(KeyError, match="no such pair"):
        in_ranks(work, [0, 1])


LOOKS = {
    "item in ": lambda x: x.sum().item(),
    "tolist in ": lambda x: x.tolist(),
    "mask as an index in ": lambda x: x[x > 0],
    "nonzero in ": lambda x: x.nonzero(),
    "copy to cpu in ": lambda x: x.to("cpu"),
    "copy to meta in ": lambda x: x + torch.ones(len(x)).to(x.device),
    "tensor in ": lambda x: torch.tensor([1.0], device=x.device),
    "unique in ": lambda x: x.unique(),
    "multinomial in ": lambda x: torch.multinomial(torch.ones_like(x), 1),
}


@pytest.mark.parametrize("kind", LOOKS)
def test_a_system_that_often_waits_for_its_device_is_caught(monkeypatch, kind):
    def waits(self, batch, times):
        for _ in range(times):
            LOOKS[kind](batch["tokens"][:, 0].float())
        return real(self, batch)

    real = CLIP.loss
    monkeypatch.setattr(CLIP, "loss", lambda self, batch: waits(self, batch, 2))
    nothing_is_on_the_wrong_device("clip", Path())
    monkeypatch.setattr(CLIP, "loss", lambda self, batch: waits(self, batch, 3))
    with pytest.raises(AssertionError, match=kind):
        nothing_is_on_the_wrong_device("clip", Path())


def test_a_system_that_leaves_a_tensor_on_the_cpu_is_caught(monkeypatch):
    real = CLIP.loss
    one = torch.ones(1)
    monkeypatch.setattr(CLIP, "loss", lambda self, batch: {"itc": real(self, batch)["itc"] * one})
    with pytest.raises(RuntimeError, match="mixes a tensor on meta"):
        nothing_is_on_the_wrong_device("clip", Path())
