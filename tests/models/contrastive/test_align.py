"""ALIGN: its picture tower is torchvision's EfficientNet, its caption BERT's first token, and its loss is smoothed."""

import math

import pytest
import torch
import torchvision
from testing_tools import close, overfit, pairs, refused

from mmlearn.models.contrastive.align import ALIGN, ALIGNConfig
from mmlearn.objectives import info_nce, same_caption


def test_the_image_tower_of_base_is_torchvisions_b7():
    with torch.device("meta"):
        published = torchvision.models.efficientnet_b7(weights=None).features[:-1]
        ours = ALIGN(ALIGNConfig()).image_encoder
    shapes, strides = (
        [{name: tuple(x.shape) for name, x in network.state_dict().items()} for network in (published, ours)],
        [[part.stride for part in network.modules() if hasattr(part, "stride")] for network in (published, ours)],
    )
    assert shapes[0] == shapes[1]
    assert strides[0] == strides[1]
    assert len(shapes[0]) > 1000


def test_sizes_are_those_that_efficientnet_scales_to():
    """Channels and blocks of B0, times the factors of Tan & Le 2019; for L2, of Xie et al. 2020, table 7."""
    widths, blocks = (32, 16, 24, 40, 80, 112, 192, 320), (1, 2, 2, 3, 3, 4, 1)
    for preset, wider, deeper in (("base", 2.0, 3.1), ("large", 4.3, 5.3)):
        config = ALIGNConfig.preset(preset)
        expected = [max(8, int(wider * width + 4) // 8 * 8) for width in widths]
        assert [config.stem_width, *config.widths] == expected
        assert config.blocks == tuple(math.ceil(deeper * count) for count in blocks)


def test_the_text_has_as_many_features_as_the_image():
    output = ALIGN(ALIGNConfig.tiny()).eval()(**pairs())
    assert output.image_embedding.shape == output.text_embedding.shape == (8, 64)
    for embedding in output[:2]:
        close(embedding.norm(dim=1), torch.ones(8))
    close(output.logit_scale, torch.tensor(10.0))


def test_a_caption_is_its_first_token_after_all_blocks():
    model, batch = ALIGN(ALIGNConfig.tiny()).eval(), pairs()
    tokens, mask = batch["tokens"], batch["mask"]
    states = model.transformer(model.embedding(tokens), mask)[:, 0]
    expected = torch.nn.functional.normalize(states @ model.text_projection.weight.T + model.text_projection.bias)
    close(model.encode_text(tokens, mask), expected)
    refused("padded at its left", model.encode_text, tokens.flip(1), mask.flip(1))


@pytest.mark.parametrize("captions", [None, torch.tensor([0, 1, 2, 0, 4, 5, 6, 1])])
def test_the_loss_is_smoothed(captions):
    model, batch = ALIGN(ALIGNConfig.tiny()).eval(), pairs()
    output, positives = model(**batch), None if captions is None else same_caption(captions)
    batch |= {} if captions is None else {"caption_id": captions}
    close(model.loss(batch)["itc"], info_nce(*output, positives, label_smoothing=0.1))
    assert abs(model.loss(batch)["itc"] - info_nce(*output, positives)) > 1e-3


def test_one_batch_is_learned_down_to_what_smoothing_costs():
    """Odds of 0.9 + 0.1 / 8 for the true one are the best there are: their entropy is the floor."""
    model, batch = ALIGN(ALIGNConfig.tiny()), pairs()
    true, other = 0.9 + 0.1 / 8, 0.1 / 8
    floor = -true * math.log(true) - 7 * other * math.log(other)
    assert floor < overfit(model, batch, steps=60, learning_rate=3e-3) < floor + 0.3
