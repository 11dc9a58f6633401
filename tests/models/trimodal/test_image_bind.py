"""ImageBind: pictures bind, nothing else is compared; what a row lacks has no part; frozen encoders stay put."""

import dataclasses

import pytest
import torch
from testing_tools import assert_unit_length, close, count_parameters, other_padding, overfit, pairs, refused
from torch import nn

from mmlearn.layers import ImageEncoder, TextEncoder
from mmlearn.models.trimodal.image_bind import ImageBind, ImageBindConfig
from mmlearn.objectives import info_nce

TINY = ImageBindConfig.tiny()
BY_CLASS = dataclasses.replace(
    TINY,
    image=dataclasses.replace(TINY.image, class_token=True),
    audio=dataclasses.replace(TINY.audio, class_token=True),
    text=dataclasses.replace(TINY.text, causal=True),
    pooling="class",
)
each = pytest.mark.parametrize("config", [TINY, BY_CLASS], ids=["max", "class"])


def three(b=6, seed=0):
    """Pictures, texts and sounds of several lengths."""
    generator = torch.Generator().manual_seed(seed)
    return pairs(b, seed=seed) | {
        "mel": torch.randn(b, 64, 64, generator=generator),
        "mel_mask": torch.arange(64) < 64 - 20 * (torch.arange(b)[:, None] % 3),
    }


def read(model, batch):
    output = model(*(batch[name] for name in ("image", "mel", "tokens", "mel_mask", "mask")))
    return output.image_embedding, *output.other_embeddings.values()


@each
def test_padding_changes_nothing(config):
    model, batch = ImageBind(config), three()
    other = batch | {
        "tokens": other_padding(batch) if config is TINY else batch["tokens"].masked_fill(~batch["mask"], 4),
        "mel": torch.where(batch["mel_mask"][:, None], batch["mel"], torch.nan),
    }
    for got, expected in zip(read(model, other), read(model, batch)):
        assert torch.equal(got, expected)
    audio = model.encode_audio(batch["mel"], batch["mel_mask"])
    assert not torch.allclose(model.encode_audio(batch["mel"])[1], audio[1], atol=1e-3)
    close(model.encode_audio(batch["mel"][1:2, :, :44])[0], audio[1])


@each
def test_embeddings_have_unit_length(config):
    for embedding in read(ImageBind(config), three()):
        assert_unit_length(embedding)


@each
def test_every_word_counts_up_to_the_end_of_a_text(config):
    model, batch = ImageBind(config), three(1)
    before = model.encode_text(batch["tokens"], batch["mask"])
    for position in range(2):  # the third is the end
        tokens = batch["tokens"].clone()
        tokens[0, position] = 2
        assert not torch.allclose(model.encode_text(tokens, batch["mask"]), before, atol=1e-3)


def test_losses_are_info_nce_with_images_only():
    model, batch = ImageBind(TINY), three()
    with torch.no_grad():
        model.logit_scales["audio"].fill_(0.5)
    image, text, audio = read(model, batch)
    losses = model.loss(batch)
    assert set(losses) == {"image_text", "image_audio"}
    close(losses["image_text"], info_nce(image, text, torch.tensor(1 / 0.07)))
    close(losses["image_audio"], info_nce(image, audio, torch.tensor(0.5).exp()))
    assert set(model.loss({name: batch[name] for name in ("image", "mel")})) == {"image_audio"}
    kind = torch.arange(6) % 4
    same = model.loss(batch | {"caption_id": kind})["image_text"]
    close(same, info_nce(image, text, torch.tensor(1 / 0.07), kind[:, None] == kind))
    model.loss({name: batch[name] for name in ("image", "tokens")})["image_text"].backward()
    assert all(parameter.grad is None for parameter in model.encoders["audio"].parameters())


