"""What all systems of this family share: one step a word, from a convolutional network's features and a state."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.generation.cache import Read, Reading
from mmlearn.layers import Config
from mmlearn.layers.embeddings import check_image
from mmlearn.models.captions.captioner import Captioner, check_pairs
from mmlearn.models.vision.resnet import RESNETS, ResNetConfig, resnet
from mmlearn.objectives import causal_language_modelling

State = tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]]  # hidden state and cell of an LSTM
Seen = tuple[Tensor, ...]  # of each picture (b, ...), what words are written from
TINY = dict(image=RESNETS["tiny"], width=64, embedding_width=64, vocab_size=48, max_length=32, image_size=64)


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
    token_logits: Float[Tensor, "b t v"]  # at place i: what comes after token i
    maps: Float[Tensor, "b t p"] | None  # at place i: where was looked for what comes after token i


class RecurrentCaptioner(Captioner):
    """A captioner that reads a word at a time. A system says how it looks (:meth:`look`) and what a :meth:`step` is.

    :meth:`features` are apart, because a network that stays as it is need not be asked twice about a picture.

    Padding, where ``mask`` is False, is passed over, at either side. Raises ``ValueError`` for pictures that are not
    float (b, 3, height, width) or are smaller than a place of the feature map, and for texts longer than
    ``max_length``.
    """

    def __init__(self, config: RecurrentConfig):
        super().__init__()
        self.config = config
        self.image_encoder = resnet(config.image, nn.BatchNorm2d)
        self.embedding = nn.Embedding(config.vocab_size, config.embedding_width)
        self.language_head = nn.Linear(config.width, config.vocab_size)
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)

    def look(self, features: Float[Tensor, "b c rows columns"]) -> tuple[Seen, State]:
        """What is seen of pictures with these features, and the state before the first word."""
        raise NotImplementedError

    def step(self, word: Float[Tensor, "n e"], seen: Seen, state: State) -> tuple[State, Float[Tensor, "n p"] | None]:
        """The state after one more word, and where was looked, for a system that looks."""
        raise NotImplementedError

    def features(self, image: Float[Tensor, "b 3 height width"]) -> Float[Tensor, "b c rows columns"]:
        """The feature map of each picture, from which all else is written."""
        check_image(image, self.config.image.stride)
        return self.image_encoder(image)

    def encode_image(self, image: Float[Tensor, "b 3 height width"]) -> Float[Tensor, "b c"]:
        """The mean of the network's last feature map, for a probe."""
        check_image(image, self.config.image.stride)
        return self.image_encoder(image).mean((2, 3))

    def nothing(self, like: Float[Tensor, "b ..."]) -> State:
        """The state of a network that has read nothing."""
        zero = like.new_zeros(len(like), self.config.width)
        return zero, zero

    def read(
        self, tokens: Int[Tensor, "n t"], mask: Bool[Tensor, "n t"], seen: Seen, state: State
    ) -> tuple[Float[Tensor, "n t d"], list[Tensor | None], State]:
        """The hidden state after each token, where was looked, and the last state. Padding leaves it as it was."""
        hidden, maps = [], []
        for word, real in zip(self.embedding(tokens).unbind(1), mask.unbind(1)):
            after, where = self.step(word, seen, state)
            state = tuple(torch.where(real[:, None], new, old) for new, old in zip(after, state))
            hidden.append(state[0])
            maps.append(where)
        return torch.stack(hidden, 1), maps, state

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
        return self.score(tokens, mask, *self.look(self.features(image)))

    def score(
        self, tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"] | None, seen: Seen, state: State
    ) -> RecurrentOutput:
        """What is expected after each token by who has seen this."""
        mask = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
        hidden, maps, _ = self.read(tokens, mask, seen, state)
        return RecurrentOutput(self.language_head(hidden), None if maps[0] is None else torch.stack(maps, 1))

    def reader(self, image: Float[Tensor, "b 3 height width"]) -> Read:
        return self.reader_of(*self.look(self.features(image)))

    def reader_of(self, seen: Seen, start: State) -> Read:
        """What reads captions for who has seen this. It remembers the state after the words that have been read."""

        def read(now: Reading) -> Float[Tensor, "n v"]:
            self.check_length(now.mask.shape[1])
            rows = tuple(now.rows(x) for x in seen)
            hidden, _, state = self.read(now.tokens, now.new, rows, now.state(start))
            now.keep(state)
            return self.language_head(hidden[:, -1])

        return read

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """Each token but the first, from the picture and those before it. ``ValueError`` without a text."""
        check_pairs(batch)
        output = self(batch["image"], batch["tokens"], batch.get("mask"))
        return {"lm": causal_language_modelling(output.token_logits, batch["tokens"], batch.get("mask"))}


class AdditiveAttention(nn.Module):
    r"""Where to look, from what is there and from a state: :math:`\mathrm{softmax}_i\, w^\top \tanh(k_i + W h)`.

    Keys k (n, p, a) are projected once a picture. Source: Xu et al. 2015 (Show, Attend and Tell), section 3.1.2.
    """

    def __init__(self, key_width: int, width: int, attention_width: int):
        super().__init__()
        self.key = nn.Linear(key_width, attention_width)
        self.query = nn.Linear(width, attention_width, bias=False)
        self.score = nn.Linear(attention_width, 1, bias=False)  # whose bias softmax would not see

    def forward(self, keys: Float[Tensor, "n p a"], hidden: Float[Tensor, "n d"]) -> Float[Tensor, "n p"]:
        return self.score((keys + self.query(hidden)[:, None]).tanh())[..., 0].softmax(-1)


def in_rows(features: Float[Tensor, "b c rows columns"]) -> Float[Tensor, "b p c"]:
    """The places of a feature map, row by row."""
    return rearrange(features, "b c rows columns -> b (rows columns) c")


def placed(features: Float[Tensor, "b c rows columns"]) -> Float[Tensor, "b c+2 rows columns"]:
    """A feature map with two more channels, which say where a place is: its row and its column, from -1 to 1.

    A small network has no other way to know it. Source: Liu et al. 2018 (CoordConv), section 3.
    """
    rows, columns = (torch.linspace(-1, 1, n, device=features.device, dtype=features.dtype) for n in features.shape[2:])
    where = torch.stack(torch.meshgrid(rows, columns, indexing="ij"))
    return torch.cat([features, where.expand(len(features), -1, -1, -1)], 1)
