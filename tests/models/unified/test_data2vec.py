"""data2vec in all three modalities: the teacher has no gradient, sees what is whole, and follows by its schedule."""

import copy
import dataclasses
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from testing_tools import close

from mmlearn.objectives.masked import IGNORED
from mmlearn.recipes.discovery import find_recipe
from mmlearn.recipes.shared.self_distillation import masked_features_explained

NAMES = ("data2vec-text", "data2vec-vision", "data2vec-audio")


def made(name, **changes):
    recipe = find_recipe(name)
    config = dataclasses.replace(recipe.tiny(), **changes)
    torch.manual_seed(0)
    return recipe.make(config), next(recipe.examples(config))


@pytest.mark.parametrize("name", NAMES)
def test_the_teacher_has_no_gradient(name):
    system, batch = made(name)
    system.loss(batch)["regression"].backward()
    assert not any(p.requires_grad or p.grad is not None for p in system.teacher.parameters())
    assert all(p.grad is not None for p in system.encoder.parameters())
    _, target, _ = system.predictions_and_targets(batch)
    assert not target.requires_grad


@pytest.mark.parametrize("name", NAMES)
def test_the_teacher_sees_the_whole_and_the_student_does_not(name):
    """What is hidden changes the target, and not what the student says."""
    system, batch = made(name)
    system.eval()
    said, target, masked = system.predictions_and_targets(batch)
    other = dict(batch)
    if name == "data2vec-text":
        label = batch["token_label"]
        other["token_label"] = torch.where(label == IGNORED, label, 4 + (label + 7) % 100)
    elif name == "data2vec-vision":
        cells = masked.view(-1, 8, 8).repeat_interleave(8, 1).repeat_interleave(8, 2)[:, None]
        other["image"] = torch.where(cells, torch.randn_like(batch["image"]), batch["image"])
    else:  # the last frame that is hidden hears samples that others hear, too
        other["masked"] = torch.ones_like(masked)
        batch = batch | {"masked": other["masked"]}
        said, target, masked = system.predictions_and_targets(batch)
        other["waveform"] = torch.randn_like(batch["waveform"]) * batch["waveform_mask"]
    said_then, target_then, masked_then = system.predictions_and_targets(other)
    assert torch.equal(masked, masked_then)
    assert not torch.allclose(target[masked], target_then[masked], atol=1e-2)
    if name == "data2vec-audio":  # padding is no gap
        close(said[masked], said_then[masked])
    else:
        close(said, said_then)


@pytest.mark.parametrize("name", NAMES)
def test_the_target_is_of_as_many_last_mlps_as_the_configuration_says(name):
    system, batch = made(name, top_layers=2)
    system.eval()
    heard = []
    for block in system.blocks_of(system.teacher):
        block.mlp.register_forward_pre_hook(lambda part, inputs: heard.append(inputs[0]))
    target = system.predictions_and_targets(batch)[1]
    layers = [block.mlp(x) for block, x in zip(system.blocks_of(system.teacher), list(heard))]
    if name == "data2vec-audio":
        real = system.encoder.frame_mask(batch["waveform"], batch["waveform_mask"])
        for i, row in enumerate(real):  # as if each clip were alone and as long as it is
            found = [F.instance_norm(layer[i, row].T[None])[0].T for layer in layers[1:]]
            close(target[i, row], (found[0] + found[1]) / 2)
    else:
        found = sum(F.layer_norm(layer, layer.shape[-1:]) for layer in layers[1:]) / 2
        close(target, found[:, 1:] if name == "data2vec-vision" else found)


@pytest.mark.parametrize("beta", [0.0, 0.7])
@pytest.mark.parametrize("name", NAMES)
def test_the_loss_is_of_what_is_hidden_and_real(name, beta):
    system, batch = made(name, beta=beta)
    system.eval()
    if name == "data2vec-audio":
        batch = batch | {"masked": torch.ones_like(system.predictions_and_targets(batch)[2])}
        where = system.encoder.frame_mask(batch["waveform"], batch["waveform_mask"])
        assert not where.all()
    else:
        where = batch["masked_patches"] if name == "data2vec-vision" else batch["token_label"] != IGNORED
    said, target, _ = system.predictions_and_targets(batch)
    expected = F.smooth_l1_loss(said[where], target[where], beta=beta)  # of 0 it makes the straight distance
    close(system.loss(batch)["regression"], expected if beta else F.mse_loss(said[where], target[where]))


def test_how_much_of_the_teacher_is_explained():
    target, hidden = torch.randn(4, 9, 6), torch.rand(4, 9) < 0.5

    def explained(said):
        system = torch.nn.Module()
        system.predictions_and_targets = lambda batch: (torch.where(hidden[..., None], said, 99.0), target, hidden)
        run = SimpleNamespace(system=system, collate=lambda: lambda samples: {}, on_device=lambda batch: batch)
        return [row["obtained"] for row in masked_features_explained(run, []).values()]

    assert explained(target)[0] == pytest.approx(1.0)
    share, spread = explained(target[hidden].mean(0).expand_as(target))
    assert abs(share) < 0.1
    assert spread == pytest.approx(target[hidden].var(0).mean().item())


@pytest.mark.parametrize("name", NAMES)
def test_the_target_does_not_depend_on_where_gaps_are(name):
    system, batch = made(name)
    system.eval()
    if name == "data2vec-text":
        label = batch["token_label"]
        whole = torch.where(label == IGNORED, batch["tokens"], label)
        other = batch | {"tokens": whole, "token_label": whole.masked_fill(~batch["mask"], IGNORED)}
    else:
        key = "masked_patches" if name == "data2vec-vision" else "masked"
        hidden = system.predictions_and_targets(batch)[2]
        batch, other = batch | {key: hidden}, batch | {key: ~hidden}
    one, two = (system.predictions_and_targets(each)[1] for each in (batch, other))
    real = batch.get("mask", torch.ones(one.shape[:2], dtype=torch.bool))
    close(one[real], two[real])


@pytest.mark.parametrize("name", NAMES)
def test_blocks_follow_slowly_and_all_else_at_once(name):
    system, _ = made(name, decay_start=0.5, decay_end=0.9, decay_steps=4)
    assert [round(system.decay, 3)] == [0.5]
    for step in range(3):
        before = copy.deepcopy(dict(system.teacher.named_parameters()))
        for parameter in system.encoder.parameters():
            parameter.data.add_(0.1 * torch.randn_like(parameter))
        decay = system.decay
        assert decay == pytest.approx(0.5 + 0.1 * step)
        system.after_step()
        for (key, slow), fast in zip(system.teacher.named_parameters(), system.encoder.parameters()):
            followed = decay * before[key] + (1 - decay) * fast if ".blocks." in key else fast
            close(slow, followed)
    assert int(system.steps) == 3
    assert sum(".blocks." in key for key in before) > 20


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_dropped_in_the_teacher(name):
    system, batch = made(name)
    for part in system.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.5
    system.train()
    assert not any(part.training for part in system.teacher.modules())
    if name == "data2vec-audio":
        batch = batch | {"masked": system.predictions_and_targets(batch)[2]}
    assert torch.equal(system.predictions_and_targets(batch)[1], system.predictions_and_targets(batch)[1])


@pytest.mark.parametrize("name", NAMES)
def test_what_cannot_be_is_told(name):
    with pytest.raises(ValueError, match=r"top_layers is from 1 to the 3 blocks of the encoder, not 4\."):
        made(name, top_layers=4)
    system, batch = made(name, pretrain=False)
    with pytest.raises(ValueError, match="Nothing to learn"):
        system.loss(batch)
