"""AST: a vision transformer that reads a spectrogram as overlapping patches.

Paper: Gong et al. 2021, "AST: Audio Spectrogram Transformer".
Official code: https://github.com/YuanGongND/ast.

Deviations: ``tiny`` is ours. Weights start at random, where the paper starts from a DeiT trained on ImageNet. Tokens
and positions then start from a normal of 0.02, as the positions of the official code do without that model; in ``tiny``
it is wider. The classifier starts at 0, so that it prefers no class. A clip that is shorter than ``frames`` takes the
first positions in time, and its padding can be masked. The official code fills it up with zeros that are attended to,
and cuts the positions of shorter clips out of the middle. Norms add 1e-12, as in Transformers; the official code adds
1e-6. The caller normalises the log-mel: the official code subtracts the mean of its data set and divides by twice the
deviation.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmlearn.layers import Transformer, TransformerConfig
from mmlearn.models.audio.checks import real_frames
from mmlearn.models.audio.encoder import patchify_clips


@dataclass(frozen=True)
class ASTConfig(TransformerConfig):
    width: int = 768
    depth: int = 12
    num_heads: int = 12
    norm_epsilon: float = 1e-12
    mels: int = 128
    frames: int = 1024  # at most, of 10 ms each
    patch_size: int = 16
    frequency_stride: int = 10  # mels from one patch to the next; below patch_size, patches overlap
    time_stride: int = 10  # frames
    initial_std: float = 0.02  # of tokens and positions
    num_classes: int = 0  # 0: no classifier

    PRESETS = {
        "tiny": dict(mels=64, frames=200, width=64, depth=3, num_heads=4, initial_std=0.125),
        "base": dict(num_classes=527),  # of AudioSet
        "small": dict(width=384, num_heads=6, num_classes=527),
    }


class ASTOutput(NamedTuple):
    representation: Float[Tensor, "b d"]  # which the classifier reads
    logits: Float[Tensor, "b classes"] | None


class SpectrogramEmbedding(nn.Module):
    r"""Square patches of a log-mel, one every ``frequency_stride`` mels and ``time_stride`` frames, with positions.

    .. math:: z_0 = [x_\mathrm{class};\, x_\mathrm{distil};\, x_p^1 E;\, \dots;\, x_p^N E] + E_\mathrm{pos}, \quad
       N = \left\lfloor \tfrac{m - P + S_f}{S_f} \right\rfloor \left\lfloor \tfrac{s - P + S_t}{S_t} \right\rfloor

    ``mel_mask`` (b, s) is True where a frame is real; :func:`~mmlearn.models.audio.encoder.patchify_clips` treats the
    others. Returns (b, 2 + p, d), and (b, 2 + p), which is True for both tokens and for real patches.
    Raises ``ValueError`` as :func:`~mmlearn.models.audio.checks.real_frames` does. Source: section 2.1 and figure 1.
    """

    def __init__(self, config: ASTConfig):
        super().__init__()
        size, strides = config.patch_size, (config.frequency_stride, config.time_stride)
        if min(config.mels, config.frames) < size:
            raise ValueError(f"{config.mels} mels and {config.frames} frames hold no patch of {size} × {size}.")
        self.config = config
        self.grid = tuple((length - size) // step + 1 for length, step in zip((config.mels, config.frames), strides))
        self.patches = nn.Linear(size**2, config.width)
        self.class_token = nn.Parameter(torch.empty(config.width))
        self.distillation_token = nn.Parameter(torch.empty(config.width))
        self.positions = nn.Parameter(torch.empty(2 + self.grid[0] * self.grid[1], config.width))
        for parameter in (self.class_token, self.distillation_token, self.positions):
            nn.init.trunc_normal_(parameter, std=config.initial_std)

    def forward(
        self, mel: Float[Tensor, "b mels s"], mel_mask: Bool[Tensor, "b s"] | None = None
    ) -> tuple[Float[Tensor, "b n d"], Bool[Tensor, "b n"]]:
        config, size = self.config, (self.config.patch_size, self.config.patch_size)
        real = real_frames(mel, mel_mask, config.mels, config.frames)
        patches, columns = patchify_clips(mel, real, size, (config.frequency_stride, config.time_stride))
        x = self.patches(patches)  # (b, row, column, d)
        positions = rearrange(self.positions[2:], "(row column) d -> row column d", row=self.grid[0])
        # A shorter clip takes the first positions in time.
        x = rearrange(x + positions[:, : x.shape[2]], "b row column d -> b (row column) d")
        tokens = torch.stack([self.class_token, self.distillation_token]) + self.positions[:2]
        x = torch.cat([repeat(tokens, "two d -> b two d", b=len(x)).to(x), x], dim=1)
        mask = repeat(columns, "b column -> b (row column)", row=self.grid[0])
        return x, F.pad(mask, (2, 0), value=True)


class AST(nn.Module):
    r"""Patches and two tokens through a pre-norm transformer; a sound is the mean of the two.

    .. math:: y = \tfrac{1}{2} \left(\mathrm{LN}(z_L)^\mathrm{class} + \mathrm{LN}(z_L)^\mathrm{distil}\right), \quad
       \mathrm{logits} = W\, \mathrm{LN}(y) + b

    Inputs and errors are those of :class:`SpectrogramEmbedding`. ``grid`` has the rows (by frequency) and the columns
    (by time) of patches of a clip with ``frames`` frames. Source: section 2.1, and the official code for the mean.
    """

    def __init__(self, config: ASTConfig):
        super().__init__()
        self.config = config
        width, epsilon = config.width, config.norm_epsilon
        self.embedding = SpectrogramEmbedding(config)
        self.grid = self.embedding.grid
        self.dropout = nn.Dropout(config.dropout)
        self.transformer = Transformer(config)
        self.norm = nn.LayerNorm(width, eps=epsilon)
        self.classifier = None
        if config.num_classes:
            self.classifier = nn.Sequential(nn.LayerNorm(width, eps=epsilon), nn.Linear(width, config.num_classes))
            nn.init.zeros_(self.classifier[1].weight)
            nn.init.zeros_(self.classifier[1].bias)

    def forward(self, mel: Float[Tensor, "b mels s"], mel_mask: Bool[Tensor, "b s"] | None = None) -> ASTOutput:
        x, mask = self.embedding(mel, mel_mask)
        positions = torch.arange(2, device=x.device).expand(len(x), -1)  # of the class and the distillation token
        tokens = self.norm(self.transformer.read(self.dropout(x), positions, mask))  # (b, 2, d)
        representation = tokens.mean(1)  # (b, d)
        return ASTOutput(representation, self.classifier(representation) if self.classifier is not None else None)

    def tokens(
        self, mel: Float[Tensor, "b mels s"], mel_mask: Bool[Tensor, "b s"] | None = None
    ) -> tuple[Float[Tensor, "b n d"], Bool[Tensor, "b n"]]:
        """All tokens, and which of them are real: class, distillation, then patches by frequency and then by time."""
        x, mask = self.embedding(mel, mel_mask)
        return self.norm(self.transformer(self.dropout(x), mask)), mask

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """``classification``: of one class, for a ``label`` int (b,), or of several, for float (b, classes).

        The first is cross-entropy, as for spoken words; the second is binary cross-entropy, as for AudioSet. Raises
        ``ValueError`` without a classifier, ``mel`` or ``label``, for an empty batch and for a label of another shape.
        Source: section 3.1.
        """
        if self.classifier is None:
            raise ValueError("This AST has no classifier: set num_classes in its configuration.")
        if missing := [name for name in ("mel", "label") if name not in batch]:
            raise ValueError(f"Nothing to learn: this AST needs mel and label, and the batch has no {missing[0]}.")
        if not len(batch["mel"]):
            raise ValueError("A batch holds at least one sound.")
        logits, label = self(batch["mel"], batch.get("mel_mask")).logits, batch["label"]
        several = label.is_floating_point()
        if label.shape != (logits.shape if several else logits.shape[:1]):
            rule = f"A label is int (b,) or float (b, classes), with {tuple(logits.shape)}"
            raise ValueError(f"{rule}; got {label.dtype} {tuple(label.shape)}.")
        criterion = F.binary_cross_entropy_with_logits if several else F.cross_entropy
        return {"classification": criterion(logits, label)}
