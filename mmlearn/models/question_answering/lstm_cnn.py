r"""LSTM + CNN: an image is one vector, a question another, and a classifier reads their product.

Paper: Antol et al. 2015, "VQA: Visual Question Answering" ("deeper LSTM Q + norm I").
Official code: https://github.com/GT-Vision-Lab/VQA_LSTM_CNN.

Deviations: ``tiny`` is ours. The picture is read by a small convolutional network that learns along, where the paper
takes the last hidden layer of a frozen VGG-16. The question is what both LSTMs' outputs end with, without their cells.
``tiny`` does not bring the picture's features to unit length (the paper's "I" without "norm"). Not compared with
released code: the published code is for another library; its picture network is another.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.layers import small_linear
from mmlearn.models.question_answering.vqa_blocks import TINY, GridEncoder, QuestionEncoder, VQAConfig, VQASystem


@dataclass(frozen=True)
class LSTMCNNConfig(VQAConfig):
    convolutions: bool = True
    layers: int = 2  # LSTMs
    fused_width: int = 1024  # of the product
    hidden_width: int = 1000  # of the classifier
    normalise: bool = True  # features of the image

    PRESETS = {"tiny": TINY | dict(fused_width=64, hidden_width=64, normalise=False)}


class LSTMCNNOutput(NamedTuple):
    answer_logits: Float[Tensor, "b answers"]
    image_embedding: Float[Tensor, "b d"]
    question_embedding: Float[Tensor, "b d"]


class LSTMCNN(VQASystem):
    r"""Both vectors are projected to one width and multiplied elementwise.

    .. math:: z = \mathrm{MLP}\big(\tanh(W_I\, \mathrm{CNN}(I)) \odot \tanh(W_Q\, \mathrm{LSTM}(Q))\big)

    Raises ``ValueError`` for empty questions and for pictures of another size than ``image_size``, because all their
    cells are read as one list. Source: section 4.2 and figure 8.
    """

    def __init__(self, config: LSTMCNNConfig):
        super().__init__()
        self.config = config
        self.image_encoder = GridEncoder(config)
        self.question_encoder = QuestionEncoder(config, config.layers)
        rows, columns = self.image_encoder.grid
        self.image_projection = nn.Linear(rows * columns * config.width, config.fused_width)
        self.question_projection = nn.Linear(config.layers * config.width, config.fused_width)
        widths, layers = (config.fused_width, config.hidden_width, config.hidden_width), []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.Dropout(config.dropout), nn.Tanh()]
        self.classifier = nn.Sequential(*layers, small_linear(config.hidden_width, config.answers))

    def forward(
        self,
        image: Float[Tensor, "b 3 height width"],
        tokens: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b t"] | None = None,
    ) -> LSTMCNNOutput:
        features = self.image_encoder(image).flatten(1)  # (b, p d)
        side = self.config.image_size
        if image.shape[2:] != (side, side):
            raise ValueError(f"This LSTM + CNN reads pictures of {side} pixels a side; got {tuple(image.shape)}.")
        if self.config.normalise:
            features = F.normalize(features, dim=-1)
        final_states = self.question_encoder(tokens, mask)[2].flatten(1)  # (b, layers d)
        image_embedding = torch.tanh(self.image_projection(features))
        question_embedding = torch.tanh(self.question_projection(final_states))
        logits = self.classifier(image_embedding * question_embedding)
        return LSTMCNNOutput(logits, image_embedding, question_embedding)
