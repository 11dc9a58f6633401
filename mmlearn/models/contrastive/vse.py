"""VSE++: an image and its caption are more similar than the hardest wrong pair, by a margin.

Paper: Faghri et al. 2018, "VSE++: Improving Visual-Semantic Embeddings with Hard Negatives".
Official code: https://github.com/fartashf/vsepp.

Deviations: pictures are read by MobileNetV2, which never learns, where the paper has a VGG-19 or a ResNet-152 and also
fine-tunes them. The code brings features of a picture to unit length before the projection as well, and sums the loss
over the batch, of which this is the mean. As in the official code, the last state of the GRU is the caption, with no
projection behind it. ``tiny`` and ``base`` are ours; the sizes of ``base`` are the paper's. Not compared with released
code: its picture network is another; its GRU is PyTorch's, and its loss is compared with loops.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.layers import Config, real_tokens_first, select_tokens
from mmlearn.layers.embeddings import look_up
from mmlearn.models.vision.backbone import Backbone
from mmlearn.objectives import gather, gathered_positives, own_rows, ranking_hinge


@dataclass(frozen=True)
class VSEConfig(Config):
    image_width: int = Backbone.width  # features of the image encoder
    word_width: int = 300
    width: int = 1024  # of the GRU, and of the embeddings
    vocab_size: int = 10_000
    margin: float = 0.2
    hardest: bool = True  # False: all wrong pairs count, which the paper calls VSE0

    PRESETS = {"tiny": dict(word_width=64, width=128, vocab_size=512), "base": dict()}


class VSEOutput(NamedTuple):
    image_embedding: Float[Tensor, "b d"]  # unit length
    text_embedding: Float[Tensor, "b d"]  # unit length


class VSE(nn.Module):
    """A linear layer over the features of an image, and a GRU that reads the caption word by word.

    ``image_tower`` maps images to features (b, image_width) and is frozen; ``nn.Identity()`` takes features in
    place of images. Padding, where ``mask`` is False, is skipped. Source: sections 2.1 and 3.
    """

    def __init__(self, config: VSEConfig, image_tower: nn.Module):
        super().__init__()
        self.config = config
        self.image_tower = image_tower.requires_grad_(False)
        self.image_projection = nn.Linear(config.image_width, config.width)
        self.words = nn.Embedding(config.vocab_size, config.word_width)
        self.gru = nn.GRU(config.word_width, config.width, batch_first=True)
        nn.init.xavier_uniform_(self.image_projection.weight)
        nn.init.uniform_(self.words.weight, -0.1, 0.1)

    def encode_image(self, image: Float[Tensor, "b ..."]) -> Float[Tensor, "b d"]:
        return F.normalize(self.image_projection(self.image_tower(image)), dim=-1)

    def encode_text(self, tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"] | None = None) -> Float[Tensor, "b d"]:
        mask = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
        words = select_tokens(look_up(self.words, tokens), real_tokens_first(mask))  # (b, t, e), padding last
        states, _ = self.gru(words)  # (b, t, d)
        last = select_tokens(states, mask.sum(1).clamp(min=1) - 1)  # (b, d): of the last real token
        return F.normalize(last, dim=-1)

    def forward(
        self, image: Float[Tensor, "b ..."], tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"] | None = None
    ) -> VSEOutput:
        return VSEOutput(self.encode_image(image), self.encode_text(tokens, mask))

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """The ranking hinge over the batch of all processes. With ``caption_id``, equal captions are no negatives.

        Source: equation 6, and equation 5 where all wrong pairs count.
        """
        output, positives = self(batch["image"], batch["tokens"], batch.get("mask")), batch.get("caption_id")
        pair, rows = [gather(embedding) for embedding in output], own_rows(output.image_embedding)
        margin, hardest = self.config.margin, self.config.hardest
        return {"hinge": ranking_hinge(*pair, margin, hardest, gathered_positives(positives), rows)}
