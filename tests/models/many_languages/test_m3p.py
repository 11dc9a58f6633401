"""M3P: texts alone see no picture, captions with pictures change the language, and hidden regions come back."""

import torch
import torch.nn.functional as F
from batches import read, scenes
from testing_tools import close, seeded, shaken

from mmlearn.models.many_languages.m3p import M3P, M3PConfig
from mmlearn.recipes.m3p import RECIPE


def built():
    return shaken(M3P(M3PConfig.tiny()).eval())


def test_texts_of_each_language_are_read_alone():
    model, batch, generator = built(), scenes(), seeded(4)
    other = torch.randint(4, 500, (6, 9), generator=generator)
    real = torch.arange(9) < 9 - torch.arange(6)[:, None]
    hidden = (torch.arange(9) % 4 == 2) & real
    texts = {"translation": other.masked_fill(hidden, 3), "translation_mask": real}
    texts |= {"translation_label": other.masked_fill(~hidden, -100)}
    losses, total, count = model.loss(batch | texts), 0.0, 0
    assert losses.keys() == {"xmlm"}
    pairs = (("tokens", "mask", "token_label"), ("translation", "translation_mask", "translation_label"))
    for tokens, mask, label in pairs:
        for i in range(6):
            whole = batch | texts
            row, asked = (whole[name][i][whole[mask][i]] for name in (tokens, label))
            regions, boxes, unreal = torch.zeros(1, 1, 216), torch.zeros(1, 1, 4), torch.zeros(1, 1, dtype=torch.bool)
            logits = model.token_logits(model(regions, boxes, row[None], None, unreal).tokens[0])
            total, count = total + F.cross_entropy(logits, asked, reduction="sum"), count + (asked != -100).sum()
    close(losses["xmlm"], total / count)
    blind = model.loss(batch | texts | {"regions": batch["regions"] + 1, "boxes": batch["boxes"] / 2})
    assert torch.equal(blind["xmlm"], losses["xmlm"])


def test_a_region_is_its_features_and_its_position():
    model, batch = built(), scenes()
    left, top, right, bottom = batch["boxes"].unbind(-1)
    position = torch.stack([left, top, right, bottom, (right - left) * (bottom - top)], -1)
    shown = batch["regions"].masked_fill(batch["masked_regions"][..., None], 0)
    x = F.linear(shown, model.region_projection.weight, model.region_projection.bias) + model.box_projection(position)
    x = torch.cat([model.embedding(batch["tokens"]), F.layer_norm(x, (64,), *model.region_norm.parameters(), 1e-12)], 1)
    states = model.transformer(x, torch.cat([batch["mask"], batch["region_mask"]], 1))
    output = read(model, batch)
    close(output.tokens[batch["mask"]], states[:, :12][batch["mask"]])
    close(output.regions[batch["region_mask"]], states[:, 12:][batch["region_mask"]])


def test_hidden_regions_of_true_pairs_are_regressed_and_classified():
    model, batch = built(), scenes()
    hidden = batch["masked_regions"] & (batch["match_label"] == 1)[:, None]
    x, losses = read(model, batch).regions[hidden], model.loss(batch)
    assert losses.keys() == {"mlm", "itm", "mrfr", "mrc"}
    close(losses["mrfr"], (model.region_regression(x) - batch["region_target"][hidden]).square().sum(1).mean())
    close(losses["mrc"], F.cross_entropy(model.region_classifier(x), batch["region_classes"][hidden].argmax(-1)))
    junk = torch.where(batch["masked_regions"][..., None], 7.0, batch["regions"])
    assert all(torch.equal(loss, losses[name]) for name, loss in model.loss(batch | {"regions": junk}).items())


def test_captions_with_images_are_switched_and_texts_alone_are_not():
    tasks = [task[0].name for task in RECIPE.stage().tasks()]
    assert tasks == ["xmlm", "mlm", "mrm", "itm"]
    alone, _, switched, _ = RECIPE.examples(RECIPE.tiny())
    caption = torch.where(alone["token_label"] == -100, alone["tokens"], alone["token_label"])
    translation, both = switched["translation"], 0
    for said, here, there in zip(switched["tokens"].tolist(), caption.tolist(), translation.tolist()):
        ordinary = set(said) - {0, 1, 2}
        assert ordinary <= {*here, *there}
        both += bool(ordinary & {*here}) and bool(ordinary & {*there})
    assert both > 2
