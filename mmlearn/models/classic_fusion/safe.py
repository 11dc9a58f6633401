r"""SAFE: fake news is detected from its text and picture, and from how little the two agree.

Paper: Zhou, Wu & Zafarani 2020, "SAFE: Similarity-Aware Multi-Modal Fake News Detection", PAKDD. Official code:
https://github.com/Jindi0/SAFE.

Deviations: ``tiny`` is ours, and so are the sizes of the default; the official code has windows of 3 and 4 words with
128 filters each, and vectors of 200 unless, as in its training, they have 32. The paper turns a picture into a sentence
by a trained captioner and reads it by a second Text-CNN; here convolutions read the pixels, followed by the same
maximum over positions and the same last layer, and all of it learns. Texts are one sentence, the paper's have a
headline and a body. There is no dropout. Both losses weigh the same; in the official code 0.6 and 0.4. False are pairs
in which a picture has another one's text, so that the text alone gives nothing away. Words start at random. Not
compared with released code: the code reads a picture as a sentence that a captioner wrote.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.layers.config import Config
from mmlearn.layers.embeddings import check_image, convolutional_stem, look_up
from mmlearn.layers.heads import small_linear
from mmlearn.objectives import class_cross_entropy
from mmlearn.objectives.cues import pair_similarity, similarity_of_pairs


@dataclass(frozen=True)
class SAFEConfig(Config):
    vocab_size: int = 20_000
    word_width: int = 32  # k: of a word
    filters_width: int = 64  # filters of each window size
    windows: tuple[int, ...] = (2, 3, 4)  # words
    width: int = 32  # d: of text and picture where they are compared
    patch_size: int = 8
    prediction_weight: float = 1.0  # α
    similarity_weight: float = 1.0  # β

    PRESETS = {"tiny": dict(vocab_size=512)}


class SAFEOutput(NamedTuple):
    match_logits: Float[Tensor, "b 2"]  # 1: text and picture belong together
    similarity: Float[Tensor, "b"]  # M_s, from 0 to 1


class TextCNN(nn.Module):
    r"""Filters over n-grams, the maximum of each filter over the text, and a linear layer.

    .. math:: c_i^h = \mathrm{ReLU}(w_h \cdot x_{i:i+h-1} + b_h), \quad \hat c^h = \max_i c_i^h, \quad
       t = W [\hat c^{h_1}; \hat c^{h_2}; \dots] + b

    A window may begin at any word that is real (b, t); beyond the last one are zeros. (b, t, k) → (b, d).
    Source: section 3; Kim 2014, "Convolutional Neural Networks for Sentence Classification".
    """

    def __init__(self, features: int, filters: int, windows: tuple[int, ...], width: int):
        super().__init__()
        self.windows = nn.ModuleList(nn.Conv1d(features, filters, window) for window in windows)
        self.output = nn.Linear(filters * len(windows), width)

    def forward(self, x: Float[Tensor, "b t k"], mask: Bool[Tensor, "b t"]) -> Float[Tensor, "b d"]:
        x = x.masked_fill(~mask[..., None], 0).mT  # (b, k, t)
        responses = [F.relu(window(F.pad(x, (0, window.kernel_size[0] - 1)))) for window in self.windows]
        # Responses are not negative, so 0 at padding changes no maximum.
        pooled = [(response * mask[:, None]).amax(-1) for response in responses]  # each (b, filters)
        return self.output(torch.cat(pooled, dim=1))


class SAFE(nn.Module):
    r"""A text and a picture, each as a vector: a prediction from their concatenation, and their similarity.

    .. math:: \mathcal{M}_p = \mathrm{softmax}(W_p [t; v] + b_p), \quad
       \mathcal{M}_s = \frac{t \cdot v + \lVert t \rVert \lVert v \rVert}{2 \lVert t \rVert \lVert v \rVert}

    Raises ``ValueError`` for pictures that are not float (b, 3, height, width) or are smaller than a patch, and on a
    CPU for tokens outside the vocabulary. Source: section 3.
    """

    def __init__(self, config: SAFEConfig):
        super().__init__()
        self.config = config
        self.words = nn.Embedding(config.vocab_size, config.word_width)
        self.text_encoder = TextCNN(config.word_width, config.filters_width, config.windows, config.width)
        self.image_encoder = convolutional_stem(config.patch_size, config.filters_width)
        self.image_output = nn.Linear(config.filters_width, config.width)
        self.match_head = small_linear(2 * config.width, 2)

    def embed_text(self, tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"] | None = None) -> Float[Tensor, "b d"]:
        """The vector t of a text."""
        mask = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
        return self.text_encoder(look_up(self.words, tokens), mask)

    def embed_image(self, image: Float[Tensor, "b 3 height width"]) -> Float[Tensor, "b d"]:
        """The vector v of a picture."""
        check_image(image, self.config.patch_size)
        features = F.relu(self.image_encoder(image))  # (b, filters, row, column)
        return self.image_output(features.amax((2, 3)))

    def forward(
        self,
        image: Float[Tensor, "b 3 height width"],
        tokens: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b t"] | None = None,
    ) -> SAFEOutput:
        text_vector, image_vector = self.embed_text(tokens, mask), self.embed_image(image)
        match_logits = self.match_head(torch.cat([text_vector, image_vector], dim=1))
        return SAFEOutput(match_logits, pair_similarity(text_vector, image_vector))

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        r"""``prediction`` and ``similarity``, with their weights; ``match_label`` (b,) is 1 for true pairs.

        .. math:: \mathcal{L} = \alpha \mathcal{L}_p + \beta \mathcal{L}_s

        Source: section 3, model integration.
        """
        output, label = self(batch["image"], batch["tokens"], batch.get("mask")), batch["match_label"]
        return {
            "prediction": self.config.prediction_weight * class_cross_entropy(output.match_logits, label),
            "similarity": self.config.similarity_weight * similarity_of_pairs(output.similarity, label),
        }
