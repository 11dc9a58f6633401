"""ViLT: padding never leaks, losses read what they should and nothing else, sizes are the published ones."""

import dataclasses
import json
import math

import pytest
import torch
from testing_tools import assert_rows_are_independent, close, count_parameters, mean_loss, other_padding, overfit, pairs
from torch import nn

from mmlearn.layers import record_attention
from mmlearn.models.fusion.vilt import ViLT, ViLTConfig
from mmlearn.objectives.transport import word_region_alignment

TINY = ViLTConfig.tiny()
MLM = dataclasses.replace(TINY, match_outputs=0, alignment_weight=0.0)
ITM = dataclasses.replace(TINY, language_head=False, alignment_weight=0.0)
WRA = dataclasses.replace(TINY, language_head=False, match_outputs=0)
VQA = dataclasses.replace(WRA, answers=7, alignment_weight=0.0)


def labelled(b=8, seed=0):
    """Pictures and texts with every label: gaps at every third token, pairs that match or do not, answers."""
    batch = pairs(b, seed=seed)
    guess = (torch.arange(12) % 3 == 1) & batch["mask"]
    return batch | {
        "tokens": batch["tokens"].masked_fill(guess, 3),
        "token_label": torch.where(guess, batch["tokens"], -100),
        "match_label": torch.arange(b) % 2,
        "answer": torch.arange(b) % 7,
    }


def read(model, batch):
    return model(batch["tokens"], batch["image"], batch["mask"])


def test_padding_changes_nothing_that_is_real():
    model, batch = ViLT(dataclasses.replace(TINY, answers=7)), pairs()
    mask = batch["mask"]
    output, other = read(model, batch), read(model, batch | {"tokens": other_padding(batch)})
    assert torch.equal(output.tokens[mask], other.tokens[mask])
    for name in ("patches", "pooled", "match_logits", "answer_logits"):
        assert torch.equal(getattr(output, name), getattr(other, name)), name
    longer = torch.nn.functional.pad(batch["tokens"], (0, 9), value=44)
    close(model(longer, batch["image"], torch.nn.functional.pad(mask, (0, 9))).pooled, output.pooled)
    assert not torch.allclose(model(other_padding(batch), batch["image"]).pooled, output.pooled, atol=1e-3)


def test_what_a_picture_is_padded_with_changes_nothing():
    """A picture on a larger canvas is the picture alone, whatever the rest of the canvas shows."""
    model, batch = ViLT(TINY), pairs(4)
    canvas = torch.randn(4, 3, 96, 80)
    canvas[:, :, :64, :64] = batch["image"]
    pixel_mask = torch.zeros(4, 96, 80, dtype=torch.bool)
    pixel_mask[:, :64, :64] = True
    output = model(batch["tokens"], canvas, batch["mask"], None, pixel_mask)
    alone = read(model, batch)
    close(output.pooled, alone.pooled)
    close(output.patches[output.patch_mask].view_as(alone.patches), alone.patches)
    assert output.patches.shape[1] == 1 + 6 * 5
    assert not torch.allclose(model(batch["tokens"], canvas, batch["mask"]).pooled, alone.pooled, atol=1e-3)


def test_every_word_and_patch_reads_every_other():
    model, batch = ViLT(TINY), pairs(1)
    before = torch.cat(model(batch["tokens"], batch["image"])[:2], dim=1)
    for position in (0, 5, 11):
        tokens = batch["tokens"].clone()
        tokens[0, position] = 2
        after = torch.cat(model(tokens, batch["image"])[:2], dim=1)
        assert ((after - before).abs().amax(-1) > 1e-5).all()
    image = batch["image"].clone()
    image[:, :, :16, 16:32] += 1
    after = torch.cat(model(batch["tokens"], image)[:2], dim=1)
    assert ((after - before).abs().amax(-1) > 1e-5).all()
    assert (after - before).abs().amax(-1).argmax() == 12 + 1 + 1  # words, the class token, the first patch


def test_rows_do_not_depend_on_each_other():
    model, batch = ViLT(TINY), pairs()
    assert_rows_are_independent(lambda *rows: model(*rows).pooled, batch["tokens"], batch["image"], batch["mask"])


def test_modalities_and_positions_are_told_apart():
    model, batch = ViLT(TINY), pairs(2)
    before = read(model, batch).pooled
    before.square().sum().backward()
    assert (model.modalities.weight.grad != 0).any(1).all()
    moved = batch["image"].roll(16, dims=3)
    assert not torch.allclose(read(model, batch | {"image": moved}).pooled, before, atol=1e-4)


def test_the_first_word_speaks_for_the_pair():
    model, batch = ViLT(TINY), pairs(2)
    output = read(model, batch)
    close(output.pooled, torch.tanh(model.pooler[0](output.tokens[:, 0])))
    close(output.match_logits, model.match_head(output.pooled))


