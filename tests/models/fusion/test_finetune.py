"""Fine-tuning: any encoder by the names it reads, each task's label, pairs of pictures, what is frozen stays."""

import math
import re
from importlib import import_module
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
from testing_tools import assert_rows_are_independent, close, overfit, refused
from torch import Tensor, nn

from mmlearn.data.synthetic.questions import ANSWERS as ANSWERS_OF_SCENES
from mmlearn.data.synthetic.scene_tasks import NLVR, VQA, Entailment, Referring, task_collate
from mmlearn.data.tokenizer import Tokenizer
from mmlearn.evaluation import predict
from mmlearn.models.align.blip import BLIP, BLIPConfig
from mmlearn.models.fusion.finetune import FineTuned
from mmlearn.models.fusion.heads import EntailmentHead, NLVRHead, ReferringHead, VQAHead

WIDTH, ANSWERS = 16, 6


class Output(NamedTuple):
    regions: Tensor
    pooled: Tensor


class RegionEncoder(nn.Module):
    """Words and regions in one bag: pooled is a layer over both means; a region's state has seen the words."""

    def __init__(self, dropout=0.0):
        super().__init__()
        self.words = nn.Embedding(50, WIDTH)
        self.features = nn.Linear(7, WIDTH)
        self.both = nn.Linear(2 * WIDTH, WIDTH)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens, regions, boxes=None, mask=None, region_mask=None):
        words, seen = self.words(tokens), self.features(regions)
        mask = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
        region_mask = torch.ones(regions.shape[:2], dtype=torch.bool) if region_mask is None else region_mask
        text, image = mean(words, mask), mean(seen, region_mask)
        pooled = torch.tanh(self.both(torch.cat([text, image], 1)))
        return Output(seen * text[:, None], self.dropout(pooled))


class ImageEncoder(nn.Module):
    """Pixels and words; what it returns has no pooled state, but tokens."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(50, WIDTH)
        self.pixels = nn.Linear(3, WIDTH)

    def forward(self, image, tokens, mask=None):
        return SimpleNamespace(tokens=self.words(tokens) + self.pixels(image.mean((2, 3)))[:, None])


def mean(x, mask):
    return (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)


def batch_of(b=6, seed=0, pair=()):
    """Words, regions and pictures, ``pair`` of them to a sentence, and the label of every task."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(5) < 2 + torch.arange(b)[:, None] % 4
    region_mask = torch.rand(b, *pair, 4, generator=generator) < 0.5
    region_mask[..., 0] = True
    return {
        "tokens": torch.randint(1, 50, (b, 5), generator=generator).masked_fill(~mask, 0),
        "mask": mask,
        "regions": torch.randn(b, *pair, 4, 7, generator=generator),
        "boxes": torch.tensor([0.0, 0, 1, 1]).expand(b, *pair, 4, 4),
        "region_mask": region_mask,
        "image": torch.randn(b, *pair, 3, 8, 8, generator=generator),
        "answer": torch.randint(0, ANSWERS, (b,), generator=generator),
        "label": torch.arange(b) % 2,
        "referred": torch.zeros(b, dtype=torch.long),
    }


TASKS = {
    "vqa": (lambda: VQAHead(WIDTH, ANSWERS), batch_of, ANSWERS),
    "nlvr": (lambda: NLVRHead(WIDTH), lambda *a, **k: batch_of(*a, **k, pair=(2,)), 2),
    "entailment": (lambda: EntailmentHead(WIDTH), batch_of, 3),
    "referring": (lambda: ReferringHead(WIDTH), batch_of, 4),
}


@pytest.mark.parametrize("task", TASKS)
def test_each_task_has_its_loss_and_learns_one_batch_by_heart(task):
    head, batch, outputs = TASKS[task]
    system, batch = FineTuned(RegionEncoder(), head()), batch(8)
    batch["referred"] = batch["region_mask"].int().argmax(-1) if task != "referring" else last_real(batch)
    losses = system.loss(batch)
    assert set(losses) == {task}
    logits = system(**batch)
    assert logits.shape == (8, outputs)
    close(losses[task], nn.functional.cross_entropy(logits, batch[system.head.label]))
    assert overfit(system, batch, steps=150, learning_rate=2e-2) < 0.02
    assert torch.equal(system(**batch).argmax(1), batch[system.head.label])


def last_real(batch):
    return 3 - batch["region_mask"].flip(-1).int().argmax(-1)


@pytest.mark.parametrize("task", TASKS)
def test_rows_are_independent_and_padding_changes_nothing(task):
    head, batch, _ = TASKS[task]
    system, batch = FineTuned(RegionEncoder(), head()), batch()
    nn.init.normal_(next(iter(system.head.parameters())))
    names = ["tokens", "mask", "regions", "boxes", "region_mask"]

    def encode(*rows):
        return system(**dict(zip(names, rows))).nan_to_num(neginf=0)

    assert_rows_are_independent(encode, *(batch[name] for name in names))
    other = batch | {
        "tokens": torch.where(batch["mask"], batch["tokens"], 9),
        "regions": torch.where(batch["region_mask"][..., None], batch["regions"], 5.0),
    }
    assert torch.equal(system(**other), system(**batch))


