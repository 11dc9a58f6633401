"""Pixel-BERT: every pixel of a convolutional network's feature map is a token that BERT reads along with the words.

Paper: Huang et al. 2020, "Pixel-BERT: Aligning Image Pixels with Text by Deep Multi-Modal Transformers",
arXiv 2004.00849. Official code: none was published.

Deviations: ``tiny`` is ours, with a few convolutions for a backbone. Weights start at random, where the paper starts
from BERT and from a network trained on ImageNet; both load here under their own names. A linear layer brings features
to BERT's width, and its bias is the semantic embedding, which all pixels share. ``x152`` has 32 groups of 4 channels.
One optimiser trains everything; the paper has SGD for the backbone and AdamW for the rest. All losses whose labels a
batch has are computed in one pass. Not compared with released code: no code was published; its BERT and its ResNet take
published weights.
"""

from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.layers import BERTEmbedding, BERTEncoderConfig, MaskedLanguageHead, Transformer
from mmlearn.layers.embeddings import check_image, convolutional_stem
from mmlearn.layers.language import TINY_BERT, initialise_as_bert, pooler
from mmlearn.layers.steps import StepCounter
from mmlearn.models.fusion.heads import VQAHead
from mmlearn.models.fusion.pretraining_losses import Batch, Losses, check_losses, itm_loss, mlm_loss, vqa_loss
from mmlearn.objectives.draws import generator_of_step

# Name → blocks of each stage, groups, and channels of each group.
RESNETS = {"resnet-50": ((3, 4, 6, 3), 1, 64), "x152": ((3, 8, 36, 3), 32, 4)}


@dataclass(frozen=True)
class PixelBERTConfig(BERTEncoderConfig):
    image_size: int | tuple[int, int] = (800, 1333)  # pixels; others are read as well
    backbone: str = "resnet-50"  # or "x152", or "convolutions"
    stride: int = 64  # one cell of the feature map covers stride × stride pixels
    feature_width: int = 2048  # channels of the feature map
    sampled_pixels: int = 100  # of the feature map, read in a step of pretraining; 0: all
    seed: int = 0  # of that sample
    pretraining_heads: bool = True
    answers: int = 0  # 0: no head

    PRESETS = {
        "tiny": TINY_BERT | dict(image_size=64, backbone="convolutions", stride=8, feature_width=64, sampled_pixels=32),
        "resnet-50": dict(),
        "x152": dict(backbone="x152"),
    }


class PixelBERTOutput(NamedTuple):
    tokens: Float[Tensor, "b t d"]
    pixels: Float[Tensor, "b p d"]  # row by row; those that were sampled
    pooled: Float[Tensor, "b d"]  # of the first token
    match_logits: Float[Tensor, "b 2"] | None  # 0: do not belong together, 1: do
    answer_logits: Float[Tensor, "b answers"] | None


def resnet_backbone(name: str) -> nn.Sequential:
    """A residual network up to its last feature map, and a pooling that halves it.

    (b, 3, height, width) → (b, 2048, height/64, width/64), rounded up. Its layers have torchvision's names, so
    ``load_state_dict(resnet50(weights=...).state_dict(), strict=False)`` fills it.
    Source: He et al. 2016 (ResNet); Xie et al. 2017 (ResNeXt); Huang et al. 2020, section 3.1.
    """
    from torchvision.models.resnet import Bottleneck, ResNet

    blocks, groups, width = RESNETS[name]
    network = ResNet(Bottleneck, list(blocks), groups=groups, width_per_group=width)
    layers = OrderedDict(network.named_children())
    del layers["avgpool"], layers["fc"]
    return nn.Sequential(layers | {"pool": nn.MaxPool2d(2, ceil_mode=True)})


def build_backbone(config: PixelBERTConfig) -> nn.Module:
    """The backbone that the configuration names. ``ValueError`` for an unknown one."""
    if config.backbone == "convolutions":
        return convolutional_stem(config.stride, config.feature_width)
    if config.backbone not in RESNETS:
        raise ValueError(f"backbone is 'convolutions', {' or '.join(map(repr, RESNETS))}, not {config.backbone!r}.")
    return resnet_backbone(config.backbone)


