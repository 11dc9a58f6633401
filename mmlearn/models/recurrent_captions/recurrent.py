"""What the systems of this family share: an LSTM that writes a word a step, from features of a convolutional
network."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.generation.cache import DecodingStep, ScoreNext
from mmlearn.layers import Config
from mmlearn.layers.embeddings import check_image
from mmlearn.models.captions.captioner import Captioner, check_pairs
from mmlearn.models.vision.resnet import RESNETS, ResNetConfig, resnet
from mmlearn.objectives import causal_language_modelling

State = tuple[Float[Tensor, "n d"], ...]  # hidden state and cell of an LSTM
ImageFeatures = tuple[Tensor, ...]  # (b, ...) each: what every step of the decoder reads of the image
TINY: dict[str, Any] = dict(
    image=RESNETS["tiny"], width=64, embedding_width=64, vocab_size=48, max_length=32, image_size=64
)


@dataclass(frozen=True)
class RecurrentConfig(Config):
    image: ResNetConfig = RESNETS["resnet-50"]
    width: int = 512  # of the LSTM
    embedding_width: int = 512  # of a word
    vocab_size: int = 10_000
    max_length: int = 32  # tokens
    image_size: int = 224  # pixels; others are read as well
    start_token: int = 1
    end_token: int = 2
    pad_token: int = 0


class RecurrentOutput(NamedTuple):
    token_logits: Float[Tensor, "b t v"]  # at position i: of the token after token i
    maps: Float[Tensor, "b t p"] | None  # at position i: attention for the token after token i; None without attention


class RecurrentCaptioner(Captioner):
    """A captioner that reads a word at a time. A subclass defines :meth:`init_decoder` and :meth:`step`.

    :meth:`features` are separate, because a frozen network need not see an image twice.

    Padding, where ``mask`` is False, is skipped, at either side. Raises ``ValueError`` for images that are not
    float (b, 3, height, width) or are smaller than a position of the feature map, and for texts longer than
    ``max_length``.
    """

    def __init__(self, config: RecurrentConfig):
        super().__init__()
        self.config = config
        self.image_encoder = resnet(config.image, nn.BatchNorm2d)
        self.embedding = nn.Embedding(config.vocab_size, config.embedding_width)
        self.language_head = nn.Linear(config.width, config.vocab_size)
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)

    def init_decoder(self, features: Float[Tensor, "b c rows columns"]) -> tuple[ImageFeatures, State]:
        """What every step reads of images with these features, and the state before the first word."""
        raise NotImplementedError

    def step(
        self, word: Float[Tensor, "n e"], image_features: ImageFeatures, state: State
    ) -> tuple[State, Float[Tensor, "n p"] | None]:
        """The state after one more word, and the weights of attention, for a system that has it."""
        raise NotImplementedError

    def features(self, image: Float[Tensor, "b 3 height width"]) -> Float[Tensor, "b c rows columns"]:
        """The feature map of each image."""
        check_image(image, self.config.image.stride)
        return self.image_encoder(image)

    def encode_image(self, image: Float[Tensor, "b 3 height width"]) -> Float[Tensor, "b c"]:
        """The mean of the network's last feature map, for a probe."""
        check_image(image, self.config.image.stride)
        return self.image_encoder(image).mean((2, 3))

    def zero_state(self, like: Float[Tensor, "b ..."]) -> State:
        """The state before anything is read."""
        zero = like.new_zeros(len(like), self.config.width)
        return zero, zero

    def read(
        self, tokens: Int[Tensor, "n t"], mask: Bool[Tensor, "n t"], image_features: ImageFeatures, state: State
    ) -> tuple[Float[Tensor, "n t d"], list[Tensor], State]:
        """The hidden state after each token, the weights of attention, and the last state. Padding changes no state."""
        hidden, maps = [], []
        for word, real in zip(self.embedding(tokens).unbind(1), mask.unbind(1)):
            new_state, weights = self.step(word, image_features, state)
            state = tuple(torch.where(real[:, None], new, old) for new, old in zip(new_state, state))
            hidden.append(state[0])
            if weights is not None:
                maps.append(weights)
        return torch.stack(hidden, 1), maps, state  # (n, t, d)

    def check_length(self, t: int) -> None:
        """``ValueError`` for a text of more tokens than are learned."""
        if t > self.config.max_length:
            raise ValueError(
                f"A caption of {t} tokens is longer than the {self.config.max_length} that this decoder writes: "
                "shorten it, or raise max_length."
            )

    def forward(
        self,
        image: Float[Tensor, "b 3 height width"],
        tokens: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b t"] | None = None,
    ) -> RecurrentOutput:
        self.check_length(tokens.shape[1])
        return self.decode(tokens, mask, *self.init_decoder(self.features(image)))

    def decode(
        self, tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"] | None, image_features: ImageFeatures, state: State
    ) -> RecurrentOutput:
        """Logits of the next token after each token, given what the decoder reads of the image."""
        mask = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
        hidden, maps, _ = self.read(tokens, mask, image_features, state)
        return RecurrentOutput(self.language_head(hidden), torch.stack(maps, 1) if maps else None)

    def step_function(self, image: Float[Tensor, "b 3 height width"]) -> ScoreNext:
        return self.step_function_from(*self.init_decoder(self.features(image)))

    def step_function_from(self, image_features: ImageFeatures, start: State) -> ScoreNext:
        """The function that decoding calls. It keeps the state after the words that it has read."""

        def read(step: DecodingStep) -> Float[Tensor, "n v"]:
            self.check_length(step.mask.shape[1])
            features = tuple(step.rows(x) for x in image_features)  # a row for each text that is written
            hidden, _, state = self.read(step.tokens, step.new, features, step.state(start))
            step.keep(state)
            return self.language_head(hidden[:, -1])

        return read

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """Each token but the first, from the picture and those before it. ``ValueError`` without a text."""
        check_pairs(batch)
        output = self(batch["image"], batch["tokens"], batch.get("mask"))
        return {"lm": causal_language_modelling(output.token_logits, batch["tokens"], batch.get("mask"))}


