"""Orders carried out: texts, boxes and codes of a system whose answers are known."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mmlearn.evaluation.instructions import (
    box_accuracy,
    box_agreement,
    infilling_accuracy,
    text_accuracy,
    with_other_image,
)


class Known(nn.Module):
    """Says what it is told to say of each row, whatever it reads."""

    def __init__(self, config, **said):
        super().__init__()
        self.config, self.said = config, said

    def encode(self, tokens):
        raise NotImplementedError

    def write(self, tokens):
        return self.said["texts"][tokens[:, 0]]

    def locate(self, tokens):
        return self.said["boxes"][tokens[:, 0]]

    def draw(self, count, tokens):
        return self.said["codes"][tokens[:, 0], :count]


def run_of(batch, config=None, **said):
    tokens = torch.arange(8)[:, None]
    return SimpleNamespace(
        system=Known(config, **said),
        tokenizer=SimpleNamespace(decode=lambda text: " ".join(map(str, text.tolist()))),
        stage=SimpleNamespace(objectives=lambda: {"task": SimpleNamespace(labels=())}),
        plain=lambda samples, name: {"tokens": tokens} | batch,
        on_device=lambda batch: batch,
    )


def test_texts_word_for_word():
    target = torch.tensor([[4], [4], [4], [5], [6], [7], [8], [9]])
    said = target.clone()
    said[6:] = 3
    rows = text_accuracy("task")(run_of({"target": target, "target_mask": target > 0}, texts=said), range(8))
    assert rows["task: word for word"] == {"obtained": 0.75, "chance": 3 / 8}


def test_boxes():
    corner = torch.rand(8, 2, generator=torch.Generator().manual_seed(0)) * 0.5
    truth = torch.cat([corner, corner + 0.3], 1)
    found = truth.clone()
    found[0] += 0.2
    found[1] = found[1][[2, 3, 0, 1]]  # its corners exchanged
    config = SimpleNamespace(patch_size=8, bins=11)
    batch = {"box": truth, "image": torch.zeros(8, 3, 80, 80)}
    rows = box_accuracy("task")(run_of(batch, config, boxes=found), range(8))
    assert rows["task: boxes that share half"]["obtained"] == 7 / 8
    assert rows["task: boxes that share half"]["chance"] < 0.5
    assert rows["task: boxes with all edges near"]["obtained"] == 6 / 8  # within 8 / 80 + 0.5 / 10
    half, mean, near = box_agreement(truth, truth, 0.0)
    assert (half, near) == (1, 1)
    assert mean == pytest.approx(1)


def test_codes_and_other_images():
    target = torch.randint(3, (8, 4), generator=torch.Generator().manual_seed(0)) + 20
    drawn = target - 20
    drawn[:4, 0] = 9
    batch = {"target": torch.cat([target, torch.full((8, 1), 2)], 1)}
    rows = infilling_accuracy("task")(run_of(batch, SimpleNamespace(first_code=20), codes=drawn), range(8))
    (row,) = rows.values()
    assert row["obtained"] == 28 / 32
    image = torch.arange(8.0)
    assert with_other_image({"image": image, "mask": image})["image"].tolist() == [4, 5, 6, 7, 0, 1, 2, 3]
    assert with_other_image({"image": image, "mask": image})["mask"] is image