def test_a_row_need_not_have_every_modality():
    """Half of the pictures come with a text, the others with a sound: the two never meet."""
    model, batch = ImageBind(TINY), three()
    batch["mask"][3:] = False
    batch["mel_mask"][:3] = False
    kind = torch.tensor([0, 1, 1, 1, 0, 0])
    losses = model.loss(batch | {"caption_id": kind})
    image, text, audio = read(model, batch)
    scale, same = torch.tensor(1 / 0.07), kind[:, None] == kind
    close(losses["image_text"], info_nce(image[:3], text[:3], scale, same[:3, :3]))
    close(losses["image_audio"], info_nce(image[3:], audio[3:], scale, same[3:, 3:]))
    other = batch | {"mel": torch.where(batch["mel_mask"][:, None], batch["mel"], torch.nan)}
    close(model.loss(other)["image_audio"], model.loss(batch)["image_audio"])
    batch["mask"][:] = False
    losses = model.loss(batch)
    assert losses["image_text"].item() == 0
    sum(losses.values()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_one_batch_is_learned_by_heart_and_binds_what_never_met():
    model, batch = ImageBind(TINY), three(6)
    assert overfit(model, batch, steps=25, learning_rate=3e-3) < 0.1
    _, text, audio = read(model, batch)
    assert ((audio @ text.T).argmax(1) == torch.arange(6)).all()  # no loss compares them


@pytest.mark.parametrize("frozen", [("image",), ("image", "text"), ("audio",)])
def test_frozen_encoders_stay_as_they_are(frozen):
    image = dataclasses.replace(TINY.image, dropout=0.5)
    model, batch = ImageBind(dataclasses.replace(TINY, frozen=frozen, image=image)).train(), three()
    before = {name: value.clone() for name, value in model.encoders.state_dict().items()}
    pair_learns = "image_text" in model.loss(batch)
    overfit(model, batch, steps=1)
    after = model.encoders.state_dict()
    moved = {name.split(".")[0] for name, value in before.items() if not torch.equal(after[name], value)}
    assert moved == {"image", "text", "audio"} - set(frozen)
    assert model.encoders["image"].training == ("image" not in frozen)
    assert pair_learns == model.logit_scales["text"].requires_grad == (frozen != ("image", "text"))


def test_encoders_may_be_given():
    """Any that give a vector, also for a modality of another name."""
    own = {
        "image": nn.Sequential(nn.Flatten(), nn.Linear(12, 8)),
        "depth": nn.Sequential(nn.Flatten(), nn.Linear(5, 8)),
        "text": ImageBind(dataclasses.replace(TINY, embedding_width=8)).encoders["text"],
    }
    model, batch = ImageBind(TINY, own), {"image": torch.randn(4, 3, 2, 2), "depth": torch.randn(4, 5)}
    assert set(model.loss(batch)) == {"image_depth"}
    assert_unit_length(model.encode("depth", batch["depth"]))
    close(model(**batch).other_embeddings["depth"], model.encode("depth", batch["depth"]))
    assert set(model.loss(batch | {"tokens": torch.ones(4, 3, dtype=torch.long)})) == {"image_depth", "image_text"}
    refused(r"no encoder for 'audio'; choose from image, depth, text", model.encode, "audio", batch["depth"])
    for encoders in ({"text": own["text"]}, {"image": own["image"]}):
        refused("Encoders are those of image and of others to bind to it", ImageBind, TINY, encoders)


def test_logits_stay_below_a_hundred():
    model = ImageBind(TINY)
    with torch.no_grad():
        model.logit_scales["audio"].fill_(9.0)
    model.after_step()
    assert model.logit_scales["audio"].exp().item() == pytest.approx(100)
    assert model.logit_scales["text"].exp().item() == pytest.approx(1 / 0.07, rel=1e-5)


def test_wrong_batches_are_told(unchecked):
    model, batch = ImageBind(TINY), three()
    for names in (["image"], ["tokens", "mel"]):
        with pytest.raises(ValueError, match="ImageBind needs image in the batch, and tokens or mel"):
            model.loss({name: batch[name] for name in names})
    refused("at least one picture", model.loss, {name: rows[:0] for name, rows in batch.items()})
    refused("got 5 images and 6 of text", model.loss, batch | {"image": batch["image"][:5]})
    locked = ImageBind(dataclasses.replace(TINY, frozen=("image", "text", "audio")))
    refused("Nothing to learn", locked.loss, batch)
    for pooling in ("class", "mean"):
        refused(f"'max' without, not '{pooling}'", ImageBind, dataclasses.replace(TINY, pooling=pooling))
    assert model.loss({name: rows[:1] for name, rows in batch.items()})["image_audio"].item() == 0


def test_published_sizes():
    """Picture and text towers are OpenCLIP's ViT-H/14: 632.08M and 354.03M by its own table; sound is a ViT-B."""
    config = ImageBindConfig.preset("huge")
    projection = 1024**2
    assert count_parameters(TextEncoder, config.text) + projection == 354_032_640
    assert count_parameters(ImageEncoder, config.image) + 1280 * 1024 == 632_076_800
    with torch.device("meta"):
        model = ImageBind(config)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    # Sound, and its temperature: ViT-B, the norm of patches, a position for each, an extra key and value a block.
    assert trained == 12 * 7_087_872 + 256 * 768 + 2 * 768 + 768 + 229 * 768 + 12 * 2 * 768 + 2 * 768 + 768 * 1024 + 1
