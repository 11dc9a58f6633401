"""CLIP: pairs are learned, by class tokens and by maxima, and the similarity is a sum over patches."""

import dataclasses

import pytest
import torch
from testing_tools import END, close, pairs, refused

from mmlearn.models.contrastive.clip import CLIP, CLIPConfig

TINY = CLIPConfig.tiny()
CLASS = dataclasses.replace(TINY, pooling="class", image=dataclasses.replace(TINY.image, class_token=True))


@pytest.mark.parametrize("config", [TINY, CLASS])
def test_images_and_texts_are_read_as_described(config):
    """A picture at its class token or by each feature's maximum over the patches, a text at its end token."""
    model, batch = CLIP(config), pairs()
    tokens = model.image_encoder(batch["image"])
    projected = tokens @ model.image_projection.weight.T
    expected = projected[:, 0] if config is CLASS else projected.max(1).values
    close(model.encode_image(batch["image"]), expected / expected.norm(dim=-1, keepdim=True))
    words = model.text_encoder(batch["tokens"], batch["mask"])
    for i, row in enumerate(batch["tokens"].tolist()):
        expected = model.text_projection(words[i, row.index(END)])
        close(model.encode_text(batch["tokens"], batch["mask"])[i], expected / expected.norm())


@pytest.mark.parametrize("seed", range(3))
def test_contributions_of_patches_sum_to_the_cosine(seed):
    """And each feature counts for the patch where it is largest, for every text that is asked about."""
    torch.manual_seed(seed)
    model, batch = CLIP(TINY), pairs(b=4, seed=seed)
    output = model(**batch)
    for text in (output.text_embedding, output.text_embedding.roll(1, 0)):
        shares = model.contributions(batch["image"], text)
        assert shares.shape == (4, 16)
        close(shares.sum(1), (output.image_embedding * text).sum(1), 1e-6)
        features = model.image_projection(model.image_encoder(batch["image"]))
        for i in range(4):
            expected = torch.zeros(16)
            for k in range(128):
                expected[features[i, :, k].argmax()] += output.image_embedding[i, k] * text[i, k]
            close(shares[i], expected, 1e-6)


def test_a_class_token_has_no_contributions():
    refused("Only max pooling", CLIP(CLASS).contributions, torch.zeros(1, 3, 64, 64), torch.zeros(1, 128))


@pytest.mark.parametrize("changes", [dict(pooling="mean"), dict(pooling="class"), dict(image=CLASS.image)])
def test_pooling_goes_with_the_class_token(changes):
    refused("'class' with a class token or 'max' without", CLIP, dataclasses.replace(TINY, **changes))
