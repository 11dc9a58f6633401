r"""VATT: raw video, raw sound and text, cut into tokens each in its own way, through transformers of one kind.

Paper: Akbari et al. 2021, "VATT: Transformers for Multimodal Self-Supervised Learning from Raw Video, Audio and Text",
NeurIPS. Official code: https://github.com/google-research/google-research/tree/master/vatt.

Deviations: ``tiny`` and ``tiny-agnostic`` are ours; they also read a tower by the maximum over its real tokens, for an
aggregation token needs many more steps to learn where to look. Texts have learned positions; the paper's have none, and
a learned relative bias in the attention of the first block instead, as in T5. Each modality has its own aggregation
token, also before a shared backbone. Padding of video and sound is masked, and DropToken takes the same share of what
is real in each row. A picture counts as a film that stands still, as where the paper is fine-tuned on pictures. Sound
may be at any rate; the published presets count samples of 48 kHz. Batch norms know the rows of their own process only,
and of these only what exists. Texts that are equal in a batch (``caption_id``) are no negatives of each other.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from einops import repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.data.fields import Tokens, Video, Waveform
from mmlearn.evaluation.measures import by_name, retrieval
from mmlearn.layers import Config, TextEmbedding
from mmlearn.layers.padded import Transformer
from mmlearn.models.audio.encoder import WaveformTokens
from mmlearn.models.trimodal.drop_token import drop_tokens, maximum
from mmlearn.models.trimodal.video import VideoTokens
from mmlearn.objectives import gather, mil_nce, same_caption
from mmlearn.recipes import Objective, Recipe, ln_batch

MODALITIES = ("video", "audio", "text")


@dataclass(frozen=True)
class BackboneConfig(Config):
    width: int = 768
    depth: int = 12
    num_heads: int = 12
    mlp_width: int | None = None  # 4 · width


SMALL = BackboneConfig(width=512, depth=6, num_heads=8)
MEDIUM = BackboneConfig(width=1024, num_heads=16)
LARGE = BackboneConfig(width=1024, depth=24, num_heads=16)
TINY = dict(
    **dict.fromkeys(MODALITIES, BackboneConfig(width=64, depth=2, num_heads=4)),
    video_size=(8, 64, 64),
    samples=32_000,  # 2 s at 16 kHz
    audio_patch=320,
    vocab_size=512,
    max_length=32,
    pooling="max",
    video_audio_width=128,
    video_text_width=64,
)


@dataclass(frozen=True)
class VATTConfig(Config):
    video: BackboneConfig = BackboneConfig()
    audio: BackboneConfig = BackboneConfig()
    text: BackboneConfig = SMALL
    agnostic: bool = False  # one backbone for all three, which then have the same size
    video_size: tuple[int, ...] = (32, 224, 224)  # frames, pixels, pixels: at most
    video_patch: tuple[int, ...] = (4, 16, 16)
    samples: int = 153_600  # of sound, at most: 3.2 s at 48 kHz
    audio_patch: int = 128  # samples
    vocab_size: int = 65_536
    max_length: int = 16  # tokens
    drop_rate: float = 0.5  # the share of the tokens of video and sound that training leaves out
    pooling: str = "class"  # a tower is read at its aggregation token, or by the "max" over its real tokens
    video_audio_width: int = 512
    video_text_width: int = 256
    temperature: float = 0.07
    text_weight: float = 1.0  # of video and text, beside video and sound
    seed: int = 0  # of the tokens that are dropped

    PRESETS = {
        "tiny": TINY,
        "tiny-agnostic": TINY | dict(agnostic=True),
        "base-base-small": dict(),
        "medium-base-small": dict(video=MEDIUM),
        "large-base-small": dict(video=LARGE),
        "agnostic-medium": dict(video=MEDIUM, audio=MEDIUM, text=MEDIUM, agnostic=True),
    }


class VATTOutput(NamedTuple):
    video_audio: Float[Tensor, "b d"]  # the video, in the space that it shares with sounds; all of unit length
    audio: Float[Tensor, "b d"]
    video_text: Float[Tensor, "b e"]  # the video, in the space that it shares with texts
    text: Float[Tensor, "b *candidates e"]


class Backbone(nn.Module):
    """The transformer that reads tokens, whatever they were cut from. Source: section 3.2 and figure 1."""

    def __init__(self, config: BackboneConfig):
        super().__init__()
        self.transformer = Transformer(config.width, config.depth, config.num_heads, mlp_width=config.mlp_width)
        self.norm = nn.LayerNorm(config.width)

    def forward(
        self, x: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"], read: Int[Tensor, "b"] | None = None
    ) -> Float[Tensor, "b r d"]:
        return self.norm(self.transformer(x, mask, read=read))


def projection(*widths: int) -> nn.Sequential:
    """Linear layers with ReLU between them, each with a batch norm after it. Source: section 3.3."""
    layers = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.BatchNorm1d(after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class VATT(nn.Module):
    r"""Three ways to cut tokens, one backbone or three, and two spaces, the coarser one reached through the finer.

    .. math:: z_{v,va} = g_{v \to va}(z^\mathrm{video}), \; z_{a,va} = g_{a \to va}(z^\mathrm{audio}), \quad
       z_{t,vt} = g_{t \to vt}(z^\mathrm{text}), \; z_{v,vt} = g_{v \to vt}(z_{v,va})

    Masks are True where frames, samples and words are real. A ``generator`` drops ``drop_rate`` of the tokens of video
    and sound. Texts may be (b, t), or (b, candidates, t) where several may fit a video. What has nothing real in it
    gets zeros for an embedding. Raises ``ValueError`` for an unknown pooling, for backbones of several sizes where one
    serves all, in training for fewer than two of a modality, which batch norms cannot tell apart, and as
    :class:`~mmlearn.models.trimodal.video.VideoTokens`, :class:`~mmlearn.models.audio.encoder.WaveformTokens` and
    :class:`~mmlearn.layers.TextEmbedding` do.
    Source: sections 3.1 to 3.3, equations 1 to 3 and figure 1.
    """

    def __init__(self, config: VATTConfig):
        super().__init__()
        if config.pooling not in ("class", "max"):
            raise ValueError(f"pooling is 'class' or 'max', not {config.pooling!r}.")
        if config.agnostic and not config.video == config.audio == config.text:
            raise ValueError("One backbone for all needs video, audio and text of the same size.")
        self.config = config
        widths = {name: getattr(config, name).width for name in MODALITIES}
        self.tokens = nn.ModuleDict(
            {
                "video": VideoTokens(config.video_size, config.video_patch, widths["video"]),
                "audio": WaveformTokens(config.samples, config.audio_patch, widths["audio"]),
                "text": TextEmbedding(config.vocab_size, widths["text"], config.max_length),
            }
        )
        self.aggregation = nn.ParameterDict()
        if config.pooling == "class":
            self.aggregation.update(
                {name: nn.Parameter(torch.randn(width) * width**-0.5) for name, width in widths.items()}
            )
        backbones = ("all",) if config.agnostic else MODALITIES
        self.backbones = nn.ModuleDict(
            {name: Backbone(config.video if config.agnostic else getattr(config, name)) for name in backbones}
        )
        fine, coarse = config.video_audio_width, config.video_text_width
        self.video_head = projection(widths["video"], fine, fine)
        self.audio_head = projection(widths["audio"], fine)
        self.video_text_head = projection(fine, coarse)
        self.text_head = projection(widths["text"], coarse)
        self.register_buffer("steps", torch.tensor(0))  # of training; a checkpoint holds it, and so the drops to come

    def _read(
        self, name: str, x: Tensor, mask: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, "b d"], Bool[Tensor, "b"]]:
        """One vector for each row, from the tokens of a modality; and which rows hold anything real."""
        exists = mask.any(1)
        if generator is not None:
            x, mask, _ = drop_tokens(x, mask, self.config.drop_rate, generator)
        backbone = self.backbones["all" if self.config.agnostic else name]
        if self.config.pooling == "class":
            first = repeat(self.aggregation[name], "d -> b 1 d", b=len(x))
            place = torch.zeros(len(x), dtype=torch.long, device=x.device)
            return backbone(torch.cat([first, x], dim=1), F.pad(mask, (1, 0), value=True), place)[:, 0], exists
        return maximum(backbone(x, mask), mask), exists

    def encode_video(
        self,
        video: Float[Tensor, "b f 3 height width"],
        video_mask: Bool[Tensor, "b f"] | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b e"]]:
        x, exists = self._read("video", *self.tokens["video"](video, video_mask), generator)
        fine = _project(self.video_head, x, exists)
        return F.normalize(fine, dim=-1), F.normalize(_project(self.video_text_head, fine, exists), dim=-1)

    def _audio(self, waveform: Tensor, mask: Tensor | None, generator: torch.Generator | None = None) -> Tensor:
        return _project(self.audio_head, *self._read("audio", *self.tokens["audio"](waveform, mask), generator))

    def encode_audio(
        self,
        waveform: Float[Tensor, "b samples"],
        waveform_mask: Bool[Tensor, "b samples"] | None = None,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "b d"]:
        return F.normalize(self._audio(waveform, waveform_mask, generator), dim=-1)

    def encode_text(
        self, tokens: Int[Tensor, "b *candidates t"], mask: Bool[Tensor, "b *candidates t"] | None = None
    ) -> Float[Tensor, "b *candidates e"]:
        mask = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
        flat = mask.flatten(0, -2)
        x, exists = self._read("text", self.tokens["text"](tokens.flatten(0, -2)), flat)
        return F.normalize(_project(self.text_head, x, exists), dim=-1).unflatten(0, tokens.shape[:-1])

    def encode_image(self, image: Float[Tensor, "b 3 height width"]) -> Float[Tensor, "b e"]:
        return self.encode_video(self._still(image))[1]

    def _still(self, image: Float[Tensor, "b 3 height width"]) -> Float[Tensor, "b f 3 height width"]:
        return repeat(image, "b c height width -> b f c height width", f=self.config.video_patch[0])

    def audio_among_texts(
        self, waveform: Float[Tensor, "b samples"], waveform_mask: Bool[Tensor, "b samples"] | None = None
    ) -> Float[Tensor, "b e"]:
        """Sounds in the space of texts, which they never met: by the projection that takes video there.

        In evaluation mode, for otherwise the batch norm learns from sounds. Source: Alayrac et al. 2020 (MMV), section
        3.1, fine and coarse spaces.
        """
        return F.normalize(self.video_text_head(self._audio(waveform, waveform_mask)), dim=-1)

    def forward(
        self,
        video: Float[Tensor, "b f 3 height width"],
        waveform: Float[Tensor, "b samples"],
        tokens: Int[Tensor, "b *candidates t"],
        video_mask: Bool[Tensor, "b f"] | None = None,
        waveform_mask: Bool[Tensor, "b samples"] | None = None,
        mask: Bool[Tensor, "b *candidates t"] | None = None,
        generator: torch.Generator | None = None,
    ) -> VATTOutput:
        video_audio, video_text = self.encode_video(video, video_mask, generator)
        audio = self.encode_audio(waveform, waveform_mask, generator)
        return VATTOutput(video_audio, audio, video_text, self.encode_text(tokens, mask))

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        r"""``nce`` of video and sound, and λ ``mil_nce`` of video and text: those whose other half is in the batch.

        .. math:: \ell = \mathrm{NCE}(z_{v,va}, z_{a,va}) + \lambda\, \mathrm{MIL\text{-}NCE}(z_{v,vt}, \{z_{t,vt}\})

        ``video``, or ``image``, which stands still, with ``waveform`` or ``tokens``. A sound or text whose mask says
        that nothing of it is real takes no part. In training, tokens are dropped. Raises ``ValueError`` without any
        pair, or for an empty batch. Source: section 3.4 and equations 4 to 6.
        """
        if not {"video", "image"} & set(batch) or not {"waveform", "tokens"} & set(batch):
            raise ValueError("Nothing to learn: VATT needs video or image in the batch, and waveform or tokens.")
        video = batch["video"] if "video" in batch else self._still(batch["image"])
        if not len(video):
            raise ValueError("A batch holds at least one video with its sound or text.")
        generator = self.generator() if self.training else None
        fine, coarse = self.encode_video(video, batch.get("video_mask"), generator)
        losses = {}
        if "waveform" in batch:
            audio = self.encode_audio(batch["waveform"], batch.get("waveform_mask"), generator)
            losses["nce"] = self._nce(fine, audio, batch.get("waveform_mask"), batch)
        if "tokens" in batch:
            text = self.encode_text(batch["tokens"], batch.get("mask"))
            losses["mil_nce"] = self.config.text_weight * self._nce(coarse, text, batch.get("mask"), batch)
        return losses

    def _nce(self, video: Tensor, other: Tensor, mask: Tensor | None, batch: dict[str, Tensor]) -> Float[Tensor, ""]:
        """Over the batch of all processes. The other half is (b, d), or (b, candidates, d)."""
        other = other[:, None] if other.ndim == 2 else other
        exists = torch.ones_like(other[..., 0], dtype=torch.bool)
        if mask is not None:
            exists = mask.any(-1).view(exists.shape)
        positives = same_caption(gather(batch["caption_id"])) if "caption_id" in batch else None
        scale = video.new_tensor(1 / self.config.temperature)
        return mil_nce(gather(video), gather(other), scale, gather(exists), positives)

    def generator(self) -> torch.Generator:
        """What drops the tokens of this step: chance is a function of the seed and the step alone."""
        return torch.Generator().manual_seed(random.Random(f"{self.config.seed} {int(self.steps)}").getrandbits(32))

    @torch.no_grad()
    def after_step(self) -> None:
        """Count the step, so that the next one drops other tokens."""
        self.steps += 1


def _project(head: nn.Sequential, x: Float[Tensor, "b width"], exists: Bool[Tensor, "b"]) -> Float[Tensor, "b d"]:
    """The projection of rows that exist, zeros for the others, of which a batch norm must not know."""
    rows = int(exists.sum())
    if head.training and rows == 1:
        raise ValueError("Batch norms compare rows: in training a batch holds at least two of each modality, not one.")
    projected = head(x[exists]) if rows else x.new_zeros(0, head[-1].num_features)
    return projected.new_zeros(len(x), projected.shape[1]).index_put((exists,), projected)


def embedding(space: int, system: Any, batch: dict[str, Tensor], modality: str, call: Callable) -> Tensor:
    """Videos lie in two spaces, that of sounds (0) and that of texts (1)."""
    found = by_name(system, batch, modality, call)
    return found[space] if modality == "video" else found


RECIPE = Recipe(
    VATT,
    VATTConfig,
    reads=(Video(fps=10, image_size=64, frames=8), Waveform(standard=False), Tokens()),
    learns=Objective(
        "nce",
        {"nce": ln_batch},
        measures=(
            retrieval("video", "audio", partial(embedding, 0)),
            retrieval("video", "text", partial(embedding, 1)),
        ),
    ),
)
