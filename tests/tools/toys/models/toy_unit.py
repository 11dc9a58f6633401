"""A toy with the shape of UniT: tasks of two data sets, one a batch, over one text and sometimes a picture."""

from dataclasses import dataclass
from typing import NamedTuple

import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.layers import Config


@dataclass(frozen=True)
class ToyUniTConfig(Config):
    image_size: int = 64
    vocab_size: int = 512
    max_length: int = 32
    width: int = 32
    answers: int = 0
    lengths: int = 2
    pad_token: int = 0

    PRESETS = {"tiny": dict()}


class ToyUniTOutput(NamedTuple):
    text: Float[Tensor, "b d"]


class ToyUniT(nn.Module):
    def __init__(self, config: ToyUniTConfig):
        super().__init__()
        self.config = config
        self.words = nn.EmbeddingBag(config.vocab_size, config.width, mode="sum")
        self.image = nn.Sequential(nn.AdaptiveAvgPool2d(8), nn.Flatten(), nn.Linear(192, config.width))
        self.answer_head = nn.Linear(config.width, config.answers)
        self.length_head = nn.Linear(config.width, config.lengths)

    def forward(self, tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"]) -> ToyUniTOutput:
        return ToyUniTOutput(self.words(tokens, per_sample_weights=mask.to(self.words.weight)) / 4)

    def logits(self, batch: dict[str, Tensor]) -> Float[Tensor, "b n"]:
        text = self(batch["tokens"], batch["mask"]).text
        if "image" in batch:
            return self.answer_head((text + self.image(batch["image"])).tanh())
        return self.length_head(text.tanh())

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        task, label = ("vqa", "answer") if "answer" in batch else ("length", "label")
        return {task: F.cross_entropy(self.logits(batch), batch[label])}
