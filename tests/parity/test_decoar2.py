"""DeCoAR 2.0's frames equal those of the official code, which reads with fairseq's transformer of wav2vec 2.0.

That is https://github.com/awslabs/speech-representations, src/speech_reps/models/decoar2.py, and
https://github.com/facebookresearch/fairseq, fairseq/models/wav2vec/wav2vec2.py. How it was pretrained is not in it.
"""

import pytest
import torch
import torch.nn.functional as F
from released import decoar2, faint, released
from restated import count_blocks, dense, learning, norm, weigh
from testing_tools import close

CASES = {  # width, depth, clips, frames
    "two heads": (128, 2, 4, 23),
    "three heads": (192, 3, 3, 16),
    "one head": (64, 1, 1, 9),
}


def encode(w, mel, mask):
    """Neighbours tell frames their positions, by a kernel with a learned length at each position."""
    x = dense(w, "post_extract_proj", mel.transpose(1, 2)) * mask[..., None]
    direction, groups = w["encoder.pos_conv.0.weight_v"], 4
    kernel = w["encoder.pos_conv.0.weight_g"] * direction / direction.square().sum((0, 1), keepdim=True).sqrt()
    near = F.conv1d(x.transpose(1, 2), kernel, w["encoder.pos_conv.0.bias"], padding=3, groups=groups)
    near = F.gelu(near[..., :-1])  # an even kernel gives one position too many
    x = norm(w, "encoder.layer_norm", x + near.transpose(1, 2), 1e-5)
    for i in range(count_blocks(w, "encoder.layers")):
        layer = f"encoder.layers.{i}"
        parts = (dense(w, f"{layer}.self_attn.{part}_proj", x) for part in "qkv")
        heard = dense(w, f"{layer}.self_attn.out_proj", weigh(*parts, x.shape[-1] // 64, mask))
        x = norm(w, f"{layer}.self_attn_layer_norm", x + heard, 1e-5)
        inside = dense(w, f"{layer}.fc2", F.gelu(dense(w, f"{layer}.fc1", x)))
        x = norm(w, f"{layer}.final_layer_norm", x + inside, 1e-5)
    return x


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_frames_and_gradients(case, padded, convert_released, assert_gradients_as_released):
    width, depth, b, frames = CASES[case]
    torch.manual_seed(0)
    weights = learning(released(decoar2(width, depth)))
    model = convert_released(weights)
    mel = torch.randn(b, 10, frames)
    mask = torch.arange(frames) < frames - padded * (3 * torch.arange(b)[:, None] + 1)
    got, expected = model(mel, mask).tokens, encode(weights, mel, mask)
    close(got[mask], expected[mask])
    wanted = torch.randn_like(expected)
    for each in (got, expected):
        (each * wanted)[mask].mean().backward()
    without = assert_gradients_as_released(weights, model)
    assert without == {"mask_emb", "quantizer.vars", "project_q.weight", "project_q.bias"}


def test_epsilons(convert_released):
    weights = faint(released(decoar2()), "post_extract_proj", "pos_conv.0.weight_g", "pos_conv.0.bias")
    mel = torch.randn(2, 10, 12)
    close(convert_released(weights)(mel).tokens, encode(weights, mel, torch.ones(2, 12, dtype=torch.bool)))
