"""AST: a spectrogram is a picture, and a transformer reads it as patches that overlap.

Paper: Gong et al. 2021, "AST: Audio Spectrogram Transformer".
Official code: https://github.com/YuanGongND/ast.

Deviations: ``tiny`` is ours. Weights start at random, where the paper starts from a DeiT trained on ImageNet; tokens
and positions then at a normal of 0.02, as the official code's positions do without it, and wider in ``tiny``. The
classifier starts at 0, so that no class is preferred. A clip shorter than ``frames`` takes the first positions in time,
and may be masked; the official code fills it up with zeros that are attended to, and cuts positions for shorter clips
out of the middle. Norms add 1e-12, as in Transformers; the official code's add 1e-6. The caller normalises the log-mel:
the official code subtracts the mean of its data set and divides by twice the deviation.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmlearn.data.fields import Labels, LogMel
from mmlearn.evaluation.measures import classes
from mmlearn.layers import Config
from mmlearn.layers.padded import Transformer
from mmlearn.models.audio.encoder import patchify_frames, patchify_mel
from mmlearn.models.audio.mel import check_mel
from mmlearn.recipes import Objective, Recipe, ln


@dataclass(frozen=True)
class ASTConfig(Config):
    mels: int = 128
    frames: int = 1024  # at most, of 10 ms each
    patch_size: int = 16
    frequency_stride: int = 10  # mels from one patch to the next; less than patch_size: they overlap
    time_stride: int = 10  # frames
    width: int = 768
    depth: int = 12
    num_heads: int = 12
    mlp_width: int | None = None  # 4 · width
    activation: str = "gelu"
    norm_epsilon: float = 1e-12
    dropout: float = 0.0
    initial_std: float = 0.02  # of tokens and positions
    num_classes: int = 0  # 0: no classifier

    PRESETS = {
        "tiny": dict(mels=64, frames=200, width=64, depth=3, num_heads=4, initial_std=0.125),
        "base": dict(num_classes=527),  # of AudioSet
        "small": dict(width=384, num_heads=6, num_classes=527),
    }


class ASTOutput(NamedTuple):
    tokens: Float[Tensor, "b n d"]  # class, distillation, then patches: by frequency, then by time
    mask: Bool[Tensor, "b n"]  # True for both tokens and for patches that are real
    representation: Float[Tensor, "b d"]  # what the classifier reads
    logits: Float[Tensor, "b classes"] | None


class SpectrogramEmbedding(nn.Module):
    r"""Square patches of a log-mel, one every ``frequency_stride`` mels and ``time_stride`` frames, with their places.

    .. math:: z_0 = [x_\mathrm{class};\, x_\mathrm{distil};\, x_p^1 E;\, \dots;\, x_p^N E] + E_\mathrm{pos}, \quad
       N = \left\lfloor \tfrac{m - P + S_f}{S_f} \right\rfloor \left\lfloor \tfrac{s - P + S_t}{S_t} \right\rfloor

    ``mel_mask`` (b, s) is True where a frame is real; padding becomes zeros, and what is shorter than a patch is padded
    to one. Returns (b, 2 + p, d), and (b, 2 + p), True for both tokens, patches of real frames alone, and those of the
    first column wherever one of its frames is real.

    Raises ``ValueError`` as :func:`~mmlearn.models.audio.mel.check_mel` does. Source: section 2.1 and figure 1.
    """

    def __init__(self, config: ASTConfig):
        super().__init__()
        size, strides = config.patch_size, (config.frequency_stride, config.time_stride)
        if min(config.mels, config.frames) < size:
            raise ValueError(
                f"{config.mels} mels and {config.frames} frames hold no patch of {size} × {size}; change one of them."
            )
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
        check_mel(mel, mel_mask, self.config.mels, self.config.frames)
        size, steps = self.config.patch_size, (self.config.frequency_stride, self.config.time_stride)
        real = torch.ones_like(mel[:, 0], dtype=torch.bool) if mel_mask is None else mel_mask
        missing = max(size - mel.shape[2], 0)
        mel, real = F.pad(mel.masked_fill(~real[:, None], 0), (0, missing)), F.pad(real, (0, missing))
        x = self.patches(patchify_mel(mel, (size, size), steps))  # (b, row, column, d)
        columns = patchify_frames(real, size, steps[1])
        mask = F.pad(repeat(columns, "b column -> b (row column)", row=x.shape[1]), (2, 0), value=True)
        special, places = self.positions[:2], rearrange(self.positions[2:], "(row n) d -> row n d", row=self.grid[0])
        x = rearrange(x + places[:, : x.shape[2]], "b row column d -> b (row column) d")
        special = special + torch.stack([self.class_token, self.distillation_token])
        return torch.cat([repeat(special, "n d -> b n d", b=len(x)).to(x), x], dim=1), mask


class AST(nn.Module):
    r"""Patches and two tokens through a pre-norm transformer; a sound is the mean of the two.

    .. math:: y = \tfrac{1}{2} \left(\mathrm{LN}(z_L)^\mathrm{class} + \mathrm{LN}(z_L)^\mathrm{distil}\right), \quad
       \mathrm{logits} = W\, \mathrm{LN}(y) + b

    Inputs and errors are those of :class:`SpectrogramEmbedding`; ``grid`` has the rows (by frequency) and columns (by
    time) of patches of a clip with ``frames`` frames. Source: section 2.1, and the official code for the mean.
    """

    def __init__(self, config: ASTConfig):
        super().__init__()
        self.config = config
        width, epsilon = config.width, config.norm_epsilon
        self.embedding = SpectrogramEmbedding(config)
        self.dropout = nn.Dropout(config.dropout)
        self.transformer = Transformer(
            width,
            config.depth,
            config.num_heads,
            mlp_width=config.mlp_width,
            activation=config.activation,
            norm_epsilon=epsilon,
            dropout=config.dropout,
        )
        self.norm = nn.LayerNorm(width, eps=epsilon)
        self.classifier = None
        if config.num_classes:
            self.classifier = nn.Sequential(nn.LayerNorm(width, eps=epsilon), nn.Linear(width, config.num_classes))
            nn.init.zeros_(self.classifier[1].weight)
            nn.init.zeros_(self.classifier[1].bias)

    @property
    def grid(self) -> tuple[int, int]:
        return self.embedding.grid

    def forward(self, mel: Float[Tensor, "b mels s"], mel_mask: Bool[Tensor, "b s"] | None = None) -> ASTOutput:
        x, mask = self.embedding(mel, mel_mask)
        tokens = self.norm(self.transformer(self.dropout(x), None if mel_mask is None else mask))
        representation = tokens[:, :2].mean(1)
        return ASTOutput(tokens, mask, representation, self._logits(representation))

    def encode_audio(
        self, mel: Float[Tensor, "b mels s"], mel_mask: Bool[Tensor, "b s"] | None = None
    ) -> Float[Tensor, "b d"]:
        """The representation alone, faster: the last block computes only the two tokens that are read."""
        x, mask = self.embedding(mel, mel_mask)
        read = torch.arange(2, device=x.device).expand(len(x), -1)
        two = self.transformer(self.dropout(x), None if mel_mask is None else mask, read=read)
        return self.norm(two).mean(1)

    def _logits(self, representation: Tensor) -> Float[Tensor, "b classes"] | None:
        return self.classifier(representation) if self.classifier is not None else None

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """``classification``: which class, for a ``label`` int (b,), or a yes or no to each, for float (b, classes).

        The first is cross-entropy, as for spoken words; the second its binary kind, as for AudioSet. Raises
        ``ValueError`` without a classifier, ``mel`` or ``label``, for an empty batch and for a label of another shape.
        Source: section 3.1.
        """
        if self.classifier is None:
            raise ValueError("This AST has no classifier: set num_classes in its configuration.")
        if missing := [name for name in ("mel", "label") if name not in batch]:
            raise ValueError(f"Nothing to learn: this AST needs mel and label, and the batch has no {missing[0]}.")
        mel, label = batch["mel"], batch["label"]
        if not len(mel):
            raise ValueError("A batch holds at least one sound.")
        logits, several = self._logits(self.encode_audio(mel, batch.get("mel_mask"))), label.is_floating_point()
        if label.shape != (logits.shape if several else logits.shape[:1]):
            raise ValueError(
                f"A label is int (b,) or float (b, classes), with {tuple(logits.shape)}; got {label.dtype} "
                f"{tuple(label.shape)}."
            )
        criterion = F.binary_cross_entropy_with_logits if several else F.cross_entropy
        return {"classification": criterion(logits, label)}


RECIPE = Recipe(
    AST,
    ASTConfig,
    reads=(LogMel(), Labels()),
    learns=Objective(
        "classification", {"classification": ln("num_classes")}, measures=(classes("words told"),), samples=5000
    ),
)
