"""FLAVA: which labels teach what, what wrong pairs do not teach, and a modality that is missing."""

import dataclasses

import pytest
import torch
from testing_tools import close

from mmlearn.models.unified.flava import FLAVA, FLAVAConfig
from mmlearn.objectives import matched_info_nce
from mmlearn.objectives.masked import IGNORED
from mmlearn.recipes.discovery import find_recipe

CONFIG = FLAVAConfig.tiny()


def system(**changes):
    torch.manual_seed(0)
    return FLAVA(dataclasses.replace(CONFIG, **changes)).eval()


def batches():
    """Of texts, of pictures, of pairs."""
    return list(find_recipe("flava").examples(CONFIG))


def test_labels_say_what_is_learned():
    model = system()
    assert [list(model.loss(batch)) for batch in batches()] == [
        ["mlm"],
        ["mim"],
        ["itc", "itm", "mmm_image", "mmm_text"],
    ]


def test_what_stands_beside_a_modality_alone_changes_nothing():
    model, (texts, images, _) = system(), batches()
    for batch, other in ((texts, "image"), (images, "tokens")):
        changed = batch | {other: batch[other].flip(0)}
        assert model.loss(batch) == model.loss(changed)
        assert model.loss({name: value for name, value in batch.items() if name != other}) == model.loss(batch)


def test_wrong_pairs_teach_no_masked_modelling():
    model, (_, _, pairs) = system(), batches()
    wrong = pairs["match_label"] == 0
    assert wrong.any()
    label, code = pairs["token_label"], pairs["code"]
    other = pairs | {"code": torch.where(wrong[:, None], (code + 1) % 64, code)}
    close(model.loss(pairs)["mmm_image"], model.loss(other)["mmm_image"])
    nothing = pairs | {"token_label": label.masked_fill(wrong[:, None], IGNORED)}
    close(model.loss(pairs)["mmm_text"], model.loss(nothing)["mmm_text"])


def test_the_contrast_sees_no_gaps():
    model, (_, _, pairs) = system(), batches()
    label = pairs["token_label"]
    whole = torch.where(label == IGNORED, pairs["tokens"], label)
    other = pairs | {"tokens": whole, "masked_patches": torch.zeros_like(pairs["masked_patches"])}
    close(model.loss(pairs)["itc"], model.loss(other)["itc"])
    assert not torch.allclose(model.loss(pairs)["itm"], model.loss(other)["itm"], atol=1e-4)


def test_equal_captions_are_all_right():
    model, (_, _, pairs) = system(), batches()
    label, caption_id = pairs["token_label"], torch.arange(8) // 2
    text = model.encode_text(torch.where(label == IGNORED, pairs["tokens"], label), pairs["mask"])
    both = model.encode_image(pairs["image"]), text, model.logit_scale.exp(), pairs["match_label"] == 1
    close(model.loss(pairs | {"caption_id": caption_id})["itc"], matched_info_nce(*both, caption_id))


def test_hidden_patches_are_not_seen():
    model, (_, images, _) = system(), batches()
    masked, image = images["masked_patches"], images["image"]
    cells = masked.view(-1, 4, 4).repeat_interleave(16, 1).repeat_interleave(16, 2)[:, None]
    other = torch.where(cells, torch.randn_like(image), image)
    close(model(image=image, masked_patches=masked).code_logits, model(image=other, masked_patches=masked).code_logits)


def test_the_temperature_stays_in_bounds():
    model = system()
    for start, end in ((9.0, 4.6052), (-1.0, 0.0)):
        model.logit_scale.data.fill_(start)
        model.after_step()
        assert model.logit_scale.item() == pytest.approx(end)


def test_what_is_missing_or_wrong_is_told_in_one_line():
    model, (texts, _, pairs) = system(), batches()

    def refused(match, batch, model=model):
        with pytest.raises(ValueError, match=match) as told:
            model.loss(batch)
        assert "\n" not in str(told.value)

    without = {name: value for name, value in pairs.items() if name != "image"}
    refused(r"^The batch has masked_patches, but no image: this modality is missing\.$", without)
    refused("Nothing to learn: the batch has neither", {"tokens": texts["tokens"]})
    refused("Code 64 is outside the codebook, which has codes 0 to 63", pairs | {"code": pairs["code"] * 0 + 64})
    refused("set pretraining_heads", pairs, system(pretraining_heads=False))
    with pytest.raises(ValueError, match="Nothing to read: give tokens, an image, or both"):
        model()
    with pytest.raises(
        ValueError, match=r"masked_patches is boolean \(8, 16\) for these pictures, got torch.bool \(8, 9\)"
    ):
        model(image=pairs["image"], masked_patches=torch.ones(8, 9, dtype=torch.bool))
