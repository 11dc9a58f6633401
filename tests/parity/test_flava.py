"""FLAVA equals Transformers' FlavaForPreTraining: states, logits, each of six losses, gradients, codes."""

import pytest
import torch
from published import sizes
from testing_tools import close
from transformers import FlavaConfig, FlavaForPreTraining, FlavaModel


def settings(image, text, fusion, **more):
    """Widths, depths, heads and MLPs of the three encoders."""
    return dict(
        image_config=sizes(*image, vocab_size=11, image_size=12, patch_size=4),
        text_config=sizes(*text, vocab_size=40, max_position_embeddings=9),
        multimodal_config=sizes(*fusion),
        image_codebook_config=dict(vocab_size=11, hidden_size=4),
        hidden_size=fusion[0],
        **more,
    )


CASES = {
    "one width": settings((24, 2, 3, 50), (24, 2, 3, 50), (24, 1, 3, 50), projection_dim=20),
    "deeper fusion": settings((40, 1, 5, 33), (40, 3, 4, 60), (40, 3, 2, 24), projection_dim=10),
    "small": settings((16, 3, 1, 24), (16, 1, 2, 24), (16, 2, 4, 64), projection_dim=7, layer_norm_eps=1e-6),
}


def inputs(b=4):
    tokens = torch.randint(1, 40, (b, 7))
    mask = torch.arange(7) <= torch.arange(b)[:, None] + 2
    label = torch.where((torch.rand(b, 7) < 0.4) & mask, torch.randint(40, (b, 7)), -100)
    label[:, 1] = tokens[:, 1]
    masked = torch.rand(b, 9) < 0.5
    masked[:, 0] = True
    return dict(
        tokens=tokens,
        mask=mask,
        image=torch.randn(b, 3, 12, 12),
        token_label=label,
        masked_patches=masked,
        code=torch.randint(11, (b, 9)),
    )


def theirs(batch, *names):
    """A batch under their names, of these modalities."""
    given = {}
    if "text" in names:
        whole = torch.where(batch["token_label"] == -100, batch["tokens"], batch["token_label"])
        given |= dict(input_ids=whole, input_ids_masked=batch["tokens"], attention_mask=batch["mask"].long())
        given |= dict(mlm_labels=batch["token_label"].clone())
    if "image" in names:
        given |= dict(pixel_values=batch["image"], bool_masked_pos=batch["masked_patches"])
        given |= dict(mim_labels=batch["code"].clone())
    return given


@pytest.mark.parametrize("match", ["some wrong", "none right", "all right"])
@pytest.mark.parametrize("case", CASES)
def test_pairs(case, match, twins, assert_same_gradients):
    torch.manual_seed(1)
    published, ours = twins(FlavaForPreTraining(FlavaConfig(**CASES[case])))
    batch = inputs()
    label = {"some wrong": [1, 0, 1, 1], "none right": [0] * 4, "all right": [1] * 4}[match]
    batch["match_label"] = torch.tensor(label)
    expected = published(**theirs(batch, "text", "image"), itm_labels=batch["match_label"])
    output = ours(batch["image"], batch["tokens"], batch["mask"], batch["masked_patches"])
    close(output.image_tokens, expected.image_masked_embeddings)
    close(output.text_tokens[batch["mask"]], expected.text_masked_embeddings[batch["mask"]])
    true = torch.tensor(label) == (0 if match == "none right" else 1)  # theirs are of true pairs, or of all
    close(output.tokens[true][:, :11], expected.multimodal_masked_embeddings[:, :11])
    close(output.match_logits, expected.itm_logits)
    losses = ours.loss(batch)
    names = {"itc": "global_contrastive", "itm": "itm", "mmm_image": "mmm_image", "mmm_text": "mmm_text"}
    assert losses.keys() == names.keys()
    for name, value in losses.items():
        close(value, expected.loss_info[names[name]])
    assert_same_gradients(published, ours, sum(losses.values()), expected.loss)


@pytest.mark.parametrize(("modality", "name"), [("text", "mlm"), ("image", "mim")])
@pytest.mark.parametrize("case", CASES)
def test_one_modality_alone(case, modality, name, twins, assert_same_gradients):
    torch.manual_seed(1)
    published, ours = twins(FlavaForPreTraining(FlavaConfig(**CASES[case])))
    batch = inputs(3)
    del batch["token_label" if modality == "image" else "masked_patches"]
    expected = published(**theirs(batch, modality))
    losses = ours.loss(batch)
    assert list(losses) == [name]
    close(losses[name], expected.loss_info[name])
    assert_same_gradients(published, ours, losses[name], expected.loss)


@pytest.mark.parametrize("case", CASES)
def test_encoders_alone(case, twins):
    """With what each makes of whole inputs, and where both are compared."""
    published, ours = twins(FlavaModel(FlavaConfig(**CASES[case])))
    batch = inputs()
    mask = batch["mask"]
    expected = published(input_ids=batch["tokens"], attention_mask=mask.long(), pixel_values=batch["image"])
    output = ours(batch["image"], batch["tokens"], mask)
    close(output.image_tokens, expected.image_embeddings)
    close(output.text_tokens[mask], expected.text_embeddings[mask])
    close(output.tokens[:, :11], expected.multimodal_embeddings[:, :11])
    close(output.tokens[:, 11:][mask], expected.multimodal_embeddings[:, 11:][mask])
    assert output.match_logits is None


def test_codes_of_the_frozen_codebook(twins):
    published, ours = twins(FlavaForPreTraining(FlavaConfig(**CASES["one width"])))
    pixels, batch = torch.randn(4, 3, 24, 24), inputs()
    expected = published.image_codebook.get_codebook_indices(pixels).flatten(1)
    assert torch.equal(ours.codebook(pixels), expected)
    close(ours.codebook.blocks(30 * pixels), published.image_codebook(30 * pixels))
    made = {name: value for name, value in batch.items() if name != "code"} | {"codebook_image": pixels}
    close(ours.loss(made)["mmm_image"], ours.loss(batch | {"code": expected})["mmm_image"])