def test_weights_spread_as_the_configuration_says():
    """All but the picture's and the blocks', which start as a vision transformer's, and answers, at 0.02 always."""
    for std in (0.02, 0.125):
        torch.manual_seed(0)
        model = ViLT(dataclasses.replace(TINY, answers=7, initial_std=std))
        named = [
            (name, part.weight) for name, part in model.named_modules() if isinstance(part, nn.Linear | nn.Embedding)
        ]
        own = [(name, weight) for name, weight in named if not name.startswith(("image_embedding", "transformer"))]
        assert len(own) > 6
        for name, weight in own:
            expected = 0.02 if name.startswith("answer_head") else std
            assert weight.std().item() == pytest.approx(0.88 * expected, rel=0.2)  # what a cut at two deviations leaves
            assert weight.abs().max() <= 2 * expected
    presets = {name: ViLTConfig.preset(name).initial_std for name in ViLTConfig.PRESETS}
    assert presets.pop("tiny") == TINY.width**-0.5
    assert set(presets.values()) == {0.02}


def test_losses_start_at_what_guessing_costs():
    def start(config):
        return mean_loss(lambda: ViLT(dataclasses.replace(config, initial_std=0.02)), labelled)

    assert start(MLM) == pytest.approx(math.log(512), abs=0.05)
    assert start(ITM) == pytest.approx(math.log(2), abs=0.02)
    assert start(dataclasses.replace(ITM, match_outputs=1)) == pytest.approx(math.log(2), abs=0.02)
    assert start(VQA) == pytest.approx(math.log(7), abs=0.05)


def test_answers_start_at_what_guessing_costs_in_tiny_as_it_is():
    assert mean_loss(lambda: ViLT(VQA), labelled) == pytest.approx(math.log(7), abs=0.05)


def test_losses_are_those_whose_labels_are_there():
    model, batch = ViLT(dataclasses.replace(TINY, answers=7)), labelled()
    inputs = {name: batch[name] for name in ("tokens", "image", "mask")}
    for label, names in [("token_label", {"mlm"}), ("match_label", {"itm", "wra"}), ("answer", {"vqa"})]:
        assert set(model.loss(inputs | {label: batch[label]})) == names
    assert set(model.loss(batch)) == {"mlm", "itm", "wra", "vqa"}
    with pytest.raises(ValueError, match="Nothing to learn: this ViLT has no head for any label"):
        model.loss(inputs)
    with pytest.raises(ValueError, match="Nothing to learn"):
        ViLT(ITM).loss(inputs | {"token_label": batch["token_label"]})
    with pytest.raises(ValueError, match="at least one"):
        model.loss({name: rows[:0] for name, rows in batch.items()})


def test_words_are_guessed_at_gaps_of_matching_pairs_only():
    model, batch = ViLT(TINY), labelled()
    log_probability = model.token_logits(read(model, batch).tokens).log_softmax(-1)
    terms = {
        row % 2: [
            -log_probability[i, t, token].item()
            for i in range(row % 2, 8, 2)
            for t, token in enumerate(batch["token_label"][i].tolist())
            if token != -100
        ]
        for row in range(2)
    }
    assert model.loss(batch)["mlm"].item() == pytest.approx(sum(terms[1]) / len(terms[1]), abs=1e-5)
    unpaired = {name: rows for name, rows in batch.items() if name != "match_label"}
    both = terms[0] + terms[1]
    assert model.loss(unpaired)["mlm"].item() == pytest.approx(sum(both) / len(both), abs=1e-5)


def test_no_gap_costs_nothing():
    model, batch = ViLT(MLM), labelled()
    loss = model.loss(batch | {"token_label": torch.full_like(batch["tokens"], -100)})["mlm"]
    loss.backward()
    assert loss.item() == 0
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in model.parameters())


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
    before = model.loss(true)["wra"].item()
    assert overfit(model, true, steps=20) < 0.5 * before


def test_alignment_of_a_text_without_words_is_nothing():
    model, batch = ViLT(WRA), labelled(2)
    batch["mask"] = torch.arange(12).expand(2, 12) < 2  # <start> <end>
    loss = model.loss(batch)["wra"]
    loss.backward()
    assert loss.item() == 0
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in model.parameters())


def test_padding_costs_nothing():
    model, batch = ViLT(TINY), labelled()
    other = batch | {"tokens": other_padding(batch)}
    assert {name: loss.item() for name, loss in model.loss(batch).items()} == {
        name: loss.item() for name, loss in model.loss(other).items()
    }


