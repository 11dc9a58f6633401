"""VATT: padding never leaks, dropping is the generator's, both spaces learn, sizes are the published ones."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from testing_tools import assert_unit_length, close, count_parameters, overfit, refused
from torch import nn

from mmlearn.models.trimodal.vatt import MODALITIES, VATT, Projection, VATTConfig
from mmlearn.objectives import mil_nce

TINY = dataclasses.replace(
    VATTConfig.tiny(), video_size=(8, 32, 32), samples=800, audio_patch=80, max_length=8, drop_rate=0.0
)
CONFIGS = {
    "three": TINY,
    "agnostic": dataclasses.replace(TINY, agnostic=True),
    "class token": dataclasses.replace(TINY, pooling="class"),
    "agnostic, class token": dataclasses.replace(TINY, agnostic=True, pooling="class"),
}
each = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


def films(b=4, candidates=None, seed=0):
    """Videos, sounds and texts of several lengths."""
    generator = torch.Generator().manual_seed(seed)
    shape = (b, 8) if candidates is None else (b, candidates, 8)
    return {
        "video": torch.randn(b, 8, 3, 32, 32, generator=generator),
        "video_mask": torch.arange(8) < 8 - 3 * (torch.arange(b)[:, None] % 2),
        "waveform": torch.randn(b, 800, generator=generator),
        "waveform_mask": torch.arange(800) < 800 - 190 * (torch.arange(b)[:, None] % 3),
        "tokens": torch.randint(3, 512, shape, generator=generator),
        "mask": (torch.arange(8) < 3 + torch.arange(b)[:, None] % 5).view(b, *[1] * (len(shape) - 2), 8).expand(shape),
    }


def other_padding(batch):
    return batch | {
        "video": torch.where(batch["video_mask"][:, :, None, None, None], batch["video"], torch.nan),
        "waveform": torch.where(batch["waveform_mask"], batch["waveform"], torch.nan),
        "tokens": torch.where(batch["mask"], batch["tokens"], 7),
    }


@each
def test_padding_changes_nothing(config):
    model, batch = VATT(config), films()
    for mode in (True, False):
        model.train(mode)
        for got, expected in zip(model(**other_padding(batch)), model(**batch)):
            assert torch.equal(got, expected)
    alone = {
        "video": batch["video"][1:2, :5],
        "waveform": batch["waveform"][1:2, :610],
        "tokens": batch["tokens"][1:2, :4],
    }
    for got, expected in zip(model(**alone), model(**batch)):
        close(got[0], expected[1])
    for name in ("video_mask", "waveform_mask", "mask"):
        whole = model(**batch | {name: torch.ones_like(batch[name])})
        assert any(not torch.allclose(x, y, atol=1e-3) for x, y in zip(whole, model(**batch)))


def test_embeddings_have_unit_length_in_two_spaces():
    output = VATT(TINY)(**films(candidates=3))
    for embedding in output:
        assert_unit_length(embedding)
    assert [tuple(x.shape) for x in output] == [(4, 128), (4, 128), (4, 64), (4, 3, 64)]


def test_the_coarse_space_is_reached_through_the_fine_one():
    model, batch = VATT(TINY).eval(), films()
    every = torch.ones(4, dtype=torch.bool)
    x = model.pool("video", *model.tokens["video"](batch["video"], batch["video_mask"]))
    fine = model.video_head(x, every)
    close(model.encode_video(batch["video"], batch["video_mask"])[0], F.normalize(fine, dim=-1))
    close(
        model.encode_video(batch["video"], batch["video_mask"])[1],
        F.normalize(model.video_text_head(fine, every), dim=-1),
    )
    x = model.pool("audio", *model.tokens["audio"](batch["waveform"], batch["waveform_mask"]))
    among = F.normalize(model.video_text_head(model.audio_head(x, every), every), dim=-1)
    close(model.audio_in_text_space(batch["waveform"], batch["waveform_mask"]), among)
    assert [len(head.layers) for head in (model.video_head, model.audio_head, model.text_head)] == [2, 1, 1]


def test_projections_are_pytorchs_layers_over_what_is_real():
    head, x = Projection(6, 8, 5), torch.randn(7, 6)
    real = torch.tensor([True, False, True, True, False, True, True])
    theirs = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 5), nn.BatchNorm1d(5))
    for i, (layer, norm) in enumerate(zip(head.layers, head.norms)):
        theirs[3 * i].load_state_dict(layer.state_dict())
        nn.init.uniform_(norm.weight)
        nn.init.normal_(norm.bias)
        theirs[3 * i + 1].load_state_dict(norm.state_dict(), strict=False)
    for training in (True, False):
        got, expected = head.train(training)(x, real), theirs.train(training)(x[real])
        close(got[real], expected)
        assert not got[~real].any()
        gradients = [
            torch.autograd.grad(y.square().sum(), part.parameters())
            for y, part in ((got, head.layers[0]), (expected, theirs[0]))
        ]
        for one, other in zip(*gradients):
            close(one, other)
    close(head.norms[1].running_var, theirs[4].running_var)


@each
def test_one_backbone_reads_all_or_each_has_its_own(config):
    model, batch = VATT(config), films()
    model(**batch).audio.sum().backward()
    touched = {name for name, part in model.backbones.items() if any(p.grad is not None for p in part.parameters())}
    assert touched == ({"all"} if config.agnostic else {"audio"})
    assert set(model.backbones) == ({"all"} if config.agnostic else set(MODALITIES))
    with pytest.raises(ValueError, match="One backbone for all needs video, audio and text of the same size"):
        VATT(dataclasses.replace(TINY, agnostic=True, text=dataclasses.replace(TINY.text, width=32)))
    refused("pooling is 'class' or 'max', not 'mean'", VATT, dataclasses.replace(TINY, pooling="mean"))


@each
def test_rate_0_is_the_whole_and_others_are_the_generators(config):
    batch = films()

    def at(rate, seed):
        torch.manual_seed(0)
        model = VATT(dataclasses.replace(config, drop_rate=rate)).eval()
        return model(**batch, generator=None if seed is None else torch.Generator().manual_seed(seed))

    whole = at(0.5, None)
    for got, expected in zip(at(0.0, 0), whole):
        assert torch.equal(got, expected)
    half, again, other = at(0.5, 0), at(0.5, 0), at(0.5, 1)
    for field in ("video_audio", "audio", "video_text"):
        assert torch.equal(getattr(half, field), getattr(again, field))
        assert not torch.allclose(getattr(half, field), getattr(other, field), atol=1e-3)
        assert not torch.allclose(getattr(half, field), getattr(whole, field), atol=1e-3)
    assert torch.equal(half.text, whole.text)  # texts are short enough


def test_training_drops_and_counts_its_steps():
    model, batch = VATT(dataclasses.replace(TINY, drop_rate=0.5)), films()
    first, again = (sum(model.loss(batch).values()).item() for _ in range(2))
    assert first == again
    model.after_step()
    assert sum(model.loss(batch).values()).item() != first
    assert model.state_dict()["steps"] == 1
    lengths = []
    for name in MODALITIES:
        model.backbones[name].register_forward_pre_hook(lambda _, inputs: lengths.append(inputs[0].shape[1]))
    model.loss(batch)
    model.eval().loss(batch)
    assert lengths == [4, 5, 8, 8, 10, 8]


def test_losses_are_nce_of_what_is_in_the_batch():
    config = dataclasses.replace(TINY, text_weight=0.5, temperature=0.2)
    model, batch = VATT(config), films(candidates=3)
    batch["mask"] = batch["mask"].clone()
    batch["mask"][1, 2] = False
    batch["mask"][2] = False
    batch["waveform_mask"][3] = False
    video_audio, audio, video_text, text = model(**batch)
    scale = torch.tensor(5.0)
    nce = mil_nce(video_audio, audio[:, None], scale, batch["waveform_mask"].any(1, keepdim=True))
    exists = torch.tensor([[True] * 3, [True, True, False], [False] * 3, [True] * 3])
    losses = model.loss(batch)
    close(losses["nce"], nce)
    close(losses["mil_nce"], 0.5 * mil_nce(video_text, text, scale, exists))
    assert set(model.loss({name: batch[name] for name in ("video", "waveform")})) == {"nce"}
    assert set(model.loss({name: batch[name] for name in ("video", "tokens")})) == {"mil_nce"}
    kind = torch.tensor([0, 1, 0, 1])
    same = model.loss(batch | {"caption_id": kind})["mil_nce"]
    close(same, 0.5 * mil_nce(video_text, text, scale, exists, kind[:, None] == kind))


def test_what_does_not_exist_is_unknown_to_batch_norms():
    torch.manual_seed(0)
    model, batch = VATT(TINY), films(candidates=3)
    exists = torch.tensor([[True, False, False], [True, True, True], [False] * 3, [True] * 3])
    batch["mask"] = batch["mask"] & exists[..., None]
    model.loss(batch)
    torch.manual_seed(0)
    other = VATT(TINY)
    other.encode_text(batch["tokens"][exists], batch["mask"][exists])
    close(model.text_head.norms[0].running_mean, other.text_head.norms[0].running_mean)
    close(model.text_head.norms[0].running_var, other.text_head.norms[0].running_var)
    text = model(**batch).text
    assert (text[~exists] == 0).all()
    assert_unit_length(text[exists])


@pytest.mark.parametrize(("name", "rate"), [("three", 0.0), ("agnostic, class token", 0.0), ("agnostic", 0.5)])
def test_one_batch_is_learned_by_heart(name, rate):
    config = dataclasses.replace(CONFIGS[name], drop_rate=rate)
    assert overfit(VATT(config), films(4), steps=16 if rate == 0 else 24, learning_rate=4e-3) < 0.1


def test_a_image_is_a_film_that_stands_still():
    model, batch = VATT(TINY).eval(), films()
    image = batch["video"][:, 0]
    still = image[:, None].repeat(1, 4, 1, 1, 1)
    close(model.encode_image(image), model.encode_video(still)[1])
    images = {"image": image, "tokens": batch["tokens"]}
    close(model.loss(images)["mil_nce"], model.loss({"video": still, "tokens": batch["tokens"]})["mil_nce"])


def test_wrong_batches_are_told(unchecked):
    model, batch = VATT(TINY), films()
    for names in (["video"], ["waveform", "tokens"], ["tokens"]):
        with pytest.raises(ValueError, match="VATT needs video or image in the batch, and waveform or tokens"):
            model.loss({name: batch[name] for name in names})
    refused("at least one video", model.loss, {name: rows[:0] for name, rows in batch.items()})
    refused("at least two of each modality", model.loss, {name: rows[:1] for name, rows in batch.items()})
    assert model.eval().loss({name: rows[:1] for name, rows in batch.items()})["nce"].item() == 0
    with pytest.raises(ValueError, match="9 tokens are more than the 8 positions"):
        model.loss(batch | {"tokens": torch.ones(4, 9, dtype=torch.long), "mask": None})
    refused("There is no token 512", model.loss, batch | {"tokens": torch.full((4, 8), 512)})
    refused("got 4 images and 3 texts", model.loss, {"video": batch["video"], "tokens": batch["tokens"][:3]})


def test_published_sizes():
    """The appendix counts a video tower with a head of 600 classes, of Kinetics-600, in millions."""
    for preset, millions in (("base-base-small", 87.9), ("medium-base-small", 155.0), ("large-base-small", 306.1)):
        config = VATTConfig.preset(preset)
        with torch.device("meta"):
            model = VATT(config)
        tower = [model.tokens["video"], model.backbones["video"]]
        size = sum(p.numel() for part in tower for p in part.parameters()) + model.aggregation["video"].numel()
        assert round((size + 600 * (config.video.width + 1)) / 1e6, 1) == millions
    assert count_parameters(VATT, VATTConfig.preset("agnostic-medium")) == 224_539_648
