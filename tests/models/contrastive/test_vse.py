"""VSE++: a GRU step by step, the hardest negative or all, and captions that are no negatives of each other."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from testing_tools import close, overfit, pairs, seeded, shaken
from torch import nn

from mmlearn.models.contrastive.vse import VSE, VSEConfig
from mmlearn.objectives import ranking_hinge, same_caption
from mmlearn.recipes.vse import RECIPE

CONFIG = VSEConfig(image_width=24, word_width=10, width=16, vocab_size=512)


def features(b=8, seed=0):
    """A batch of features in place of pictures."""
    return pairs(b, seed=seed) | {"image": torch.randn(b, 24, generator=seeded(seed))}


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_caption_is_the_last_state_of_a_gru(side):
    """Written out gate by gate, as in Cho et al. 2014; padding at either side is passed over."""
    model, batch = shaken(VSE(CONFIG, nn.Identity())), features()
    tokens, mask = batch["tokens"], batch["mask"]
    if side == "left":
        order = mask.int().argsort(dim=1, stable=True)
        tokens, mask = tokens.gather(1, order), mask.gather(1, order)
    got, gru = model.encode_text(tokens, mask), model.gru
    for row, real, embedding in zip(tokens, mask, got):
        state = torch.zeros(16)
        for word in model.words.weight[row[real]]:
            reset, update, new = (gru.weight_ih_l0 @ word + gru.bias_ih_l0).chunk(3)
            old_reset, old_update, old_new = (gru.weight_hh_l0 @ state + gru.bias_hh_l0).chunk(3)
            reset, update = torch.sigmoid(reset + old_reset), torch.sigmoid(update + old_update)
            state = (1 - update) * torch.tanh(new + reset * old_new) + update * state
        close(embedding, F.normalize(state, dim=0))


def test_a_caption_without_mask_is_real_throughout():
    model, batch = VSE(CONFIG, nn.Identity()), features()
    close(model.encode_text(batch["tokens"]), model.encode_text(batch["tokens"], torch.ones_like(batch["mask"])))


@pytest.mark.parametrize("hardest", [True, False])
def test_the_loss_is_the_hinge_of_both_embeddings(hardest):
    model = VSE(dataclasses.replace(CONFIG, hardest=hardest, margin=0.4), nn.Identity())
    batch = features() | {"caption_id": torch.tensor([0, 1, 2, 0, 4, 5, 6, 1])}
    u, v = model(batch["image"], batch["tokens"], batch["mask"])
    close(torch.stack([x.norm(dim=1) for x in (u, v)]), torch.ones(2, 8))
    expected = ranking_hinge(u, v, 0.4, hardest, same_caption(batch["caption_id"]))
    close(model.loss(batch)["hinge"], expected)
    assert model.loss(batch)["hinge"] < ranking_hinge(u, v, 0.4, hardest)


def test_one_caption_throughout_leaves_nothing_to_rank():
    model, batch = VSE(CONFIG, nn.Identity()), features()
    assert model.loss(batch | {"caption_id": torch.zeros(8, dtype=torch.long)})["hinge"] == 0


@pytest.mark.parametrize(("hardest", "wrong"), [(True, 1), (False, 7)])
def test_where_all_is_alike_the_margin_is_missed_by_all_of_it(hardest, wrong):
    model, batch = VSE(dataclasses.replace(CONFIG, hardest=hardest), nn.Identity()), features()
    alike = {name: batch[name][:1].expand_as(batch[name]) for name in batch}
    expected = RECIPE.stages[0].learns.chance["hinge"](model.config, alike)
    assert expected == pytest.approx(2 * 0.2 * wrong)
    assert model.loss(alike)["hinge"].item() == pytest.approx(expected, rel=1e-5)


def test_the_image_network_of_the_recipe_stays_as_it_is():
    model = RECIPE.make(VSEConfig.tiny()).train()
    before = {name: value.clone() for name, value in model.image_tower.state_dict().items()}
    assert len(before) > 50
    assert not any(module.training for module in model.image_tower.modules())
    overfit(model, pairs() | {"image": torch.rand(8, 3, 32, 32)}, steps=1)
    assert not any(parameter.requires_grad for parameter in model.image_tower.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.image_tower.state_dict().items())
    assert model.image_projection.weight.grad.any()
