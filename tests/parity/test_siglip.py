"""SigLIP equals Transformers' SiglipModel: embeddings, scale, bias, loss, gradients."""

import pytest
import torch
from published import sizes
from testing_tools import close
from transformers import SiglipConfig, SiglipModel

from mmlearn.objectives import pairwise_sigmoid

CASES = {
    "odd": dict(
        text=sizes(24, 2, 3, 50, vocab_size=99, max_position_embeddings=11, projection_size=40, pad_token_id=1),
        vision=sizes(40, 2, 5, 33, image_size=31, patch_size=7),
        batch=3,
    ),
    "as wide": dict(
        text=sizes(32, 1, 2, 64, vocab_size=64, max_position_embeddings=16, hidden_act="gelu")
        | dict(projection_size=32, pad_token_id=5),
        vision=sizes(32, 3, 4, 96, image_size=32, patch_size=16, hidden_act="gelu"),
        batch=4,
    ),
    "batch of one": dict(
        text=sizes(16, 1, 1, 24, vocab_size=50, max_position_embeddings=6, projection_size=28, pad_token_id=1),
        vision=sizes(28, 1, 7, 56, image_size=20, patch_size=5),
        batch=1,
    ),
}


@pytest.mark.parametrize("padding", ["none", "read", "masked"])
@pytest.mark.parametrize("case", CASES)
def test_siglip(case, padding, twins, assert_same_gradients):
    case = CASES[case]
    torch.manual_seed(1)
    published, ours = twins(SiglipModel(SiglipConfig(text_config=case["text"], vision_config=case["vision"])))
    batch, length = case["batch"], case["text"]["max_position_embeddings"]
    size = case["vision"]["image_size"]
    image = torch.randn(batch, 3, size, size)
    tokens = torch.randint(6, case["text"]["vocab_size"], (batch, length))
    real = torch.arange(length) <= torch.arange(batch)[:, None] + 2
    if padding != "none":
        tokens[~real] = case["text"]["pad_token_id"]
    mask = real if padding == "masked" else None

    expected = published(
        input_ids=tokens, pixel_values=image, attention_mask=None if mask is None else mask.long(), return_loss=True
    )
    output = ours(image=image, tokens=tokens, mask=mask)
    close(output.image_embedding, expected.image_embeds)
    close(output.text_embedding, expected.text_embeds)
    close(output.logit_scale, published.logit_scale.exp()[0])
    loss = pairwise_sigmoid(*output)
    close(loss, expected.loss)
    assert_same_gradients(published, ours, loss, expected.loss)