def test_soft_answers():
    system, batch = FineTuned(RegionEncoder(), VQAHead(WIDTH, ANSWERS)), batch_of()
    soft = torch.rand(6, ANSWERS)
    loss = system.loss(batch | {"answer": soft})["vqa"]
    expected = nn.functional.binary_cross_entropy_with_logits(system(**batch), soft) * ANSWERS
    close(loss, expected)
    assert loss.item() == pytest.approx(ANSWERS * math.log(2), rel=0.1)


def test_an_encoder_gets_what_it_reads_and_no_more():
    seen = {}

    class Spy(RegionEncoder):
        def forward(self, tokens, regions, region_mask=None, token_type=None, *rest, **more):
            seen.update(locals())
            return super().forward(tokens, regions, region_mask=region_mask)

    batch = batch_of()
    FineTuned(Spy(), VQAHead(WIDTH, ANSWERS)).loss(batch)
    for name in ("tokens", "regions", "region_mask"):
        assert seen[name] is batch[name]
    assert seen["token_type"] is None
    assert not seen["rest"]
    assert not seen["more"]


def test_an_encoder_without_a_pooled_state_is_read_at_its_first_token():
    system, batch = FineTuned(ImageEncoder(), EntailmentHead(WIDTH)), batch_of()
    tokens = system.encoder(batch["image"], batch["tokens"]).tokens
    close(system(**batch), system.head(tokens[:, 0]), 0)
    assert set(system.loss(batch)) == {"entailment"}


@pytest.mark.parametrize("encoder", [RegionEncoder, ImageEncoder])
def test_two_images_are_read_one_by_one(encoder):
    system, batch = FineTuned(encoder(), NLVRHead(WIDTH)), batch_of(pair=(2,))
    system.head.apply(lambda module: nn.init.normal_(module.weight) if isinstance(module, nn.Linear) else None)
    single = FineTuned(system.encoder, VQAHead(WIDTH, ANSWERS))
    single.head = nn.Identity()  # the pooled state itself
    images = ("image", "regions", "boxes", "region_mask")
    states = [single(**{name: x[:, i] if name in images else x for name, x in batch.items()}) for i in (0, 1)]
    close(system(**batch), system.head(torch.stack(states, 1)))
    swapped = batch | {name: batch[name].flip(1) for name in images}
    close(system(**swapped), system.head(torch.stack(states[::-1], 1)))
    assert not torch.allclose(system(**swapped), system(**batch), atol=1e-3)


def test_a_frozen_encoder_stays_as_it_is():
    frozen = RegionEncoder(dropout=0.5).requires_grad_(False)
    before = {name: value.clone() for name, value in frozen.state_dict().items()}
    system, batch = FineTuned(frozen, VQAHead(WIDTH, ANSWERS)).train(), batch_of()
    assert not frozen.training
    assert system.head.training
    assert torch.equal(system(**batch), system(**batch))
    overfit(system, batch, steps=5)
    assert all(torch.equal(value, before[name]) for name, value in frozen.state_dict().items())
    learning = FineTuned(RegionEncoder(dropout=0.5), VQAHead(WIDTH, ANSWERS))
    assert learning.train().encoder.training
    assert not torch.equal(learning(**batch), learning(**batch))
    assert not learning.eval().encoder.training
    weight = learning.encoder.words.weight.clone()
    overfit(learning, batch, steps=1)
    assert not torch.equal(learning.encoder.words.weight, weight)


# What is wrong is told.


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("task", TASKS)
def test_a_batch_without_a_label_or_without_rows(task):
    head, batch, _ = TASKS[task]
    system, batch = FineTuned(RegionEncoder(), head()), batch()
    label = system.head.label
    rest = {name: value for name, value in batch.items() if name != label}
    refused(rf"^The task {task} learns from batch\['{label}'\]; this batch has {', '.join(rest)}\.$", system.loss, rest)
    refused(r"at least one text and picture", system.loss, {name: value[:0] for name, value in batch.items()})
    assert system.loss({name: value[:1] for name, value in batch.items()})[task].isfinite()


