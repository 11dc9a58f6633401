"""Multiway: which MLP a token passes, what a stage moves, a modality that is missing; and BEiT-3, as released."""

import dataclasses
import math

import pytest
import torch
from testing_tools import close, count_parameters

from mmlearn.models.unified.multiway import Multiway, MultiwayConfig
from mmlearn.objectives import matched_info_nce
from mmlearn.objectives.masked import IGNORED
from mmlearn.recipes.discovery import find_recipe

CONFIG = MultiwayConfig.tiny()


def system(**changes):
    torch.manual_seed(0)
    return Multiway(dataclasses.replace(CONFIG, **changes)).eval()


def batches():
    """By stage."""
    recipe = find_recipe("multiway")
    return {stage.name: list(recipe.examples(CONFIG, stage=stage.name))[-1] for stage in recipe.stages}


def passed(model, **inputs):
    """Through which MLPs of which blocks a row goes, with how many tokens."""
    seen, hooks = {}, []
    for way, blocks in model.experts.items():
        for i, block in enumerate(blocks):
            note = lambda part, x, y, key=(way, i): seen.update({key: x[0].shape[1]}) if x[0].shape[1] else None  # noqa: E731
            hooks.append(block.register_forward_hook(note))
    model(**inputs)
    for hook in hooks:
        hook.remove()
    return seen


def test_each_token_goes_its_way():
    model, given = system(), batches()["pairs"]
    t, n = given["tokens"].shape[1], 17
    text = dict(tokens=given["tokens"], mask=given["mask"])
    assert passed(model, **text) == {("text", i): t for i in range(3)}
    assert passed(model, image=given["image"]) == {("image", i): n for i in range(3)}
    assert passed(model, **text, image=given["image"]) == {
        ("text", 0): t,
        ("text", 1): t,
        ("image", 0): n,
        ("image", 1): n,
        ("pair", 0): t + n,
    }
    assert len(passed(system(pair_blocks=0), **text, image=given["image"])) == 6


def test_equal_ways_are_one_plain_transformer():
    """Where all modalities have the same weights, it does not matter which way a token goes."""
    model, given = system(pair_blocks=3), batches()["pairs"]
    for i in range(3):
        for way in ("image", "pair"):
            model.experts[way][i].load_state_dict(model.experts["text"][i].state_dict())
    pair = model(given["image"], given["tokens"], given["mask"])
    two = Multiway(dataclasses.replace(CONFIG, pair_blocks=0)).eval()
    two.load_state_dict(model.state_dict(), strict=False)
    close(pair.text_tokens, two(given["image"], given["tokens"], given["mask"]).text_tokens)


def test_stages_move_what_the_paper_moves():
    recipe, model = find_recipe("multiway"), system()
    moved = {stage.name: set(stage.optimizer_steps[0].trained_names(model)) for stage in recipe.stages}
    assert not any(name.startswith(("attention", "experts.image", "norm")) for name in moved["texts"])
    assert not any(name.startswith(("experts.text", "experts.pair", "text")) for name in moved["pictures"])
    assert {name for name in moved["pairs"] if name.startswith("experts.pair")}
    assert set.union(*moved.values()) == {name for name, _ in model.named_parameters()}


def test_labels_say_what_is_learned():
    model = system()
    assert {name: list(model.loss(batch)) for name, batch in batches().items()} == {
        "pictures": ["mim"],
        "texts": ["mlm"],
        "pairs": ["itc", "itm", "mlm"],
        "masked-data": ["mmm_text", "mmm_image"],
    }


def test_wrong_pairs_teach_no_words_and_ask_nothing():
    model, pairs = system(), batches()["pairs"] | {"caption_id": torch.arange(8)}
    wrong, label = pairs["match_label"] == 0, pairs["token_label"]
    assert wrong.any()
    nothing = pairs | {"token_label": label.masked_fill(wrong[:, None], IGNORED)}
    close(model.loss(pairs)["mlm"], model.loss(nothing)["mlm"])
    images, texts = (
        model.encode_image(pairs["image"]),
        model.encode_text(torch.where(label == IGNORED, pairs["tokens"], label), pairs["mask"]),
    )
    close(model.loss(pairs)["itc"], matched_info_nce(images, texts, model.logit_scale.exp(), ~wrong))
    equal = torch.arange(8) // 2
    expected = matched_info_nce(images, texts, model.logit_scale.exp(), ~wrong, equal)
    close(model.loss(pairs | {"caption_id": equal})["itc"], expected)


def test_contrast_and_matching_see_no_gaps():
    model, pairs = system(), batches()["pairs"]
    label = pairs["token_label"]
    whole = pairs | {"tokens": torch.where(label == IGNORED, pairs["tokens"], label)}
    before, after = model.loss(pairs), model.loss(whole)
    close(before["itc"], after["itc"])
    close(before["itm"], after["itm"])
    assert not torch.allclose(before["mlm"], after["mlm"], atol=1e-4)


@pytest.mark.parametrize("stage", ["pictures", "masked-data"])
def test_hidden_patches_are_not_seen(stage):
    model, given = system(), batches()[stage]
    cells = given["masked_patches"].view(-1, 4, 4).repeat_interleave(16, 1).repeat_interleave(16, 2)[:, None]
    other = torch.where(cells, torch.randn_like(given["image"]), given["image"])
    before, after = model.loss(given), model.loss(given | {"image": other})
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_temperature_stays_in_bounds():
    model = system()
    model.logit_scale.data.fill_(9.0)
    model.after_step()
    assert model.logit_scale.item() == pytest.approx(4.6052)


