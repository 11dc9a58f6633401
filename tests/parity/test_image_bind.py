"""ImageBind's three towers equal its official code, https://github.com/facebookresearch/ImageBind.

Its parts are imagebind/models/imagebind_model.py, multimodal_preprocessors.py and transformer.py. Settings that no
weight tells are those of the preset. How it was trained is only in the paper.
"""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from released import faint, linear, norm, renamed
from restated import count_blocks, dense, learning, weigh
from restated import norm as normalise
from testing_tools import close

from mmlearn.models.trimodal.image_bind import ImageBind, ImageBindConfig

CASES = {  # width, heads and depth of each tower; side of a patch and of a picture; bands and frames
    "odd": (dict(vision=(24, 3, 2), text=(20, 4, 1), audio=(16, 2, 2)), (3, 14), (26, 37)),
    "deep": (dict(vision=(16, 1, 3), text=(24, 2, 3), audio=(24, 6, 1)), (4, 12), (16, 26)),
}
WORDS, POSITIONS, SHARED = 50, 9, 12  # SHARED: the width of all embeddings


def shapes_of(case):
    sizes, (patch, side), (mels, frames) = CASES[case]
    shapes = {}
    for name, (width, _, depth) in sizes.items():
        before, trunk = f"modality_preprocessors.{name}", f"modality_trunks.{name}"
        if name == "text":
            shapes |= {f"{before}.token_embedding.weight": (WORDS, width), f"{before}.pos_embed": (1, POSITIONS, width)}
        else:
            positions = (
                (side // patch) ** 2 if name == "vision" else ((mels - 16) // 10 + 1) * ((frames - 16) // 10 + 1)
            )
            shapes |= {f"{before}.cls_token": (1, 1, width)}
            shapes |= {f"{before}.pos_embedding_helper.pos_embed": (1, positions + 1, width)}
        if name == "vision":
            shapes |= {f"{before}.rgbt_stem.proj.1.weight": (width, 3, 2, patch, patch)}
            shapes |= norm(f"{trunk}.pre_transformer_layer.0", width)
        if name == "audio":
            shapes |= {f"{before}.rgbt_stem.proj.weight": (width, 1, 16, 16)}
            shapes |= norm(f"{before}.rgbt_stem.norm_layer", width)
        for i in range(depth):
            block = f"{trunk}.blocks.{i}"
            shapes |= {f"{block}.attn.in_proj_weight": (3 * width, width), f"{block}.attn.in_proj_bias": (3 * width,)}
            shapes |= linear(f"{block}.attn.out_proj", width, width)
            shapes |= norm(f"{block}.norm_1", width) | norm(f"{block}.norm_2", width)
            shapes |= linear(f"{block}.mlp.fc1", 4 * width, width) | linear(f"{block}.mlp.fc2", width, 4 * width)
            if name == "audio":
                shapes |= {f"{block}.attn.bias_k": (1, 1, width), f"{block}.attn.bias_v": (1, 1, width)}
        head = f"modality_heads.{name}.proj" if name == "text" else f"modality_heads.{name}"
        shapes |= norm(f"{head}.0", width) | {f"{head}.{1 if name == 'text' else 2}.weight": (SHARED, width)}
    return shapes


def trunk(w, name, x, heads, causal=False):
    """Blocks with a norm before each part; a learned key and value may stand behind all others."""
    for i in range(count_blocks(w, f"modality_trunks.{name}.blocks")):
        block = f"modality_trunks.{name}.blocks.{i}"
        inside = normalise(w, f"{block}.norm_1", x, 1e-6)
        inside = F.linear(inside, w[f"{block}.attn.in_proj_weight"], w[f"{block}.attn.in_proj_bias"])
        query, key, value = inside.chunk(3, dim=-1)
        if f"{block}.attn.bias_k" in w:
            key = torch.cat([key, w[f"{block}.attn.bias_k"].expand(len(x), 1, -1)], dim=1)
            value = torch.cat([value, w[f"{block}.attn.bias_v"].expand(len(x), 1, -1)], dim=1)
        seen = weigh(query, key, value, heads, causal=causal)
        x = x + dense(w, f"{block}.attn.out_proj", seen)
        inside = F.gelu(dense(w, f"{block}.mlp.fc1", normalise(w, f"{block}.norm_2", x, 1e-6)))
        x = x + dense(w, f"{block}.mlp.fc2", inside)
    return x


def with_class_token(w, name, patches):
    before = f"modality_preprocessors.{name}"
    x = torch.cat([w[f"{before}.cls_token"].expand(len(patches), -1, -1), patches], dim=1)
    return x + w[f"{before}.pos_embedding_helper.pos_embed"]


def embed(w, name, x, heads):
    """Unit vectors of pictures, which are films of two equal frames, of texts, or of log-mels."""
    before, head = f"modality_preprocessors.{name}", f"modality_heads.{name}"
    if name == "text":
        end = x.argmax(-1)
        states = trunk(w, name, w[f"{before}.token_embedding.weight"][x] + w[f"{before}.pos_embed"], heads, causal=True)
        states, head = states[torch.arange(len(x)), end], f"{head}.proj"
    elif name == "vision":
        kernel = w[f"{before}.rgbt_stem.proj.1.weight"]
        patches = F.conv3d(torch.stack([x, x], dim=2), kernel, stride=kernel.shape[2:]).flatten(2).transpose(1, 2)
        x = normalise(w, f"modality_trunks.{name}.pre_transformer_layer.0", with_class_token(w, name, patches), 1e-6)
        states = trunk(w, name, x, heads)[:, 0]
    else:
        patches = F.conv2d(x[:, None], w[f"{before}.rgbt_stem.proj.weight"], stride=10).flatten(2).transpose(1, 2)
        patches = normalise(w, f"{before}.rgbt_stem.norm_layer", patches, 1e-5)
        states = trunk(w, name, with_class_token(w, name, patches), heads)[:, 0]
    states = normalise(w, f"{head}.0", states, 1e-6)
    return F.normalize(states @ w[f"{head}.{1 if name == 'text' else 2}.weight"].T, dim=-1)


OURS = {"vision": "image", "text": "text", "audio": "audio"}
NAMES = [
    (r"^modality_(preprocessors|trunks|heads)\.vision", r"encoders.image.\1"),
    (r"^modality_(preprocessors|trunks|heads)\.(text|audio)", r"encoders.\2.\1"),
    (r"preprocessors\.cls_token", "encoder.embedding.class_token"),
    (r"preprocessors\.rgbt_stem\.proj(\.1)?\.weight", "encoder.embedding.patches.weight"),
    (r"preprocessors\.rgbt_stem\.norm_layer", "encoder.embedding.patch_norm"),
    (r"preprocessors\.token_embedding", "encoder.embedding.tokens"),
    (r"preprocessors\.(pos_embedding_helper\.)?pos_embed", "encoder.embedding.positions"),
    (r"trunks\.pre_transformer_layer\.0", "encoder.embedding_norm"),
    (r"trunks\.blocks", "encoder.transformer.blocks"),
    (r"\.attn\.out_proj", ".attention.output"),
    (r"\.attn\.bias_k", ".attention.key.extra"),
    (r"\.attn\.bias_v", ".attention.value.extra"),
    (r"\.norm_1", ".attention_norm"),
    (r"\.norm_2", ".mlp_norm"),
    (r"\.mlp\.fc1", ".mlp.expand"),
    (r"\.mlp\.fc2", ".mlp.contract"),
    (r"heads(\.proj)?\.0", "encoder.norm"),
    (r"heads(\.proj)?\.\d\.weight", "projection.weight"),
]


def as_ours(tensors, rows):
    """Official weights under our names; the two frames of a patch are summed, ``rows`` are those of sound's patches."""
    packed = {r"(.*)\.attn\.in_proj_": [rf"\1.attention.{part}." for part in ("query", "key", "value")]}
    found = {}
    for name, x in renamed(tensors, NAMES, packed).items():
        if name == "encoders.audio.encoder.embedding.positions":
            found["encoders.audio.encoder.embedding.class_position"] = x[0, 0]
            found[name] = x[0, 1:].unflatten(0, (rows, -1))
        elif name.endswith("patches.weight"):
            found[name] = (x.sum(2) if x.ndim == 5 else x).flatten(1)
        else:
            found[name] = x.flatten() if name.endswith((".extra", ".class_token")) else x.squeeze(0)
    return found


def build(case, *small):
    """Weights, our system of them, and what each tower reads."""
    sizes, (patch, side), (mels, frames) = CASES[case]
    torch.manual_seed(0)
    weights = {
        name: 0.2 * torch.randn(shape) + 1.0 * ("norm" in name or ".0.weight" in name) * (len(shape) == 1)
        for name, shape in shapes_of(case).items()
    }
    weights = learning(faint(weights, *small) if small else weights)
    config, (image, text, audio) = (
        ImageBindConfig(),
        (dict(zip(("width", "num_heads", "depth"), sizes[n])) for n in OURS),
    )
    config = dataclasses.replace(
        config,
        image=dataclasses.replace(config.image, **image, image_size=side, patch_size=patch),
        text=dataclasses.replace(config.text, **text, vocab_size=WORDS, max_length=POSITIONS),
        audio=dataclasses.replace(config.audio, **audio, mels=mels, frames=frames),
        embedding_width=SHARED,
        frozen=(),
    )
    model = ImageBind(config).eval()
    state = as_ours({name: x.detach() for name, x in weights.items()}, (mels - 16) // 10 + 1)
    model.load_state_dict(
        state | {name: x for name, x in model.state_dict().items() if name.startswith("logit_scales")}
    )
    tokens = torch.randint(1, WORDS - 1, (4, POSITIONS))
    tokens[torch.arange(4), torch.tensor([2, 8, 5, 3])] = WORDS - 1
    return (
        weights,
        model,
        {"vision": torch.randn(4, 3, side, side), "text": tokens, "audio": torch.randn(4, mels, frames)},
    )


@pytest.mark.parametrize("case", CASES)
def test_embeddings_and_gradients(case):
    weights, model, inputs = build(case)
    for name, x in inputs.items():
        got, expected = model.encode(OURS[name], x), embed(weights, name, x, CASES[case][0][name][1])
        close(got, expected)
        wanted = torch.randn_like(expected)
        for each in (got, expected):
            (each * wanted).mean().backward()
    gradients = as_ours({name: x.grad for name, x in weights.items()}, (CASES[case][2][0] - 16) // 10 + 1)
    for name, parameter in model.named_parameters():
        if not name.startswith("logit_scales"):
            expected = gradients.pop(name)
            # Each of two equal frames has the gradient of their sum.
            close(
                parameter.grad, expected / 2 if name == "encoders.image.encoder.embedding.patches.weight" else expected
            )
    assert not gradients


@pytest.mark.parametrize("case", CASES)
def test_epsilons(case):
    weights, model, inputs = build(case, "cls_token", "pos_embed", "stem.proj", "token_embedding")
    for name, x in inputs.items():
        close(model.encode(OURS[name], x), embed(weights, name, x, CASES[case][0][name][1]))
