"""AV-HuBERT's network of lips, its fusion and its scores equal the official code's arithmetic.

That is https://github.com/facebookresearch/av_hubert, avhubert/resnet.py and hubert.py. What lies between, fairseq's
transformer, is wav2vec 2.0's and HuBERT's, which are compared with Transformers.
"""

import re

import pytest
import torch
import torch.nn.functional as F
from testing_tools import close, shaken

from mmlearn.models.audiovisual.av_hubert import AVHuBERT, AVHuBERTConfig, Draws
from mmlearn.models.speech.context_network import TINY_CONTEXT

CASES = {  # widths of the stages, blocks of each, the first kernel, clips, frames, rows, columns
    "released kernel": ((6, 8, 10, 12), 2, (5, 7, 7), 3, 7, 40, 44),
    "three stages": ((4, 6, 6), 1, (3, 5, 5), 2, 5, 33, 33),
    "one clip": ((4, 8), 3, (5, 7, 7), 1, 4, 24, 20),
}
NAMES = [  # theirs → ours
    (r"^frontend3D\.0", "convolution"),
    (r"^frontend3D\.1", "norm"),
    (r"^frontend3D\.2", "activation"),
    (r"\.conv1", ".first"),
    (r"\.bn1", ".first_norm"),
    (r"\.relu1", ".first_activation"),
    (r"\.conv2", ".second"),
    (r"\.bn2", ".second_norm"),
    (r"\.relu2", ".activation"),
    (r"\.downsample", ".shortcut"),
]


def our_name(name, blocks):
    if found := re.match(r"trunk\.layer(\d)\.(\d)(\..*)$", name):
        name = f"trunk.{blocks * (int(found[1]) - 1) + int(found[2])}{found[3]}"
    for theirs, ours in NAMES:
        name = re.sub(theirs, ours, name)
    return name


def random_weights(widths, blocks, kernel):
    """Under the official names; a stage's first block has another shortcut where the shape changes."""
    shapes = {"frontend3D.0.weight": (widths[0], 1, *kernel), "frontend3D.2.weight": widths[:1]}
    norms = {"frontend3D.1": widths[0]}
    before = widths[0]
    for stage, width in enumerate(widths):
        for i in range(blocks):
            name = f"trunk.layer{stage + 1}.{i}"
            shapes |= {f"{name}.conv1.weight": (width, before, 3, 3), f"{name}.conv2.weight": (width, width, 3, 3)}
            shapes |= {f"{name}.relu1.weight": (width,), f"{name}.relu2.weight": (width,)}
            norms |= {f"{name}.bn1": width, f"{name}.bn2": width}
            if before != width or (stage and not i):
                shapes[f"{name}.downsample.0.weight"] = (width, before, 1, 1)
                norms[f"{name}.downsample.1"] = width
            before = width
    weights = {name: torch.randn(shape) / torch.tensor(shape[1:]).prod() ** 0.5 for name, shape in shapes.items()}
    weights |= {
        name: torch.rand(shape) for name, shape in shapes.items() if "relu" in name or name == "frontend3D.2.weight"
    }
    for name, width in norms.items():
        weights |= {f"{name}.weight": 1 + 0.2 * torch.randn(width), f"{name}.bias": 0.2 * torch.randn(width)}
        weights |= {f"{name}.running_mean": 0.2 * torch.randn(width), f"{name}.running_var": 0.5 + torch.rand(width)}
    return {name: x if "running" in name else x.requires_grad_() for name, x in weights.items()}


def normalised(w, name, x, training):
    kept = None if training else w[f"{name}.running_mean"], None if training else w[f"{name}.running_var"]
    return F.batch_norm(x, *kept, w[f"{name}.weight"], w[f"{name}.bias"], training)


