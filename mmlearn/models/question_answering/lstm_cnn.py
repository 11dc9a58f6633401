r"""LSTM + CNN: an image is one vector, a question another, and a classifier reads their product.

Paper: Antol et al. 2015, "VQA: Visual Question Answering" ("deeper LSTM Q + norm I").
Official code: https://github.com/GT-Vision-Lab/VQA_LSTM_CNN.

Deviations: sizes are those of the code; the paper embeds words in 300 features, and has two more layers of 1,000 before
the answer. The picture is read by a small convolutional network that learns along, where the code takes the last hidden
layer of a frozen VGG-19, 4,096 features. Weights start as PyTorch's. ``tiny`` is ours, and does not bring the picture's
features to unit length (the paper's "I" without "norm"). Not compared with released code: the published code is for
another library; its picture network is another.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.layers import small_linear
from mmlearn.layers.embeddings import look_up
from mmlearn.models.question_answering.vqa_blocks import TINY, GridEncoder, VQAConfig, VQASystem, check_questions


@dataclass(frozen=True)
class LSTMCNNConfig(VQAConfig):
    width: int = 512  # of an LSTM
    word_width: int = 200
    image_size: int = 224  # pixels
    convolutions: bool = True
    dropout: float = 0.5
    layers: int = 2  # LSTMs
    fused_width: int = 1024  # of the product
    normalise: bool = True  # features of the image

    PRESETS = {"tiny": TINY | dict(fused_width=64, normalise=False)}


class LSTMCNNOutput(NamedTuple):
    answer_logits: Float[Tensor, "b answers"]
    image_embedding: Float[Tensor, "b d"]
    question_embedding: Float[Tensor, "b d"]


class DeeperLSTM(nn.Module):
    r"""A stack of LSTMs; the question is what the cells and outputs of all end with.

    .. math:: x_j = \tanh(\mathrm{dropout}(E\, w_j)), \quad q = [c^1; h^1; \dots; c^L; h^L]

    Above the first, an LSTM reads the outputs of the one below, after dropout. Padding is skipped. Raises
    ``ValueError``, on a CPU, for a question without a word, and for a token outside the vocabulary.
    Source: section 4.2, "deeper LSTM Q"; official code, ``misc/LSTM.lua``.
    """

    def __init__(self, config: LSTMCNNConfig):
        super().__init__()
        self.special, self.width = (config.start_token, config.end_token), config.width
        self.words = nn.Embedding(config.vocab_size, config.word_width)
        self.dropout = nn.Dropout(config.dropout)
        inputs = [config.word_width, *[config.width] * (config.layers - 1)]
        self.layers = nn.ModuleList(nn.LSTMCell(each, config.width) for each in inputs)

    def forward(
        self, tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"] | None = None
    ) -> Float[Tensor, "b state_width"]:
        mask = check_questions(tokens, mask, *self.special)
        words = torch.tanh(self.dropout(look_up(self.words, tokens)))  # (b, t, e)
        start = words.new_zeros(len(tokens), self.width)
        states = [(start, start) for _ in self.layers]  # h and c of each LSTM
        for x, real in zip(words.unbind(1), mask[..., None].unbind(1)):  # (b, e), (b, 1)
            for i, lstm in enumerate(self.layers):
                new = lstm(x, states[i])
                x = self.dropout(new[0])  # what the next LSTM reads
                states[i] = torch.where(real, new[0], states[i][0]), torch.where(real, new[1], states[i][1])
        return torch.cat([part for h, c in states for part in (c, h)], -1)  # (b, 2 · layers · d)


class LSTMCNN(VQASystem):
    r"""Both vectors are projected to one width and multiplied elementwise.

    .. math:: z = W \big(\tanh(W_I\, \mathrm{CNN}(I)) \odot \tanh(W_Q\, \mathrm{LSTM}(Q))\big)

    with biases, and dropout before each of the three layers. Raises ``ValueError`` for empty questions and for pictures
    of another size than ``image_size``, because all their cells are read as one list.
    Source: section 4.2 and figure 8; official code, ``train.lua`` and ``misc/netdef.lua``.
    """

    def __init__(self, config: LSTMCNNConfig):
        super().__init__()
        self.config = config
        self.image_encoder = GridEncoder(config)
        self.question_encoder = DeeperLSTM(config)
        rows, columns = self.image_encoder.grid
        self.image_projection = nn.Linear(rows * columns * config.width, config.fused_width)
        self.question_projection = nn.Linear(2 * config.layers * config.width, config.fused_width)
        self.dropout = nn.Dropout(config.dropout)
        self.answer_head = small_linear(config.fused_width, config.answers)

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
        image_embedding = torch.tanh(self.image_projection(self.dropout(features)))  # (b, d)
        question = self.dropout(self.question_encoder(tokens, mask))  # (b, 2 · layers · width)
        question_embedding = torch.tanh(self.question_projection(question))  # (b, d)
        logits = self.answer_head(self.dropout(image_embedding * question_embedding))
        return LSTMCNNOutput(logits, image_embedding, question_embedding)