class AdditiveAttention(nn.Module):
    r"""Attention weights from the features of positions and a state: :math:`\mathrm{softmax}_i\, w^\top \tanh(k_i + W
    h)`.

    Keys k (n, p, a) are projected once an image. Source: Xu et al. 2015 (Show, Attend and Tell), section 3.1.2.
    """

    def __init__(self, key_width: int, width: int, attention_width: int):
        super().__init__()
        self.key = nn.Linear(key_width, attention_width)
        self.query = nn.Linear(width, attention_width, bias=False)
        self.score = nn.Linear(attention_width, 1, bias=False)  # a bias would not change the softmax

    def forward(self, keys: Float[Tensor, "n p a"], hidden: Float[Tensor, "n d"]) -> Float[Tensor, "n p"]:
        scores = self.score((keys + self.query(hidden)[:, None]).tanh())  # (n, p, 1)
        return scores[..., 0].softmax(-1)


def flatten_grid(features: Float[Tensor, "b c rows columns"]) -> Float[Tensor, "b p c"]:
    """The positions of a feature map, row by row."""
    return rearrange(features, "b c rows columns -> b (rows columns) c")


def add_coordinates(features: Float[Tensor, "b c rows columns"]) -> Float[Tensor, "b c+2 rows columns"]:
    """A feature map with two more channels: the row and the column of each position, from -1 to 1.

    A small network has no other way to know them. Source: Liu et al. 2018 (CoordConv), section 3.
    """
    rows, columns = (torch.linspace(-1, 1, n, device=features.device, dtype=features.dtype) for n in features.shape[2:])
    coordinates = torch.stack(torch.meshgrid(rows, columns, indexing="ij"))  # (2, rows, columns)
    return torch.cat([features, coordinates.expand(len(features), -1, -1, -1)], 1)