def lips(w, video, training):
    """A vector for each frame; three axes of convolution at first, then each frame by itself."""
    kernel = w["frontend3D.0.weight"].shape[2:]
    x = F.conv3d(video[:, None], w["frontend3D.0.weight"], stride=(1, 2, 2), padding=[k // 2 for k in kernel])
    x = F.prelu(normalised(w, "frontend3D.1", x, training), w["frontend3D.2.weight"])
    x = F.max_pool3d(x, (1, 3, 3), (1, 2, 2), (0, 1, 1)).transpose(1, 2).flatten(0, 1)
    for name in dict.fromkeys(re.match(r"trunk\.layer\d\.\d", key)[0] for key in w if key.startswith("trunk")):
        stride = 2 if not name.startswith("trunk.layer1") and name.endswith(".0") else 1
        inside = F.conv2d(x, w[f"{name}.conv1.weight"], stride=stride, padding=1)
        inside = F.prelu(normalised(w, f"{name}.bn1", inside, training), w[f"{name}.relu1.weight"])
        inside = F.conv2d(inside, w[f"{name}.conv2.weight"], padding=1)
        inside = normalised(w, f"{name}.bn2", inside, training)
        if f"{name}.downsample.0.weight" in w:
            x = F.conv2d(x, w[f"{name}.downsample.0.weight"], stride=stride)
            x = normalised(w, f"{name}.downsample.1", x, training)
        x = F.prelu(x + inside, w[f"{name}.relu2.weight"])
    return x.mean((2, 3)).unflatten(0, video[:, :, 0, 0].shape)


@pytest.fixture(params=[(name, training) for name in CASES for training in (False, True)], ids=str)
def pair(request):
    """Official weights, our system with them and others, grey videos with their masks, and whether it trains."""
    case, training = request.param
    widths, blocks, kernel, b, frames, rows, columns = CASES[case]
    torch.manual_seed(0)
    weights = random_weights(widths, blocks, kernel)
    sizes = dict(video_widths=widths, video_blocks=blocks, video_kernel=kernel, mels=5, stack=2, clusters=9)
    model = shaken(AVHuBERT(AVHuBERTConfig(**TINY_CONTEXT | sizes | dict(embedding_width=11))))
    state = {our_name(name, blocks): x.detach() for name, x in weights.items()}
    counts = {name: x for name, x in model.lip_encoder.state_dict().items() if name.endswith("num_batches_tracked")}
    model.lip_encoder.load_state_dict(state | counts)
    mask = torch.arange(frames) < frames - torch.arange(b)[:, None]
    video = torch.randn(b, frames, rows, columns) * mask[..., None, None]
    return weights, model.train(training), video, mask, training


def test_lips_and_gradients(pair):
    weights, model, video, mask, training = pair
    got, expected = model.lip_encoder(video, mask), lips(weights, video, training)
    close(got, expected)
    wanted = torch.randn_like(expected)
    for each in (got, expected):
        (each * wanted).mean().backward()
    found = dict(model.lip_encoder.named_parameters())
    for name, tensor in weights.items():
        if tensor.requires_grad:
            close(found.pop(our_name(name, model.config.video_blocks)).grad, tensor.grad)
    assert not found
    assert weights["frontend3D.0.weight"].grad.abs().max() > 1e-4


@pytest.mark.parametrize("kept", ["both", "sound", "lips"])
def test_fusion_scores_and_loss(pair, kept):
    """Sound before lips, a norm of both, a layer; cosines with all clusters, divided by τ; masked frames alone count.

    The official sound is already stacked, frame by frame.
    """
    weights, model, grey, mask, training = pair
    b, frames = mask.shape
    mel = torch.randn(b, model.config.mels, 2 * frames)
    audio_masked = torch.rand(b, frames) < 0.4
    video_masked = (torch.rand(b, frames) < 0.3) | (torch.arange(frames) == 1)
    other = torch.where(video_masked, (torch.arange(frames) + 1) % frames, torch.arange(frames))
    keeps = [torch.full((b,), kept in ("both", name)) for name in ("sound", "lips")]
    draws = Draws(audio_masked, video_masked, other, *keeps)
    mel_mask = mask.repeat_interleave(2, dim=1)
    got = model(grey[:, :, None].expand(-1, -1, 3, -1, -1), mel, mask, mel_mask, draws)

    stacked = (mel * mel_mask[:, None]).transpose(1, 2).reshape(b, frames, -1)
    stacked = torch.where(audio_masked[..., None], model.mask_embedding, stacked)
    shown = torch.stack([row[positions] for row, positions in zip(grey, other)]) * mask[..., None, None]
    heard, seen = model.audio_projection(stacked), model.video_projection(lips(weights, shown, training))
    heard, seen = heard * (kept != "lips"), seen * (kept != "sound")
    x = F.layer_norm(torch.cat([heard, seen], -1), (2 * model.config.width,), *model.fusion_norm.parameters())
    x = model.context(F.linear(x, *model.fusion.parameters()), mask)
    close(got.tokens[mask], x[mask])
    frame, cluster = F.linear(x, *model.projection.parameters()), model.cluster_embedding
    lengths = frame.square().sum(-1, keepdim=True).sqrt() * cluster.square().sum(-1).sqrt()
    scores = (frame @ cluster.T) / lengths.clamp(min=1e-6) / 0.1
    close(got.cluster_logits[mask], scores[mask])
    if kept == "both" and not training:
        label = torch.randint(9, (b, frames)).masked_fill(~mask, -100)
        hidden = (audio_masked | video_masked) & mask
        batch = {"video": grey[:, :, None].expand(-1, -1, 3, -1, -1), "mel": mel, "video_mask": mask}
        batch |= {"mel_mask": mel_mask, "cluster": label, **draws._asdict()}
        close(model.loss(batch)["cluster"], F.cross_entropy(scores[hidden], label[hidden]))
