"""Vokenization: pictures become vokens in training; a text's vokens are those of the whole text, and do not teach."""

import dataclasses

import torch
import torch.nn.functional as F
from testing_tools import close, count_parameters, pairs, refused, shaken
from torch import nn

from mmlearn.models.text.vokenization import Vokenization, VokenizationConfig
from mmlearn.recipes.vokenization import RECIPE

FEATURES = 12


class Means(nn.Module):
    """A picture network that is quick: the mean colours of four parts."""

    def forward(self, image):
        return F.adaptive_avg_pool2d(image, 2).flatten(1)


def small(**changes):
    config = VokenizationConfig.tiny()
    vokenizer = dataclasses.replace(config.vokenizer, image_width=FEATURES, num_vokens=10, **changes)
    return shaken(Vokenization(dataclasses.replace(config, vokenizer=vokenizer), Means()))


def with_gaps(batch):
    hidden = (torch.arange(12) % 3 == 1) & batch["mask"]
    gaps = {"tokens": batch["tokens"].masked_fill(hidden, 3)}
    return batch | gaps | {"token_label": batch["tokens"].masked_fill(~hidden, -100)}


def test_the_last_images_are_vokens_in_training_alone():
    model, batch = small(), pairs(8)
    before = model.vokenizer.vokens.clone()
    model.eval().match_loss(batch)
    assert torch.equal(model.vokenizer.vokens, before)
    model.train()
    features, other = model.vokenizer.image_features(batch["image"]), pairs(8, seed=1)
    model.match_loss(batch)
    close(model.vokenizer.vokens[:8], features)
    assert torch.equal(model.vokenizer.vokens[8:], before[8:])
    model.match_loss(other)  # which goes over the oldest
    seen = torch.cat([features, model.vokenizer.image_features(other["image"])])
    close(model.vokenizer.vokens, torch.cat([seen[10:16], seen[6:8], seen[8:10]]))
    model.vokenizer.push(torch.arange(15 * FEATURES).view(15, FEATURES).float())
    assert model.vokenizer.vokens.sort(0).values[0, 0] == 5 * FEATURES  # of too many the last


def test_the_first_stage_is_the_hinge_of_what_is_encoded():
    model, batch = small().eval(), pairs(5)
    loss = model.match_loss(batch | {"caption_id": torch.tensor([0, 1, 0, 2, 3])})["match"]
    image, text = model.encode_image(batch["image"]), model.encode_text(batch["tokens"], batch["mask"])
    for x in (image, text):
        close(x.norm(dim=-1), torch.ones(x.shape[:-1]))
    score, total, count = torch.einsum("std,xd->stx", text, image), 0.0, 0
    for s, wrong in enumerate([(1, 3, 4), (0, 2, 3, 4), (1, 3, 4), (0, 1, 2, 4), (0, 1, 2, 3)]):
        short = (0.5 - score[s, :, s, None] + score[s][:, list(wrong)]).clamp(min=0).mean(1)
        total, count = total + short[batch["mask"][s]].sum(), count + batch["mask"][s].sum()
    close(loss, total / count)


def test_a_token_is_known_by_its_last_blocks_and_its_context():
    model, batch = small().eval(), pairs(4)
    assert model.vokenizer.token_projection[0].in_features == 2 * 64
    one, other = batch["tokens"].clone(), batch["tokens"].clone()
    other[:, 2] = (other[:, 2] + 1) % 500 + 4
    mask = torch.ones_like(batch["mask"])
    changed = (model.encode_text(one, mask) - model.encode_text(other, mask)).abs().amax(-1)
    assert (changed > 1e-4).all()
    alone = small(matched_layers=1).vokenizer
    assert alone.token_projection[0].in_features == 64


def test_vokens_are_those_of_the_whole_text_and_do_not_teach():
    model, batch = small().train(), with_gaps(pairs(6))
    whole = torch.where(batch["token_label"] == -100, batch["tokens"], batch["token_label"])
    losses, output = model.loss(batch), model(batch["tokens"], batch["mask"])
    vokens = model.vokenizer.retrieve(whole, batch["mask"])
    assert not torch.equal(vokens, model.vokenizer.retrieve(batch["tokens"], batch["mask"]))
    real = batch["mask"]
    close(losses["voken"], F.cross_entropy(output.voken_logits[real], vokens[real]))
    close(losses["mlm"], F.cross_entropy(output.token_logits.flatten(0, 1), batch["token_label"].flatten()))
    sum(losses.values()).backward()
    assert all(parameter.grad is None for parameter in model.vokenizer.parameters())
    assert model.voken_head.weight.grad.any()


def test_nothing_is_dropped_where_vokens_are_found():
    model, batch = small(match_dropout=0.5, dropout=0.5).train(), with_gaps(pairs(6))
    assert model.loss(batch) == model.loss(batch)
    assert model.match_loss(batch) != model.match_loss(batch)


def test_the_second_stage_reads_no_image():
    batch = with_gaps(pairs(6))
    del batch["image"]
    assert small().loss(batch).keys() == {"mlm", "voken"}
    refused("the batch has no token_label", small().loss, pairs(6))
    names = [{type(field).__name__ for field in RECIPE.fields(stage.tasks())} for stage in RECIPE.stages]
    assert names == [{"Tokens", "Image"}, {"Tokens"}]


def test_two_berts_and_what_stands_on_them():
    """BERT-base twice, its language head, a layer for 50,000 vokens and two MLPs."""
    bert, head = 109_482_240 - 590_592, 768 * 768 + 768 + 2 * 768 + 30_522
    mlps = sum((inputs + 1) * 256 + 257 * 64 for inputs in (4 * 768, 1280))
    model = lambda config: Vokenization(config, nn.Identity())  # noqa: E731
    assert count_parameters(model, VokenizationConfig()) == 2 * bert + head + 769 * 50_000 + mlps
