"""CLIP equals Transformers' CLIPModel: embeddings, scale, loss, gradients."""

import pytest
import torch
from published import sizes
from testing_tools import close
from transformers import CLIPConfig, CLIPModel

from mmlearn.objectives import info_nce

CASES = {
    "odd": dict(
        text=sizes(24, 2, 3, 50, vocab_size=99, max_position_embeddings=11, eos_token_id=98),
        vision=sizes(40, 2, 5, 33, image_size=31, patch_size=7),
        projection_dim=20,
        batch=3,
        length=11,
    ),
    "legacy end token": dict(
        text=sizes(32, 1, 2, 64, vocab_size=64, max_position_embeddings=16, eos_token_id=2, hidden_act="gelu"),
        vision=sizes(48, 3, 6, 96, image_size=32, patch_size=16, hidden_act="gelu"),
        projection_dim=16,
        batch=4,
        length=9,
    ),
    "batch of one": dict(
        text=sizes(16, 1, 1, 24, vocab_size=50, max_position_embeddings=6, eos_token_id=49),
        vision=sizes(28, 1, 7, 56, image_size=20, patch_size=5),
        projection_dim=12,
        batch=1,
        length=6,
    ),
}


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_clip(case, padded, twins, assert_same_gradients):
    case = CASES[case]
    torch.manual_seed(1)
    published, ours = twins(
        CLIPModel(
            CLIPConfig(text_config=case["text"], vision_config=case["vision"], projection_dim=case["projection_dim"])
        )
    )
    batch, length, vocab = case["batch"], case["length"], case["text"]["vocab_size"]
    size = case["vision"]["image_size"]
    image, tokens = torch.randn(batch, 3, size, size), torch.randint(3, vocab - 1, (batch, length))
    end = torch.arange(batch) % (length - 2) + 1 if padded else torch.full((batch,), length - 1)
    tokens[torch.arange(batch), end] = vocab - 1
    mask = torch.arange(length) <= end[:, None] if padded else None

    expected = published(
        input_ids=tokens, pixel_values=image, attention_mask=None if mask is None else mask.long(), return_loss=True
    )
    output = ours(image=image, tokens=tokens, mask=mask)
    close(output.image_embedding, expected.image_embeds)
    close(output.text_embedding, expected.text_embeds)
    close(output.logit_scale * output.image_embedding @ output.text_embedding.T, expected.logits_per_image)
    loss = info_nce(*output)
    close(loss, expected.loss)
    # A batch of one has a loss of 0 whatever it holds, so let the embeddings count by themselves as well.
    (loss + output.image_embedding[:, 0].sum() + output.text_embedding[:, 1].sum()).backward()
    (expected.loss + expected.image_embeds[:, 0].sum() + expected.text_embeds[:, 1].sum()).backward()
    assert_same_gradients(published, ours)


def test_sharded_checkpoint(twins):
    published, ours = twins(
        CLIPModel(
            CLIPConfig(text_config=CASES["odd"]["text"], vision_config=CASES["odd"]["vision"], projection_dim=20)
        ),
        max_shard_size="20KB",
    )
    image = torch.randn(2, 3, 31, 31)
    close(
        ours.encode_image(image),
        torch.nn.functional.normalize(published.get_image_features(image).pooler_output, dim=-1),
    )
