"""MAE: the encoder sees the visible patches only, and what it is asked about the others."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch
from testing_tools import close

from mmlearn.layers import ImageEncoderConfig
from mmlearn.models.vision.mae import MAE, MAEConfig
from mmlearn.recipes.discovery import find_recipe
from mmlearn.recipes.mae import pixels_explained

CONFIG = MAEConfig.tiny()


def system(**changes):
    torch.manual_seed(0)
    return MAE(dataclasses.replace(CONFIG, **changes)).eval()


def batch():
    return next(find_recipe("mae").examples(CONFIG))


def test_hidden_patches_change_nothing_but_the_target():
    model, given = system(), batch()
    before = model(given["image"], given["visible"])
    cells = before.hidden.view(-1, 8, 8).repeat_interleave(8, 1).repeat_interleave(8, 2)[:, None]
    other = torch.where(cells, torch.randn_like(given["image"]), given["image"])
    after = model(other, given["visible"])
    assert torch.equal(before.tokens, after.tokens)
    assert torch.equal(before.prediction, after.prediction)
    assert before.tokens.shape[1] == 1 + 16
    assert not torch.equal(model.target(given["image"]), model.target(other))


def test_the_order_in_which_patches_are_named_changes_nothing():
    model, given = system(), batch()
    before, after = model(given["image"], given["visible"]), model(given["image"], given["visible"].flip(1))
    close(before.prediction, after.prediction)


def test_without_visible_patches_all_are_read():
    assert system()(batch()["image"]).tokens.shape == (8, 65, 64)


def test_how_much_of_what_is_hidden_is_painted():
    """The true pixels are all of it, and the mean of each patch is nothing."""
    model, given = system(normalise_pixels=False), batch()
    output, target = model(given["image"], given["visible"]), model.target(given["image"])

    def explained(said):
        said = torch.where(output.hidden[..., None], said, 99.0)
        run = SimpleNamespace(system=model, plain=lambda samples: given, label=lambda batch, label: batch)
        run.read = lambda batch, measured: measured(output._replace(prediction=said), batch)
        return pixels_explained(run, [])["hidden pixels explained"]["obtained"]

    assert explained(target) == pytest.approx(1.0)
    assert explained(target.mean(-1, keepdim=True).expand_as(target)) == pytest.approx(1 / 192, abs=1e-3)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dict(image=dataclasses.replace(CONFIG.image, class_token=False)), "MAE has a class token"),
        (dict(image=ImageEncoderConfig(64, 1, 2, patch_size=8, convolutions=True)), "no convolutions"),
    ],
)
def test_what_cannot_be_built_is_told(changes, words):
    with pytest.raises(ValueError, match=words):
        system(**changes)


def test_what_cannot_be_learned_is_told():
    given = batch()
    with pytest.raises(ValueError, match=r"set decoder_depth"):
        system(decoder_depth=0).loss(given)
    with pytest.raises(ValueError, match=r"With mask_share 0.75 16 patches are visible, not 3"):
        system().loss(given | {"visible": given["visible"][:, :3]})
    with pytest.raises(ValueError, match=r"paints 64 pixels a side"):
        system().loss(given | {"image": torch.randn(8, 3, 32, 64)})