def test_what_is_missing_or_wrong_is_told_in_one_line():
    model, given = system(), batches()

    def refused(match, batch):
        with pytest.raises(ValueError, match=match) as told:
            model.loss(batch)
        assert "\n" not in str(told.value)

    pairs = given["pairs"]
    refused(
        r"^The batch has match_label, but no image: this modality is missing\.$",
        {name: value for name, value in pairs.items() if name != "image"},
    )
    refused("Nothing to learn: the batch has none of", {"tokens": pairs["tokens"]})
    refused("Code 64 is outside the codebook", given["pictures"] | {"code": given["pictures"]["code"] * 0 + 64})
    with pytest.raises(ValueError, match="Nothing to read"):
        model()
    with pytest.raises(ValueError, match="pair_blocks at most 3, not 4"):
        system(pair_blocks=4)


BEIT3 = MultiwayConfig.preset("tiny-beit3")


def waves(*shape, rate=1.0):
    return torch.sin(torch.arange(math.prod(shape), dtype=torch.float64) * rate).view(shape).float()


def test_beit3_states_are_those_of_the_official_code():
    """Numbers that ``BEiT3`` of torchscale gives for these weights and inputs, with its defaults of BEiT-3."""
    model = Multiway(dataclasses.replace(BEIT3, max_length=30, first_position=2)).eval()
    with torch.no_grad():
        for i, (name, weight) in enumerate(sorted(model.named_parameters())):
            wave = 0.3 * waves(*weight.shape, rate=1 + 0.01 * i)
            weight.copy_(1 + wave if "norm" in name and name.endswith("weight") else wave)
    image, tokens = waves(2, 3, 64, 64, rate=0.37), (torch.arange(18) * 37 % 500 + 3).view(2, 9)
    mask, masked_patches = torch.arange(9) < torch.tensor([[9], [6]]), (torch.arange(32) % 3 == 0).view(2, 16)
    pair = model(image, tokens, mask, masked_patches)
    expected = torch.tensor([[0.822961, 0.682882, 0.585762], [0.752644, 0.725831, 0.618673]])
    close(pair.image_tokens[0, [0, 5]][:, [0, 7, 63]], expected, 2e-5)
    expected = torch.tensor([[1.049228, -0.193947, 0.929745], [1.111370, -0.199219, 0.960959]])
    close(pair.text_tokens[1, [0, 5]][:, [0, 7, 63]], expected, 2e-5)
    close(model(image=image).image_tokens[1, [0, 16], 3], torch.tensor([-0.158989, -0.289220]), 2e-5)
    close(model(tokens=tokens, mask=mask).text_tokens[1, [0, 5], 3], torch.tensor([1.630828, 1.696800]), 2e-5)


@pytest.mark.parametrize(("preset", "whole", "encoder"), [("beit3-base", 276, 222), ("beit3-large", 746, 674)])
def test_beit3_has_the_released_sizes(preset, whole, encoder):
    """Official beit3/README.md: of the pretrained models, and of those for retrieval, without heads of masked data."""
    config = MultiwayConfig.preset(preset)
    assert count_parameters(Multiway, config) // 10**6 == whole
    retrieval = count_parameters(Multiway, dataclasses.replace(config, embedding_width=config.width))
    heads = (config.width + 1) * (config.vocab_size + config.codes)
    assert (retrieval - heads) // 10**6 == encoder


def test_beit3_learns_from_masked_data_alone():
    torch.manual_seed(0)
    model, given = Multiway(BEIT3), batches()
    stage = find_recipe("multiway").stages[-1]
    assert set(stage.optimizer_steps[0].trained_names(model)) == {name for name, _ in model.named_parameters()}
    total = 0
    for name, losses in (("pictures", ["mim"]), ("texts", ["mlm"]), ("masked-data", ["mmm_text", "mmm_image"])):
        found = model.loss(given[name])
        assert list(found) == losses
        total = total + sum(found.values())
    total.backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())
    with pytest.raises(ValueError, match="BEiT-3 learns from masked words and patches alone: leave out match_label"):
        model.loss(given["pairs"])
    with pytest.raises(ValueError, match="compares no pictures and texts: set embedding_width"):
        model.encode_image(given["pairs"]["image"])
    with pytest.raises(ValueError, match="BEiT-3 does not learn what belongs together"):
        model.match(given["pairs"]["image"], given["pairs"]["tokens"])
    retrieval = Multiway(dataclasses.replace(BEIT3, embedding_width=32))
    close(retrieval.encode_image(given["pairs"]["image"]).norm(dim=-1), torch.ones(8))


def test_each_modality_of_beit3_has_layers_of_its_own():
    """The projections of words move what words are, and of patches alone nothing."""
    torch.manual_seed(0)
    model, given = Multiway(BEIT3).eval(), batches()["pairs"]
    image, tokens = given["image"], given["tokens"]
    alone, beside = model(image=image).image_tokens, model(image, tokens, given["mask"]).image_tokens
    with torch.no_grad():
        for layer in model.attention:
            layer.attention.value.text.weight.neg_()
    close(model(image=image).image_tokens, alone)
    assert not torch.allclose(model(image, tokens, given["mask"]).image_tokens, beside, atol=1e-3)
