"""ViLT: losses read what they should and nothing else, masks of pixels, sizes are the published ones."""

import dataclasses
import math

import pytest
import torch
from batches import labelled
from testing_tools import close, count_parameters, gradient_of_states, mean_loss, overfit, pairs, refused

from mmlearn.models.fusion.vilt import ViLT, ViLTConfig
from mmlearn.objectives.transport import word_region_alignment

TINY = ViLTConfig.tiny()
MLM = dataclasses.replace(TINY, match_outputs=0, alignment_weight=0.0)
ITM = dataclasses.replace(TINY, language_head=False, alignment_weight=0.0)
WRA = dataclasses.replace(TINY, language_head=False, match_outputs=0)
VQA = dataclasses.replace(WRA, answers=7, alignment_weight=0.0)


def read(model, batch):
    return model(batch["image"], batch["tokens"], batch["mask"])


def test_a_yes_or_no_in_one_number_starts_at_what_guessing_costs():
    config = dataclasses.replace(ITM, match_outputs=1, initial_std=0.02)
    assert mean_loss(lambda: ViLT(config), labelled) == pytest.approx(math.log(2), abs=0.02)


def test_alignment_brings_true_pairs_near_and_false_ones_apart():
    """Words without the first and the last, patches without the class token: the official code's choice."""
    model, batch = ViLT(WRA), labelled(4)
    output, expected = read(model, batch), 0
    for i, sign in enumerate([-1, 1, -1, 1]):
        words = output.tokens[i : i + 1, 1 : batch["mask"][i].sum() - 1]
        patches = output.patches[i : i + 1, 1:]
        everything = [torch.ones(x.shape[:2], dtype=torch.bool) for x in (words, patches)]
        expected += sign * word_region_alignment(words, patches, *everything).item() / 4
    assert model.loss(batch)["wra"].item() == pytest.approx(0.1 * expected, abs=1e-6)
    unmasked = {name: rows for name, rows in batch.items() if name != "mask"}
    close(model.loss(unmasked)["wra"], model.loss(batch | {"mask": torch.ones_like(batch["mask"])})["wra"])
    true = batch | {"match_label": torch.ones(4, dtype=torch.long)}
    false = batch | {"match_label": torch.zeros(4, dtype=torch.long)}
    close(model.loss(true)["wra"], -model.loss(false)["wra"])
    assert all(one.any() for one in gradient_of_states(model, true, "wra", "tokens", "patches"))
    before = model.loss(true)["wra"].item()
    assert overfit(model, true, steps=20) < 0.5 * before


def test_alignment_of_a_text_without_words_is_nothing():
    model, batch = ViLT(WRA), labelled(2)
    batch["mask"] = torch.arange(12).expand(2, 12) < 2  # <start> <end>
    loss = model.loss(batch)["wra"]
    loss.backward()
    assert loss.item() == 0
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in model.parameters())


def test_one_score_is_a_logit_against_nothing():
    model, batch = ViLT(dataclasses.replace(ITM, match_outputs=1)), labelled()
    logits = read(model, batch).match_logits
    assert (logits[:, 0] == 0).all()
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits[:, 1], batch["match_label"].float())
    close(model.loss(batch)["itm"], expected)


def test_answers_are_learned_by_heart():
    assert overfit(ViLT(VQA), labelled(4), steps=60, learning_rate=3e-3) < 0.05


def test_heads_are_built_where_asked():
    assert ViLT(dataclasses.replace(TINY, image_size=(48, 70))).grid == (3, 4)
    output = read(ViLT(dataclasses.replace(TINY, match_outputs=0)), pairs(2))
    assert output.match_logits is output.answer_logits is None
    refused("match_outputs is 2, 1 or 0, got 3", ViLT, dataclasses.replace(TINY, match_outputs=3))


def test_a_head_with_its_own_table_does_not_move_the_words():
    model, batch = ViLT(dataclasses.replace(MLM, tied=False)), labelled(2)
    states = read(model, batch).tokens.detach()
    model.token_logits(states).square().sum().backward()
    assert model.text_embedding.tokens.weight.grad is None
    assert (model.token_table.weight.grad != 0).any()


def test_dropout_acts_in_training_only():
    model, batch = ViLT(dataclasses.replace(TINY, dropout=0.5)), pairs(2)
    seen = []
    model.transformer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    assert not torch.equal(read(model, batch).pooled, read(model, batch).pooled)
    for part in (slice(0, 12), slice(12, None)):  # words, then patches
        assert not torch.equal(seen[0][:, part], seen[1][:, part])
    model.eval()
    assert torch.equal(read(model, batch).pooled, read(model, batch).pooled)


def test_masks_of_pixels_that_cannot_be(unchecked):
    model, batch = ViLT(TINY), pairs(2)
    tokens, image, mask = batch["tokens"], batch["image"], batch["mask"]
    whole = torch.ones(2, 64, 64, dtype=torch.bool)
    for wrong in (whole.long(), whole[:, :32], whole[:1]):
        refused(r"pixel_mask is boolean .*\(2, 64, 64\); got", model, image, tokens, mask, None, wrong)
    hole, shifted, empty = whole.clone(), whole.clone(), whole.clone()
    hole[1, 16:32, 16:32] = False
    shifted[1, :16] = False
    empty[1] = False
    for wrong in (hole, shifted, empty):
        with pytest.raises(ValueError, match="one rectangle from the top left"):
            model.loss(batch | {"pixel_mask": wrong, "match_label": torch.ones(2).long()})


def test_published_size():
    """The paper counts 87.4M in the blocks and patches; the rest is Transformers' ViltModel, 111.6M, and the heads."""
    config = ViLTConfig.preset("B/32")
    with torch.device("meta"):
        model = ViLT(config)
    sizes = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children() if part}
    patches = sum(p.numel() for p in model.image_embedding.patches.parameters())
    assert sizes["transformer"] + patches == 87_414_528
    assert sizes["language_head"] == 768 * 769 + 2 * 768 + 30_522
    assert sizes["match_head"] == 2 * 769
    own = dataclasses.replace(config, tied=False)
    assert count_parameters(ViLT, own) - count_parameters(ViLT, config) == 30_522 * 768