@pytest.mark.usefixtures("unchecked")
def test_what_an_encoder_cannot_give():
    batch = batch_of()
    without = {name: value for name, value in batch.items() if name not in ("regions", "tokens")}
    system = FineTuned(RegionEncoder(), VQAHead(WIDTH, ANSWERS))
    refused(rf"^The encoder needs tokens, regions, and .* only {', '.join(without)}\.$", system.loss, without)
    silent = RegionEncoder()
    silent.forward = lambda tokens: SimpleNamespace(words=tokens)
    refused(
        r"pooled or tokens of an encoder, and SimpleNamespace has", FineTuned(silent, EntailmentHead(WIDTH)).loss, batch
    )
    refused(
        r"^ImageEncoder returns no regions to refer to", FineTuned(ImageEncoder(), ReferringHead(WIDTH)).loss, batch
    )
    refused(r"Labels are 0 to 5 here", system.loss, batch | {"answer": batch["answer"] + ANSWERS})
    pairs = FineTuned(RegionEncoder(), NLVRHead(WIDTH))
    refused(re.escape("Of two pictures regions is (b, 2, ...); got (6, 4, 7)."), pairs.loss, batch)
    three = {name: torch.stack([batch[name]] * 3, 1) for name in ("regions", "boxes", "region_mask")}
    refused(re.escape("regions is (b, 2, ...); got (6, 3, 4, 7)."), pairs.loss, batch | three)
    refused(
        re.escape("region_mask is (b, 2, ...)"), pairs.loss, batch_of(pair=(2,)) | {"region_mask": batch["region_mask"]}
    )
    two = {"region_mask": torch.ones(6, 2, dtype=torch.bool)}  # of two regions, not of two pictures
    refused(re.escape("region_mask is (b, 2, ...); got (6, 2)."), pairs.loss, batch_of(pair=(2,)) | two)
    refused("Labels are 0 to 1 here", pairs.loss, batch_of(pair=(2,)) | {"label": torch.full((6,), 2)})


# Systems of the library.

ENCODERS = {
    "UNITER": "fusion.uniter",
    "VLBERT": "fusion.vl_bert",
    "VisualBERT": "fusion.visual_bert",
    "OSCAR": "fusion.oscar",
    "LXMERT": "fusion.lxmert",
    "ViLBERT": "fusion.vilbert",
    "ERNIEViL": "fusion.ernie_vil",
    "KVLBERT": "fusion.kvl_bert",
    "ViLT": "fusion.vilt",
    "PixelBERT": "fusion.pixel_bert",
    "ALBEF": "align.albef",
    "BLIP": "align.blip",
}


@pytest.mark.parametrize("name", ENCODERS)
def test_every_fusion_system_is_an_encoder(name):
    """Each task on samples as the tasks on scenes hand them over, of every system that reads them."""
    module = import_module(f"mmlearn.models.{ENCODERS[name]}")
    encoder = getattr(module, name)(getattr(module, f"{name}Config").tiny()).eval()
    tokenizer = Tokenizer.train(["is there a red square?"])
    for task, data in (("vqa", VQA), ("nlvr", NLVR), ("entailment", Entailment), ("referring", Referring)):
        samples = [data("train", length=12)[i] for i in range(6)]
        collate = task_collate(tokenizer)
        batch = collate(samples)
        width = 48 if name in ("ViLBERT", "ERNIEViL") and task == "referring" else 64  # of a narrower visual stream
        head = {"vqa": VQAHead(width, len(ANSWERS_OF_SCENES))} | {
            "nlvr": NLVRHead(width),
            "entailment": EntailmentHead(width),
            "referring": ReferringHead(width),
        }
        system = FineTuned(encoder, head[task])
        if task == "referring" and "regions" not in system.inputs:
            continue
        losses = system.loss(batch)
        losses[task].backward()
        assert losses[task].isfinite()
        gradients = [parameter.grad for parameter in encoder.parameters() if parameter.grad is not None]
        assert sum(gradient.abs().sum() for gradient in gradients) > 0
        assert all(gradient.isfinite().all() for gradient in gradients)
        guess = predict(system, samples, collate, data.target)
        assert torch.equal(guess.label, batch[data.target])
        assert torch.equal(guess.guess, system(**batch).argmax(-1))


def test_blip_is_read_where_words_have_seen_the_image():
    """Its grounded encoder's first token; and one that only writes has none."""
    torch.manual_seed(0)
    encoder = BLIP(BLIPConfig.tiny()).eval()
    batch = {"tokens": torch.randint(4, 512, (4, 9)), "image": torch.randn(4, 3, 64, 64), "answer": torch.arange(4)}
    output = encoder(batch["image"], batch["tokens"])
    close(encoder.match_head(output.tokens[:, 0]), output.match_logits, 0)
    close(output.match_logits, encoder.match(batch["image"], batch["tokens"]))
    system = FineTuned(encoder, VQAHead(64, ANSWERS))
    close(system(**batch), system.head(output.tokens[:, 0]), 0)
    other = batch | {"image": batch["image"].flip(0)}
    assert (encoder(other["image"], other["tokens"]).tokens - output.tokens).abs().max() > 1e-3
    assert overfit(system, batch, steps=25, learning_rate=2e-3) < 0.1
    writer = FineTuned(BLIP(BLIPConfig(**BLIPConfig.PRESETS["tiny"] | {"encoder": False})), VQAHead(64, ANSWERS))
    refused("pooled or tokens of an encoder, and CaptionOutput has neither", writer.loss, batch)
