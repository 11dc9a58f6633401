"""``mmlearn train`` on a card that is too small."""

import torch
from torch._subclasses.fake_tensor import FakeTensor

from mmlearn.models import CLIP
from mmlearn.training import out_of_memory


def test_what_fits_is_told_in_one_line(mmlearn, short, monkeypatch):
    """A faked card of 3 MiB, which is full at the first batch; where it is counted, there are no numbers."""
    real = CLIP.loss

    def full(self, batch):
        if not isinstance(batch["image"], FakeTensor):
            raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2.00 GiB.")
        return real(self, batch)

    monkeypatch.setattr(CLIP, "loss", full)
    monkeypatch.setattr(out_of_memory, "device_bytes", lambda: 3 * 2**20)
    said = mmlearn("train", "clip", *short, "--output", "run")
    assert (said.code, said.out) == (1, "")
    assert "Traceback" not in said.err
    last = said.err.splitlines()[-1]
    assert last.startswith("mmlearn: Out of memory: by the planner's count a batch of 8 needs 0.0 GiB")
    assert last.endswith("No batch is small enough: take a smaller preset.")  # weights alone are 1 MiB


def test_a_card_that_is_full_where_nothing_is_trained(fails, works, short, tmp_path, monkeypatch):
    works("train", "clip", *short, "--output", tmp_path / "run")

    def full(self, *given):
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2.00 GiB.")

    monkeypatch.setattr(CLIP, "encode_image", full)
    says = "memory is full: end what else holds some (nvidia-smi), or take a smaller model."
    fails("evaluate", tmp_path / "run", "--data", short[1], says=says, after_progress=True)