def test_one_score_is_a_logit_against_nothing():
    model, batch = ViLT(dataclasses.replace(ITM, match_outputs=1)), labelled()
    logits = read(model, batch).match_logits
    assert (logits[:, 0] == 0).all()
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits[:, 1], batch["match_label"].float())
    close(model.loss(batch)["itm"], expected)


@pytest.mark.parametrize("config", [MLM, ITM, VQA], ids=["mlm", "itm", "vqa"])
def test_one_batch_is_learned_by_heart(config):
    assert overfit(ViLT(config), labelled(4), steps=60, learning_rate=3e-3) < 0.05


def test_heads_are_built_where_asked():
    output = read(ViLT(dataclasses.replace(TINY, match_outputs=0)), pairs(2))
    assert output.match_logits is output.answer_logits is None
    with pytest.raises(ValueError, match="match_outputs is 2, 1 or 0, got 3"):
        ViLT(dataclasses.replace(TINY, match_outputs=3))


def test_a_head_with_its_own_table_does_not_move_the_words():
    model, batch = ViLT(dataclasses.replace(MLM, tied=False)), labelled(2)
    states = read(model, batch).tokens.detach()
    model.token_logits(states).square().sum().backward()
    assert model.text_embedding.tokens.weight.grad is None
    assert (model.token_table.weight.grad != 0).any()


def test_attention_is_recorded_on_the_grid():
    model, batch = ViLT(TINY).eval(), pairs(2)
    with record_attention(model) as maps:
        recorded = read(model, batch)
    close(recorded.pooled, read(model, batch).pooled)
    assert list(maps) == [f"transformer.blocks.{i}.attention" for i in range(3)]
    rows, columns = model.grid
    weights = maps["transformer.blocks.2.attention"]
    assert (rows, columns) == (4, 4)
    assert weights.shape == (2, 4, 12 + 1 + rows * columns, 12 + 1 + rows * columns)
    close(weights.sum(-1), torch.ones(weights.shape[:-1]))
    padding = (~batch["mask"])[:, None, None].expand(-1, 4, weights.shape[2], -1)
    assert (weights[..., :12][padding] == 0).all()
    assert ViLT(dataclasses.replace(TINY, image_size=(48, 70))).grid == (3, 4)


def test_dropout_acts_in_training_only():
    model, batch = ViLT(dataclasses.replace(TINY, dropout=0.5)), pairs(2)
    seen = []
    model.transformer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    assert not torch.equal(read(model, batch).pooled, read(model, batch).pooled)
    for part in (slice(0, 12), slice(12, None)):  # words, then patches
        assert not torch.equal(seen[0][:, part], seen[1][:, part])
    model.eval()
    assert torch.equal(read(model, batch).pooled, read(model, batch).pooled)


def test_wrong_input_is_told(unchecked):
    model, batch = ViLT(TINY), pairs(2)
    tokens, image, mask = batch["tokens"], batch["image"], batch["mask"]
    with pytest.raises(ValueError, match="Each text has its picture; got 1 images and 2 texts"):
        model(tokens, image[:1])
    with pytest.raises(ValueError, match=r"float tensors of shape \(b, 3, height, width\); got torch.int64"):
        model(tokens, image.long())
    with pytest.raises(ValueError, match=r"A picture of \(15, 64\) pixels is smaller than one 16-pixel patch"):
        model(tokens, image[:, :, :15])
    with pytest.raises(ValueError, match="33 tokens are more than the 32 positions"):
        model(torch.ones(2, 33, dtype=torch.long), image)
    whole = torch.ones(2, 64, 64, dtype=torch.bool)
    for wrong in (whole.long(), whole[:, :32], whole[:1]):
        with pytest.raises(ValueError, match=r"pixel_mask is boolean .*\(2, 64, 64\); got"):
            model(tokens, image, mask, None, wrong)
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
    bare = dataclasses.replace(config, language_head=False, match_outputs=0)
    assert count_parameters(ViLT, bare) == 111_595_008
    assert sizes["language_head"] == 768 * 769 + 2 * 768 + 30_522
    assert sizes["match_head"] == 2 * 769
    own = dataclasses.replace(config, tied=False)
    assert count_parameters(ViLT, own) - count_parameters(ViLT, config) == 30_522 * 768


@pytest.mark.parametrize("preset", ViLTConfig.PRESETS)
def test_presets_survive_json(preset):
    config = ViLTConfig.preset(preset)
    assert ViLTConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    wide = dataclasses.replace(config, image_size=(384, 640))
    assert ViLTConfig.from_dict(json.loads(json.dumps(wide.to_dict()))) == wide


def test_unknown_preset():
    with pytest.raises(ValueError, match="no preset 'B/16'; choose from tiny, B/32"):
        ViLTConfig.preset("B/16")