class PixelBERT(StepCounter):
    r"""Words as in BERT and pixels of a feature map, each with its own type embedding, through BERT's blocks.

    .. math:: \hat w_i = \mathrm{LN}(w_i + p_i + s_w), \quad \hat v_j = W \, \mathrm{CNN}(I)_j + s_v

    Pixels have no positions of their own; only the backbone may encode where they are.
    ``mask`` is True where a token is real; ``token_type`` is by default the first. A ``generator`` draws
    ``sampled_pixels`` of each picture, and the others are left out. ``backbone`` is built as the configuration says
    unless it is given; it maps (b, 3, height, width) to (b, ``feature_width``, height/``stride``, width/``stride``),
    rounded up. Heads are built where the configuration asks for them. Raises ``ValueError`` for an unknown backbone,
    for pictures that are not float (b, 3, height, width) or are smaller than a pixel of the feature map, and where
    there are not as many texts as pictures. Source: sections 3.1 to 3.3 and equations 1 and 2.
    """

    def __init__(self, config: PixelBERTConfig, backbone: nn.Module | None = None):
        super().__init__()
        self.config = config
        self.embedding = BERTEmbedding(config)
        self.image_projection = nn.Linear(config.feature_width, config.width)  # the bias is s_v
        self.transformer = Transformer(config)
        self.pooler = pooler(config.width)
        self.language_head = MaskedLanguageHead(config) if config.pretraining_heads else None
        self.match_head = nn.Linear(config.width, 2) if config.pretraining_heads else None
        self.apply(partial(initialise_as_bert, std=config.initial_std))
        # Built after the others were initialised, because they start in their own way: the head prefers no answer.
        self.answer_head = VQAHead(config.width, config.answers) if config.answers else None
        self.backbone = build_backbone(config) if backbone is None else backbone

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the feature map of a picture of ``image_size``."""
        size = self.config.image_size
        height, width = (size, size) if isinstance(size, int) else size
        return -(-height // self.config.stride), -(-width // self.config.stride)

    def forward(
        self,
        image: Float[Tensor, "b 3 height width"],
        tokens: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b t"] | None = None,
        token_type: Int[Tensor, "b t"] | None = None,
        generator: torch.Generator | None = None,
    ) -> PixelBERTOutput:
        check_image(image, self.config.stride)
        if len(tokens) != len(image):
            raise ValueError(f"Each text has its picture; got {len(image)} images and {len(tokens)} texts.")
        features = rearrange(self.backbone(image), "b f row column -> b (row column) f")  # (b, p, f)
        if generator is not None and self.config.sampled_pixels:
            features = sample_pixels(features, self.config.sampled_pixels, generator)  # (b, k, f)
        pixels = self.embedding.dropout(self.image_projection(features))  # (b, p, d)
        mask = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
        real = F.pad(mask, (0, pixels.shape[1]), value=True)  # (b, t + p): every pixel is real
        x = self.transformer(torch.cat([self.embedding(tokens, token_type, mask), pixels], dim=1), real)
        words, pixels = x.split([tokens.shape[1], pixels.shape[1]], dim=1)
        pooled = self.pooler(words[:, 0])  # (b, d)
        return PixelBERTOutput(
            tokens=words,
            pixels=pixels,
            pooled=pooled,
            match_logits=self.match_head(pooled) if self.match_head is not None else None,
            answer_logits=self.answer_head(pooled) if self.answer_head is not None else None,
        )

    def token_logits(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... v"]:
        if self.language_head is None:
            raise ValueError("This Pixel-BERT has no language head: set pretraining_heads.")
        return self.language_head(x, self.embedding.tokens.weight)

    def loss(self, batch: Batch) -> Losses:
        """``mlm``, ``itm`` and ``vqa``: those with labels in the batch and a head to learn.

        Labels are those of :mod:`mmlearn.models.fusion.pretraining_losses`. Pixels are sampled in training, but not
        where there are answers, because that is no pretraining. Raises ``ValueError`` without any label, or for an
        empty batch.
        """
        pretraining = self.training and "answer" not in batch
        generator = generator_of_step(self.config.seed, self.steps) if pretraining else None
        output = self(batch["image"], batch["tokens"], batch.get("mask"), batch.get("token_type"), generator)
        losses = mlm_loss(self, output, batch) | itm_loss(self, output, batch) | vqa_loss(self, output, batch)
        return check_losses(self, batch, losses)


def sample_pixels(features: Float[Tensor, "b p f"], count: int, generator: torch.Generator) -> Float[Tensor, "b k f"]:
    """``count`` pixels of each picture, in the order in which they lie. All sets are equally likely."""
    noise = torch.rand(features.shape[:2], generator=generator, device=generator.device)  # (b, p)
    kept = noise.argsort(1)[:, :count].sort(1).values.to(features.device)  # (b, k)
    return features.gather(1, kept[..., None].expand(-1, -1, features.shape[-1]))
