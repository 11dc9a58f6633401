"""ALIGN equals Transformers' AlignModel, of whose format Kakao Brain's weights are: embeddings, scale, loss, gradients.

Transformers pads the first convolution at its right and bottom alone, ours at all sides. Its pictures here begin with a
row and a column of zeros, which ours have as padding.
"""

import re

import pytest
import torch
from published import SILENT, TEXTS
from testing_tools import assert_gradients, close, shaken
from transformers import AlignConfig, AlignModel, BertConfig, BertModel

from mmlearn import load_pretrained
from mmlearn.layers import BERTEncoderConfig
from mmlearn.models.contrastive.align import ALIGN, STAGES, ALIGNConfig

SIZES = {"odd": (33, (1, 2, 1)), "relu": (32, (1, 1, 2)), "batch of one": (20, (2, 1, 1))}  # pixels, blocks of stages
WIDTHS = 32, 32, 48, 64  # of the stem and of each stage, twice what they are, because a network's first is always 32
PARTS = (
    (r"^embeddings\.convolution", "0.0"),
    (r"^embeddings\.batchnorm", "0.1"),
    (r"\.expansion\.expand_conv", ".-1.0"),
    (r"\.expansion\.expand_bn", ".-1.1"),
    (r"\.depthwise_conv\.depthwise_conv", ".0.0"),
    (r"\.depthwise_conv\.depthwise_norm", ".0.1"),
    (r"\.squeeze_excite\.reduce", ".1.fc1"),
    (r"\.squeeze_excite\.expand", ".1.fc2"),
    (r"\.projection\.project_conv", ".2.0"),
    (r"\.projection\.project_bn", ".2.1"),
)


def published_model(case, blocks):
    text = {name: value for name, value in TEXTS[case].items() if name != "batch"} | SILENT
    expansions, kernels, strides = zip(*STAGES[: len(blocks)])
    vision = dict(width_coefficient=0.5, depth_coefficient=1.0, in_channels=WIDTHS[:-1], out_channels=WIDTHS[1:])
    vision |= dict(num_block_repeats=blocks, expand_ratios=expansions, kernel_sizes=kernels, strides=strides)
    vision |= dict(depthwise_padding=list(range(sum(blocks))), batch_norm_eps=1e-5, hidden_dim=64)
    config = AlignConfig(text_config=text, vision_config=vision, projection_dim=WIDTHS[-1] // 2)
    model = shaken(AlignModel(config), 0.05).eval()
    for name, value in model.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            value.add_(torch.rand(value.shape))
    return model


def translated(published, values, blocks, folder):
    """Values by the names of Transformers' parameters, by ours: those of texts as of a BERT's checkpoint."""
    first = [i for i, count in enumerate(blocks) for _ in range(count)]
    found = {}
    for name, value in values.items():
        if name.startswith("vision_model."):
            name = name.removeprefix("vision_model.")
            for pattern, ours in PARTS:
                name = re.sub(pattern, ours, name)
            if block := re.match(r"encoder\.blocks\.(\d+)\.(-?\d)(.*)", name):
                number, stage = int(block[1]), first[int(block[1])]
                part = int(block[2]) + (STAGES[stage][0] > 1)  # of a block that widens first
                name = f"{stage + 1}.{number - first.index(stage)}.block.{part}{block[3]}"
            found[f"image_encoder.{name}"] = value
    bert = BertModel(BertConfig(**published.config.text_config.to_dict()), add_pooling_layer=False)
    bert.load_state_dict({name.removeprefix("text_model."): x for name, x in values.items() if "text_model.e" in name})
    bert.save_pretrained(folder)
    bert = load_pretrained(folder)
    found |= {name: x for name, x in bert.state_dict().items() if name.startswith(("embedding.", "transformer."))}
    found |= {name: x for name, x in values.items() if name.startswith("text_projection.")}
    return found, bert.config


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("case", TEXTS)
def test_align(case, padded, tmp_path):
    torch.manual_seed(0)
    (side, blocks), b, length = SIZES[case], TEXTS[case]["batch"], TEXTS[case]["max_position_embeddings"]
    published = published_model(case, blocks)
    weights, bert = translated(published, published.state_dict(), blocks, tmp_path / "weights")
    text = BERTEncoderConfig(**{name: getattr(bert, name) for name in vars(BERTEncoderConfig())})
    ours = ALIGN(ALIGNConfig(16, tuple(width // 2 for width in WIDTHS[1:]), blocks, text=text)).eval()
    weights["logit_scale"] = -published.temperature.detach().log()
    ours.load_state_dict(weights)

    image = torch.randn(b, 3, side, side)
    image[:, :, 0] = image[:, :, :, 0] = 0
    tokens = torch.randint(1, TEXTS[case]["vocab_size"], (b, length))
    mask = torch.arange(length) <= torch.arange(b)[:, None] + (2 if padded else length)
    expected = published(tokens, image, mask.long(), return_loss=True)
    batch = dict(image=image[:, :, 1:, 1:], tokens=tokens, mask=mask)
    output = ours(**batch)
    close(output.image_embedding, expected.image_embeds)
    close(output.text_embedding, expected.text_embeds)
    close(output.logit_scale, 1 / published.temperature)
    loss = ours.loss(batch | {"caption_id": torch.arange(b)})["itc"]
    close(loss, expected.loss)
    close(ours.loss(batch)["itc"], expected.loss)

    loss.backward()
    expected.loss.backward()
    gradients = {name: torch.zeros_like(x) if x.grad is None else x.grad for name, x in published.named_parameters()}
    gradients = {name: gradients.get(name, value) for name, value in published.state_dict().items()}
    found, _ = translated(published, gradients, blocks, tmp_path / "gradients")
    found["logit_scale"] = -published.temperature.detach() * published.temperature.grad  # by the chain rule
    assert_gradients(ours, found)
    assert b == 1 or ours.text_projection.weight.grad.abs().max() > 1e-4
