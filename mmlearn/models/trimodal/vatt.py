r"""VATT: raw video, raw sound and text, each with its own tokenisation, through transformers of one kind.

Paper: Akbari et al. 2021, "VATT: Transformers for Multimodal Self-Supervised Learning from Raw Video, Audio and Text",
NeurIPS. Official code: https://github.com/google-research/google-research/tree/master/vatt.

Deviations: ``tiny`` and ``tiny-agnostic`` are ours; they also pool a tower by the maximum over its real tokens, because
an aggregation token needs many more steps to learn what to attend to. Texts have learned positions; the paper's have
none, but a learned relative bias in the attention of the first block, as in T5. Words have vectors as wide as the
tower, which learn; the official code has 300 fixed numbers of word2vec for each, and projects them, and its tower has
no biases in attention and MLP. As in the paper a batch norm follows every linear layer of the heads; the code has none
for sound and text, and a ReLU before it takes videos to texts. So ``base-base-small`` has 227M parameters, for which
the paper has 197M, and ``agnostic-medium`` 225M for 155M: video and sound towers have the published sizes. As in the
paper positions are added as they are; the code normalises their sum before, and drops out of what it is added to, of
the middle of an MLP and of what a tower returns as well. Each modality has its own aggregation token, also before a
shared backbone. Padding of video and sound is masked, and DropToken takes the same share of what is real in each row. A
picture counts as a static video, as it does where the paper is fine-tuned on pictures. Sound may be at any rate; the
published presets count samples at 48 kHz. Batch norms know the rows of their own process only, and of these only rows
in which something is real. In the denominator of both losses a video's own pairs count once, as in the paper; in the
code's asymmetric loss twice. Texts that are equal in a batch (``caption_id``) are no negatives of each other. Not
compared with released code: words, heads and positions of texts are others.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from einops import repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.layers import Config, TextEmbedding, Transformer, TransformerConfig
from mmlearn.layers.steps import StepCounter
from mmlearn.models.audio.encoder import WaveformTokens
from mmlearn.models.audio.mel import MaskedBatchNorm
from mmlearn.models.trimodal.drop_token import drop_tokens, masked_max
from mmlearn.models.trimodal.video import VideoTokens
from mmlearn.objectives import gather, mil_nce, same_caption
from mmlearn.objectives.draws import generator_of_step

MODALITIES = ("video", "audio", "text")

PUBLISHED: dict[str, Any] = dict(norm_epsilon=1e-6, dropout=0.1)
SMALL = TransformerConfig(512, 6, 8, **PUBLISHED)
BASE = TransformerConfig(768, 12, 12, **PUBLISHED)
MEDIUM = TransformerConfig(1024, 12, 16, **PUBLISHED)
LARGE = TransformerConfig(1024, 24, 16, **PUBLISHED)
TINY: dict[str, Any] = dict(
    **dict.fromkeys(MODALITIES, TransformerConfig(64, 2, 4)),
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
    video: TransformerConfig = BASE
    audio: TransformerConfig = BASE
    text: TransformerConfig = SMALL
    agnostic: bool = False  # one backbone for all three, which then have the same size
    video_size: tuple[int, ...] = (32, 224, 224)  # at most: frames, rows and columns of pixels
    video_patch: tuple[int, ...] = (4, 16, 16)
    samples: int = 153_600  # of sound, at most: 3.2 s at 48 kHz
    audio_patch: int = 128  # samples
    vocab_size: int = 65_536
    max_length: int = 16  # tokens
    drop_rate: float = 0.5  # of the tokens of video and sound, in training
    pooling: str = "class"  # at the aggregation token, or the "max" over real tokens
    video_audio_width: int = 512
    video_text_width: int = 256
    temperature: float = 0.07
    text_weight: float = 1.0  # of the loss of video and text
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
    """All of unit length, or 0 where nothing is real."""

    video_audio: Float[Tensor, "b d"]  # the video, in the fine space that it shares with sounds
    audio: Float[Tensor, "b d"] | None
    video_text: Float[Tensor, "b e"]  # the video, in the coarse space that it shares with texts
    text: Float[Tensor, "b *candidates e"] | None


class Backbone(nn.Module):
    """The transformer, which may serve all modalities. Source: section 3.2 and figure 1."""

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.transformer = Transformer(config)
        self.norm = nn.LayerNorm(config.width, eps=config.norm_epsilon)

    def forward(self, x: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"]) -> Float[Tensor, "b n d"]:
        return self.norm(self.transformer(x, mask))

    def read_class_token(self, x: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"]) -> Float[Tensor, "b d"]:
        return self.norm(self.transformer.read(x, 0, mask))


class Projection(nn.Module):
    """Linear layers with ReLU between them, each followed by a batch norm. Rows that are not real become 0.

    Raises ``ValueError`` in training for a batch of one row, whose batch statistics would be empty. Source: section
    3.3.
    """

    def __init__(self, *widths: int):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(widths))
        self.norms = nn.ModuleList(MaskedBatchNorm(width) for width in widths[1:])

    def forward(self, x: Float[Tensor, "b d"], real: Bool[Tensor, "b"]) -> Float[Tensor, "b e"]:
        if self.training and len(x) == 1:
            raise ValueError("Batch norms compare rows: in training a batch holds at least two of each modality.")
        for i, (layer, norm) in enumerate(zip(self.layers, self.norms)):
            x = norm(layer(x.relu() if i else x), real)
        return x.masked_fill(~real[:, None], 0)


class VATT(StepCounter):
    r"""Three tokenisations, one backbone or three, and two spaces: the coarse one is a projection of the fine one.

    .. math:: z_{v,va} = g_{v \to va}(z^\mathrm{video}), \; z_{a,va} = g_{a \to va}(z^\mathrm{audio}), \quad
       z_{t,vt} = g_{t \to vt}(z^\mathrm{text}), \; z_{v,vt} = g_{v \to vt}(z_{v,va})

    Masks are True where frames, samples and words are real. A ``generator`` drops ``drop_rate`` of the tokens of video
    and sound. Texts may be (b, t), or (b, candidates, t) where several may fit a video. Raises ``ValueError`` for an
    unknown pooling, for backbones of several sizes where one serves all, and as :class:`Projection`,
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
        video = VideoTokens(config.video_size, config.video_patch, widths["video"])
        audio = WaveformTokens(config.samples, config.audio_patch, widths["audio"])
        text = TextEmbedding(config.vocab_size, widths["text"], config.max_length)
        self.tokens = nn.ModuleDict({"video": video, "audio": audio, "text": text})
        self.aggregation = nn.ParameterDict()
        if config.pooling == "class":
            tokens = {name: torch.randn(width) * width**-0.5 for name, width in widths.items()}
            self.aggregation.update({name: nn.Parameter(token) for name, token in tokens.items()})
        backbones = {"all": config.video} if config.agnostic else {name: getattr(config, name) for name in MODALITIES}
        self.backbones = nn.ModuleDict({name: Backbone(backbone) for name, backbone in backbones.items()})
        fine, coarse = config.video_audio_width, config.video_text_width
        self.video_head = Projection(widths["video"], fine, fine)
        self.audio_head = Projection(widths["audio"], fine)
        self.video_text_head = Projection(fine, coarse)
        self.text_head = Projection(widths["text"], coarse)

    def pool(
        self, name: str, x: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"], generator: torch.Generator | None = None
    ) -> Float[Tensor, "b d"]:
        """One vector for each row, from the tokens of the modality ``name`` after its backbone."""
        if generator is not None:
            x, mask, _ = drop_tokens(x, mask, self.config.drop_rate, generator)
        backbone = self.backbones["all" if self.config.agnostic else name]
        if self.config.pooling == "max":
            return masked_max(backbone(x, mask), mask)
        class_token = repeat(self.aggregation[name], "d -> b 1 d", b=len(x))
        return backbone.read_class_token(torch.cat([class_token, x], dim=1), F.pad(mask, (1, 0), value=True))

    def encode_video(
        self,
        video: Float[Tensor, "b f 3 height width"],
        video_mask: Bool[Tensor, "b f"] | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b e"]]:
        """In the space of sounds, and in the space of texts."""
        x, mask = self.tokens["video"](video, video_mask)  # (b, n, width), (b, n)
        fine = self.video_head(self.pool("video", x, mask, generator), mask.any(1))
        return F.normalize(fine, dim=-1), F.normalize(self.video_text_head(fine, mask.any(1)), dim=-1)

    def encode_audio(
        self,
        waveform: Float[Tensor, "b samples"],
        waveform_mask: Bool[Tensor, "b samples"] | None = None,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "b d"]:
        x, mask = self.tokens["audio"](waveform, waveform_mask)
        return F.normalize(self.audio_head(self.pool("audio", x, mask, generator), mask.any(1)), dim=-1)

    def encode_text(
        self, tokens: Int[Tensor, "b *candidates t"], mask: Bool[Tensor, "b *candidates t"] | None = None
    ) -> Float[Tensor, "b *candidates e"]:
        mask = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
        shape, tokens, mask = tokens.shape[:-1], tokens.flatten(0, -2), mask.flatten(0, -2)
        x = self.pool("text", self.tokens["text"](tokens), mask)
        return F.normalize(self.text_head(x, mask.any(1)), dim=-1).unflatten(0, shape)

    def encode_image(self, image: Float[Tensor, "b 3 height width"]) -> Float[Tensor, "b e"]:
        """In the space of texts, as a static video."""
        return self.encode_video(self.as_video(image))[1]

    def as_video(self, image: Float[Tensor, "b 3 height width"]) -> Float[Tensor, "b f 3 height width"]:
        """A static video of this picture, as long as one patch."""
        return repeat(image, "b c height width -> b f c height width", f=self.config.video_patch[0])

    def audio_in_text_space(
        self, waveform: Float[Tensor, "b samples"], waveform_mask: Bool[Tensor, "b samples"] | None = None
    ) -> Float[Tensor, "b e"]:
        """Sounds in the space of texts, without pairs of the two, by the projection that video has.

        Call it in evaluation mode, because otherwise the batch norm learns from sounds. Source: Alayrac et al. 2020
        (MMV), section 3.1, fine and coarse spaces.
        """
        x, mask = self.tokens["audio"](waveform, waveform_mask)
        fine = self.audio_head(self.pool("audio", x, mask), mask.any(1))
        return F.normalize(self.video_text_head(fine, mask.any(1)), dim=-1)

    def forward(
        self,
        video: Float[Tensor, "b f 3 height width"],
        waveform: Float[Tensor, "b samples"] | None = None,
        tokens: Int[Tensor, "b *candidates t"] | None = None,
        video_mask: Bool[Tensor, "b f"] | None = None,
        waveform_mask: Bool[Tensor, "b samples"] | None = None,
        mask: Bool[Tensor, "b *candidates t"] | None = None,
        generator: torch.Generator | None = None,
    ) -> VATTOutput:
        video_audio, video_text = self.encode_video(video, video_mask, generator)
        audio = None if waveform is None else self.encode_audio(waveform, waveform_mask, generator)
        text = None if tokens is None else self.encode_text(tokens, mask)
        return VATTOutput(video_audio, audio, video_text, text)

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        r"""``nce`` of video and sound, and λ ``mil_nce`` of video and text, as far as they are in the batch.

        .. math:: \ell = \mathrm{NCE}(z_{v,va}, z_{a,va}) + \lambda\, \mathrm{MIL\text{-}NCE}(z_{v,vt}, \{z_{t,vt}\})

        ``video``, or ``image`` as a static video, with ``waveform`` or ``tokens``. A sound or text whose mask is all
        False is left out. In training, tokens are dropped. Raises ``ValueError`` without any
        pair, and for an empty batch. Source: section 3.4 and equations 4 to 6.
        """
        if not {"video", "image"} & set(batch) or not {"waveform", "tokens"} & set(batch):
            raise ValueError("Nothing to learn: VATT needs video or image in the batch, and waveform or tokens.")
        video = batch["video"] if "video" in batch else self.as_video(batch["image"])
        if not len(video):
            raise ValueError("A batch holds at least one video with its sound or text.")
        inputs = {name: batch.get(name) for name in ("waveform", "tokens", "video_mask", "waveform_mask", "mask")}
        generator = generator_of_step(self.config.seed, self.steps) if self.training else None
        output, losses = self(video, **inputs, generator=generator), {}
        caption_id = batch.get("caption_id")
        positives = None if caption_id is None else same_caption(gather(caption_id))
        if output.audio is not None:
            audio = output.audio[:, None]  # (b, 1 candidate, d)
            losses["nce"] = self._nce(output.video_audio, audio, inputs["waveform_mask"], positives)
        if output.text is not None:
            text = output.text.view(len(output.text), -1, output.text.shape[-1])  # (b, candidates, e)
            losses["mil_nce"] = self.config.text_weight * self._nce(output.video_text, text, inputs["mask"], positives)
        return losses

    def _nce(self, video: Tensor, other: Tensor, mask: Tensor | None, positives: Tensor | None) -> Float[Tensor, ""]:
        """Over the batch of all processes; candidates whose mask is all False are left out."""
        exists = torch.ones_like(other[..., 0], dtype=torch.bool)  # (b, candidates)
        if mask is not None:
            exists = mask.any(-1).view(other.shape[:2])
        scale = video.new_full((), 1 / self.config.temperature)
        return mil_nce(gather(video), gather(other), scale, gather(exists), positives)
