"""Frozen features: computed once, of positions and of boxes, and read by systems as pictures or as regions."""

from pathlib import Path

import pytest
import torch
from testing_tools import Listed, refused

from mmlearn.data import load
from mmlearn.data.fields import Image, Regions, size
from mmlearn.data.grid_features import GridDetector, as_channels, grid_features, grid_of, region_features
from mmlearn.data.synthetic.collages import Collages
from mmlearn.data.synthetic.cutouts import NOUNS
from mmlearn.layers.embeddings import patchify
from mmlearn.models.contrastive.clip import CLIPConfig
from mmlearn.pretrained.backbone import load_backbone
from mmlearn.training.evaluate import measure
from mmlearn.training.runs import load_run, new_run, save_run


@pytest.fixture(autouse=True)
def own_home(tmp_path, monkeypatch):
    monkeypatch.setenv("MMLEARN_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="module")
def samples():
    return load("collages", "val").__getitems__(range(6))


def test_a_position_is_what_the_network_says_of_it_with_mean_0_and_variance_1(samples):
    images = torch.stack([sample.image for sample in samples])
    grid = grid_features(images)
    assert grid.shape == (6, 36, 96)
    torch.testing.assert_close(grid.mean(-1), torch.zeros(6, 36), atol=1e-3, rtol=0)
    torch.testing.assert_close(grid.var(-1, correction=0), torch.ones(6, 36), atol=1e-2, rtol=0)
    network = load_backbone()
    with torch.no_grad():
        found = network.features[:14]((images[:1] - network.mean) / network.std)[0]
    for row, column in ((0, 0), (2, 5)):
        one = found[:, row, column]
        expected = (one - one.mean()) / one.std(correction=0)
        torch.testing.assert_close(grid[0, 6 * row + column], expected, atol=5e-3, rtol=0)
    assert grid_features(torch.rand(1, 3, 64, 96), keep=False).shape == (1, 24, 96)
    refused("at least 32 pixels, got", grid_features, torch.rand(1, 3, 16, 16))


def test_they_are_computed_once(own_home, monkeypatch):
    import mmlearn.data.grid_features as module

    images = torch.rand(2, 3, 32, 32)
    first = grid_features(images)
    monkeypatch.setattr(module.F, "layer_norm", None)  # what is computed anew fails
    assert torch.equal(grid_features(images), first)
    assert len(list((own_home / "features").iterdir())) == 1
    with pytest.raises(TypeError):
        grid_features(images, keep=False)
    with pytest.raises(TypeError):
        grid_features(images + 1e-3)


def test_a_region_is_the_mean_of_what_its_box_holds():
    grid = torch.randn(1, 36, 96)
    whole, cell = torch.tensor([0.0, 0.0, 1.0, 1.0]), torch.tensor([2 / 6, 1 / 6, 4 / 6, 3 / 6])
    found = region_features(grid, torch.stack([whole, cell])[None])
    assert found.shape == (1, 2, 96)
    inside = grid[0].unflatten(0, (6, 6))[1:3, 2:4].mean((0, 1))
    assert (found[0, 1] - inside).norm() < 0.5 * inside.norm() + 1e-3
    constant = region_features(
        torch.ones(1, 36, 96), torch.rand(1, 3, 2).repeat(1, 1, 2) * 0.4 + torch.tensor([0, 0, 0.3, 0.3])
    )
    torch.testing.assert_close(constant, torch.ones(1, 3, 96))


def test_as_a_picture_each_pixel_is_a_position():
    grid = torch.randn(2, 36, 96)
    image = as_channels(grid)
    assert image.shape == (2, 96, 6, 6)
    assert torch.equal(patchify(image, 1), grid)


def test_collages_have_them_where_they_are_asked_for():
    data = load("collages", "val", grid=True, pictures=3)
    plain = load("collages", "val", pictures=3)
    assert plain[0].grid is None
    images = torch.stack([plain[i].image for i in (2, 1, 5)])
    found = grid_of([data[2], data[1], data[5]])  # picture 2 again
    torch.testing.assert_close(found, grid_features(images), atol=2e-2, rtol=0)  # other batches round otherwise
    assert torch.equal(found[0], found[2])
    assert data[0].drawn(128).grid is None
    assert load("collages", grid=True).pictures == 4096


def test_a_collage_is_laid_out_once(monkeypatch):
    laid, first = [], Collages._first
    monkeypatch.setattr(Collages, "_first", lambda self, picture: laid.append(picture) or first(self, picture))
    data = load("collages", "val", grid=True, pictures=3)
    assert [sample.grid is not None for sample in data.__getitems__([2, 0, 4])] == [True] * 3
    assert len(laid) == len(set(laid))


@pytest.mark.parametrize("name", ["filip", "detr", "vilt", "uniter", "albef"])
def test_systems_read_them(name, tmp_path):
    """They come back from a run's folder, and measures work of them."""
    data = load("collages", "train", grid=True, pictures=8, length=40)
    run = new_run(name, data, options={"frozen_grid": True})
    samples = data.__getitems__(range(8))
    batch = run.collate()(samples)
    if name != "uniter":
        assert torch.equal(batch["image"], as_channels(grid_of(samples)))
        assert size(run.system.config, "channels") == 96
        assert not any("backbone" in key for key in run.system.state_dict())
    else:
        assert batch["regions"].shape[2] == run.system.config.region_width == 96
        assert batch["region_classes"].shape[2] == 64
    assert all(loss.isfinite() for loss in run.system.loss(batch).values())
    save_run(run, tmp_path / "run")
    from safetensors.torch import save_file

    save_file(run.system.state_dict(), tmp_path / "run" / "model.safetensors")
    again = load_run(tmp_path / "run")
    for entry, value in run.plain(samples).items():
        assert torch.equal(again.plain(samples)[entry], value)
    objectives = [each for each in again.stage.objectives().values() if each.name in ("itm", "itc", "mlm", "detection")]
    rows = measure(again, samples, objectives)
    found = {
        "filip": {"pointing accuracy", "similarity lost by hiding the ground"},
        "detr": {"average precision, boxes that share half"},
        "vilt": {"masked-word accuracy"},
        "uniter": {"hidden grounded word"},
        "albef": {"pointing accuracy", "hidden grounded word"},
    }
    assert set(rows) >= found[name]


def test_who_cannot_read_them_says_so():
    data = load("collages", grid=True, pictures=2)
    refused("take a system with a tower of patches, such as clip", new_run, "vse", data, options={"frozen_grid": True})
    refused("learns from hidden pixels", new_run, "mae", data, options={"frozen_grid": True})
    refused("bert has no option 'frozen_grid'", new_run, "bert", data, options={"frozen_grid": True})
    field = Image(frozen_grid=True, image_size=96).fitted(data, CLIPConfig.tiny(), 0)
    assert field.sizes() == {"image_size": 6, "patch_size": 1, "channels": 96, "convolutions": False}
    assert "as they are" in field.fixed
    assert Image().fixed == ""
    assert Image().save(Path()) == {"mean": None, "std": None, "image_size": 64}


def test_frozen_regions_need_no_picture(samples):
    field = Regions(frozen_grid=True).fitted(Listed(samples), CLIPConfig.tiny(), 0)
    fresh = load("collages", "val", grid=True, pictures=3).__getitems__([0, 2])
    boxes = field(fresh)["boxes"]
    assert not any("image" in vars(sample) for sample in fresh)  # drawing it costs most of a batch
    torch.testing.assert_close(boxes[0, : len(fresh[0].things)], fresh[0].boxes / 96)


@pytest.mark.parametrize("frozen", [False, True])
def test_regions_of_collages(samples, frozen):
    """One for each thing, of the true class; frozen features do not hold the class."""
    field = Regions(frozen_grid=frozen).fitted(Listed(samples), CLIPConfig.tiny(), 0)
    assert field.names == NOUNS
    batch = field(samples)
    for row, sample in enumerate(samples):
        count = len(sample.things)
        assert batch["region_mask"][row].sum() == count
        assert [NOUNS[k] for k in batch["region_classes"][row, :count].argmax(-1)] == list(sample.names)
        torch.testing.assert_close(batch["boxes"][row, :count], sample.boxes / 96)
    assert batch["regions"].shape[-1] == field.sizes()["region_width"] == (96 if frozen else 3 * 64 + 64)
    assert (batch["regions"][~batch["region_mask"]] == 0).all()
    assert repr(GridDetector(NOUNS)).startswith("GridDetector(64 classes")
