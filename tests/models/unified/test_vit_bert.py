"""ViT-BERT: each shared weight listens to one modality, teachers are frozen, texts and pictures never meet."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from testing_tools import close

from mmlearn.models.unified.vit_bert import ViTBERT, ViTBERTConfig
from mmlearn.objectives.masked import IGNORED
from mmlearn.objectives.unpaired import complementary
from mmlearn.recipes.discovery import find_recipe

CONFIG = ViTBERTConfig.tiny()


def system(**changes):
    torch.manual_seed(0)
    return ViTBERT(dataclasses.replace(CONFIG, **changes))


def batch():
    return next(find_recipe("vit-bert").examples(CONFIG, stage="joint"))


def test_the_masks_are_complementary_and_cover_every_matrix():
    model = system()
    text, image = model.masks("text"), model.masks("image")
    assert len(text) == 3 * 6
    assert all(complementary(text[name], image[name]) for name in text)


def test_each_weight_gets_the_gradient_of_its_own_modality_alone():
    model = system(mask_rounds=1).train()
    losses = model.loss(batch())
    for names, modality in ((("mlm", "text_kd"), "text"), (("mim", "image_kd"), "image")):
        model.zero_grad()
        sum(losses[name] for name in names).backward(retain_graph=True)
        for name, owned in model.masks(modality).items():
            gradient = model.encoder.get_parameter(name).grad
            assert (gradient[~owned] == 0).all()
            assert (gradient[owned] != 0).float().mean() > 0.9
            assert owned.float().mean().item() == pytest.approx(0.5, abs=0.01)


def test_in_evaluation_and_in_values_nothing_is_masked():
    model, given = system(), batch()
    text = {name: given[name] for name in ("tokens", "mask")}
    close(model.train()(**text), model.eval()(**text))
    model.loss(given)["mlm"].backward()
    name, owned = next(iter(model.masks("image").items()))
    assert (model.encoder.get_parameter(name).grad[owned] != 0).any()


def test_what_texts_own_shrinks_from_round_to_round():
    model = system(mask_rounds=4, mask_every=2, text_share=0.4)
    shares, before = [], model.masks("text")
    for _ in range(10):
        now = {name: mask.clone() for name, mask in model.masks("text").items()}
        assert all((now[name] <= before[name]).all() for name in now)
        shares.append(next(iter(now.values())).float().mean().item())
        before = now
        for parameter in model.encoder.parameters():
            parameter.data.add_(0.01 * torch.randn_like(parameter))
        model.after_step()
    assert [round(share, 2) for share in shares] == [0.85, 0.85, 0.7, 0.7, 0.55, 0.55, 0.4, 0.4, 0.4, 0.4]


def test_texts_and_images_never_meet():
    model, given = system().eval(), batch()
    text = model.loss(given)
    other = model.loss(given | {"image": given["image"].flip(0), "code": given["code"].flip(0)})
    for name in ("mlm", "text_kd"):
        close(text[name], other[name])


def test_labels_and_teachers_speak_of_hidden_positions_alone():
    model, given = system(distillation=0.3, distillation_temperature=2.0).eval(), batch()
    hidden, asked = given["masked_patches"], given["token_label"] != IGNORED
    said = model(given["image"], given["tokens"], given["mask"], hidden)
    taught = {
        "text": (said.token_logits[asked], given["token_label"][asked], asked, model.text_teacher),
        "image": (said.code_logits[hidden], given["code"][hidden], hidden, model.image_teacher),
    }
    inputs = {"text": (given["tokens"], given["mask"]), "image": (given["image"], hidden)}
    losses = model.loss(given)
    for (modality, (logits, right, where, teacher)), label in zip(taught.items(), ("mlm", "mim")):
        wanted = teacher(*inputs[modality])[where]
        close(losses[label], 0.7 * F.cross_entropy(logits, right))
        divergence = F.kl_div((logits / 2).log_softmax(-1), (wanted / 2).softmax(-1), reduction="batchmean")
        close(losses[f"{modality}_kd"], 0.3 * 4 * divergence)


def test_nobody_sees_hidden_patches():
    model, given = system().eval(), batch()
    cells = given["masked_patches"].view(-1, 8, 8).repeat_interleave(8, 1).repeat_interleave(8, 2)[:, None]
    other = given | {"image": torch.where(cells, torch.randn_like(given["image"]), given["image"])}
    for loss in (model.loss, model.teacher_loss):
        assert loss(given) == loss(other)


def test_teachers_learn_first_and_teach_then():
    recipe = find_recipe("vit-bert")
    model, given = system(), batch()
    moved = {stage.name: stage.optimizer_steps[0].trained_names(model) for stage in recipe.stages}
    assert not set(moved["teachers"]) & set(moved["joint"])
    assert set(moved["teachers"]) | set(moved["joint"]) == {name for name, _ in model.named_parameters()}
    sum(model.loss(given).values()).backward()
    assert all(x.grad is None for part in (model.text_teacher, model.image_teacher) for x in part.parameters())
    untaught = system(distillation=0.0).loss(given)
    assert untaught["text_kd"] == untaught["image_kd"] == 0


def test_rounds_of_the_mask_begin_with_the_student():
    model, given = system(mask_every=1), batch()
    before = {name: value.clone() for name, value in model.named_buffers()}
    model.teacher_loss(given)
    for _ in range(3):
        model.after_step()
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())
    model.loss(given)
    model.after_step()
    assert model.steps == 1
    assert all(x.sum() < before[name].sum() for name, x in model.named_buffers() if name.startswith("text_owns"))


def test_what_is_missing_or_wrong_is_told_in_one_line():
    model, given = system(), batch()
    with pytest.raises(ValueError, match=r"^Each batch has texts and pictures, and this one has no image\.$"):
        model.loss({name: value for name, value in given.items() if name != "image"})
    with pytest.raises(ValueError, match="Code 64 is outside the codebook"):
        model.loss(given | {"code": given["code"] * 0 + 64})
    with pytest.raises(ValueError, match="set teachers in its configuration"):
        system(teachers=False).loss(given)
    with pytest.raises(ValueError, match="Nothing to read"):
        model()
    with pytest.raises(ValueError, match="text_share and distillation are from 0 to 1"):
        system(text_share=1.5)
