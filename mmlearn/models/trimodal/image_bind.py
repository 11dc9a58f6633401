r"""ImageBind: every modality is aligned with pictures, and thereby with every other one, without pairs of the two.

Paper: Girdhar et al. 2023, "ImageBind: One Embedding Space To Bind Them All", CVPR.
Official code: https://github.com/facebookresearch/ImageBind (the model; only the paper says how it was trained).

Deviations: encoders of pictures, texts and log-mels are built in; those of video, depth, heat and motion are given as
``encoders``. ``tiny`` is ours: its towers are pooled by the maximum over real tokens, and all of them learn. Every
pair learns its temperature; the paper keeps some of them fixed. The loss is the mean of both directions, where the
paper has their sum. Pictures are cut into patches of one frame; the official code repeats a picture to a film of two
frames and has weights for both, whose sum is ours. In ``tiny`` a patch of sound has one learned embedding for its band
and one for its time. No blocks are dropped. Texts that are equal in a batch (``caption_id``) are no negatives of each
other's pictures, and a row need not have every modality.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.layers import Config, ImageEncoder, ImageEncoderConfig, TextEncoder, TextEncoderConfig, select_tokens
from mmlearn.models.audio.encoder import AudioEncoder, AudioEncoderConfig
from mmlearn.models.trimodal.drop_token import masked_max
from mmlearn.objectives import binding_loss, gather, same_caption
from mmlearn.suggestions import suggest

# The entries of a batch that hold a modality and its mask, where they do not have the modality's own name.
ENTRIES = {"text": ("tokens", "mask"), "audio": ("mel", "mel_mask")}


@dataclass(frozen=True)
class ImageBindConfig(Config):
    image: ImageEncoderConfig = ImageEncoderConfig(1280, 32, 16, patch_size=14, embedding_norm=True, norm_epsilon=1e-6)
    text: TextEncoderConfig = TextEncoderConfig(1024, 24, 16, norm_epsilon=1e-6)
    audio: AudioEncoderConfig = AudioEncoderConfig(
        norm_epsilon=1e-6, one_position=True, patch_norm=True, extra_key=True
    )
    embedding_width: int = 1024
    pooling: str = "class"  # at the class token, of a text at its last token; or the "max" over real tokens
    temperature: float = 0.07  # at the start; each pair learns its own
    frozen: tuple[str, ...] = ("image", "text")  # encoders that do not learn

    PRESETS = {
        "tiny": dict(
            image=ImageEncoderConfig(64, 2, 4, image_size=64, patch_size=16, class_token=False, embedding_norm=True),
            text=TextEncoderConfig(64, 1, 4, vocab_size=512, max_length=32, causal=False),
            audio=AudioEncoderConfig(64, 2, 4, mels=64, frames=208, stride=(16, 16), class_token=False),
            embedding_width=128,
            pooling="max",
            frozen=(),
        ),
        "huge": dict(),
    }


class ImageBindOutput(NamedTuple):
    """All embeddings have unit length."""

    image_embedding: Float[Tensor, "b d"]
    other_embeddings: dict[str, Float[Tensor, "b d"]]  # of the other modalities that were given, by their names


class Tower(nn.Module):
    """An encoder, the pooling of its tokens, and a projection. Source: section 3.2."""

    def __init__(self, encoder: nn.Module, width: int, config: ImageBindConfig):
        super().__init__()
        self.pooling = config.pooling
        self.encoder = encoder
        self.projection = nn.Linear(width, config.embedding_width, bias=False)
        nn.init.normal_(self.projection.weight, std=width**-0.5)

    def pool(self, x: Tensor, mask: Tensor | None, position: int | Tensor = 0) -> Float[Tensor, "b d"]:
        """The projected token at this position, or the maximum over those that are real."""
        return self.projection(masked_max(x, mask) if self.pooling == "max" else select_tokens(x, position))


class ImageTower(Tower):
    """Pictures → (b, embedding_width)."""

    def forward(self, image: Float[Tensor, "b c height width"]) -> Float[Tensor, "b d"]:
        return self.pool(self.encoder(image), None)


class TextTower(Tower):
    """Tokens → (b, embedding_width). The end of a text is its highest token, as in CLIP."""

    def forward(self, tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"] | None = None) -> Float[Tensor, "b d"]:
        return self.pool(self.encoder(tokens, mask), mask, tokens.argmax(-1))


class AudioTower(Tower):
    """Log-mel → (b, embedding_width)."""

    def forward(
        self, mel: Float[Tensor, "b mels s"], mel_mask: Bool[Tensor, "b s"] | None = None
    ) -> Float[Tensor, "b d"]:
        return self.pool(*self.encoder(mel, mel_mask))


def build_encoders(config: ImageBindConfig) -> dict[str, nn.Module]:
    """The towers of pictures, texts and sounds that a configuration describes.

    Raises ``ValueError`` for an unknown pooling, or one that does not go with ``class_token``.
    """
    by_class = config.pooling == "class"
    if config.pooling not in ("class", "max") or {config.image.class_token, config.audio.class_token} != {by_class}:
        raise ValueError(f"pooling is 'class' with class tokens or 'max' without, not {config.pooling!r}.")
    return {
        "image": ImageTower(ImageEncoder(config.image), config.image.width, config),
        "text": TextTower(TextEncoder(config.text), config.text.width, config),
        "audio": AudioTower(AudioEncoder(config.audio), config.audio.width, config),
    }


class ImageBind(nn.Module):
    """One encoder for each modality, all into one space. In training, every modality is compared with pictures alone.

    ``encoders`` are modules by the name of their modality; without them, those of the configuration are built
    (:func:`build_encoders`). An encoder maps what it reads, and its mask where there is one, to (b, embedding_width).
    Encoders in ``frozen`` never learn, and stay in evaluation mode. Raises ``ValueError`` without an encoder of images,
    or without another one to bind to it. Source: section 3 and figure 2.
    """

    def __init__(self, config: ImageBindConfig, encoders: dict[str, nn.Module] | None = None):
        super().__init__()
        self.config = config
        self.encoders = nn.ModuleDict(build_encoders(config) if encoders is None else encoders)
        self.others = [name for name in self.encoders if name != "image"]
        if "image" not in self.encoders or not self.others:
            raise ValueError(f"Encoders are those of image and of others to bind to it, got {list(self.encoders)}.")
        start = math.log(1 / config.temperature)
        self.logit_scales = nn.ParameterDict({name: nn.Parameter(torch.tensor(start)) for name in self.others})
        for name in set(config.frozen) & set(self.encoders):
            self.encoders[name].requires_grad_(False).eval()
            if name != "image" and "image" in config.frozen:
                self.logit_scales[name].requires_grad_(False)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for name in set(self.config.frozen) & set(self.encoders):
            self.encoders[name].eval()
        return self

    def encode(self, modality: str, *inputs: Tensor | None) -> Float[Tensor, "b d"]:
        """Unit vectors of a modality, from the inputs of its encoder. ``ValueError`` for one without an encoder."""
        if modality not in self.encoders:
            raise ValueError(f"There is no encoder for {modality!r}; {suggest(modality, self.encoders)}.")
        return F.normalize(self.encoders[modality](*(x for x in inputs if x is not None)), dim=-1)

    def encode_image(self, image: Float[Tensor, "b ..."]) -> Float[Tensor, "b d"]:
        return self.encode("image", image)

    def encode_text(self, tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"] | None = None) -> Float[Tensor, "b d"]:
        return self.encode("text", tokens, mask)

    def encode_audio(
        self, mel: Float[Tensor, "b mels s"], mel_mask: Bool[Tensor, "b s"] | None = None
    ) -> Float[Tensor, "b d"]:
        return self.encode("audio", mel, mel_mask)

    def forward(
        self,
        image: Float[Tensor, "b ..."],
        mel: Float[Tensor, "b mels s"] | None = None,
        tokens: Int[Tensor, "b t"] | None = None,
        mel_mask: Bool[Tensor, "b s"] | None = None,
        mask: Bool[Tensor, "b t"] | None = None,
        **more: Tensor,
    ) -> ImageBindOutput:
        """``more`` are modalities with given encoders, by their names, such as ``depth`` and ``depth_mask``."""
        others = {}
        if tokens is not None:
            others["text"] = self.encode_text(tokens, mask)
        if mel is not None:
            others["audio"] = self.encode_audio(mel, mel_mask)
        for name in self.others:
            if name in more:
                others[name] = self.encode(name, more[name], more.get(f"{name}_mask"))
        return ImageBindOutput(self.encode_image(image), others)

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        r"""InfoNCE of pictures with each other modality in the batch: ``image_text``, ``image_audio`` and so on.

        .. math:: \ell = \sum_M \ell_{I, M}, \quad \ell_{I, M} = \mathrm{InfoNCE}(q, k), \quad q = f(I), \; k = g(M)

        A text is ``tokens`` and ``mask``, a sound ``mel`` and ``mel_mask``; any other modality has its own name. A row
        whose mask is all False lacks that modality and has no part in its loss, which is 0 where all rows lack it.
        There is no loss where both encoders are frozen. Raises ``ValueError`` where nothing is left to learn, and for
        an empty batch. Source: equation 1.
        """
        frozen = self.config.frozen if "image" in self.config.frozen else ()
        learned = [name for name in self.others if name not in frozen]
        names = [name for name in learned if _entries(name)[0] in batch]
        if "image" not in batch or not names:
            needed = " or ".join(_entries(name)[0] for name in learned)
            raise ValueError(f"Nothing to learn: this ImageBind needs image in the batch, and {needed or 'to thaw'}.")
        if not len(batch["image"]):
            raise ValueError("A batch holds at least one picture and what belongs to it.")
        entries = [entry for name in names for entry in _entries(name) if entry in batch]
        output = self(batch["image"], **{entry: batch[entry] for entry in entries})
        image, caption_id = gather(output.image_embedding), batch.get("caption_id")
        positives = None if caption_id is None else same_caption(gather(caption_id))
        losses = {}
        for name in names:
            other, scale = gather(output.other_embeddings[name]), self.logit_scales[name].exp()
            if len(other) != len(image):
                raise ValueError(f"Each picture has its {name}; got {len(image)} images and {len(other)} of {name}.")
            mask = batch.get(_entries(name)[1])
            present = torch.ones_like(other[:, 0], dtype=torch.bool) if mask is None else gather(mask.flatten(1).any(1))
            losses[f"image_{name}"] = binding_loss(image, other, scale, present, positives)
        return losses

    @torch.no_grad()
    def after_step(self) -> None:
        """Keep logits at most a hundredfold cosine, for stability, as in CLIP."""
        for scale in self.logit_scales.values():
            scale.clamp_(max=math.log(100))


def _entries(modality: str) -> tuple[str, str]:
    return ENTRIES.get(modality, (modality, f"{modality}_mask"))
