"""SCA-CNN: before each word the decoder attends to channels of the network's layers, and to positions.

Paper: Chen et al. 2017, "SCA-CNN: Spatial and Channel-wise Attention in Convolutional Networks for Image Captioning".
Official code: https://github.com/zjuchenlong/sca-cnn.cvpr17, for Theano.

Deviations: weights of positions and of channels are multiplied by their number, so that equal ones change nothing. The
network is a residual one that starts at random and is trained with all else, where the paper's was pretrained on
ImageNet. The last map enters the LSTM as its mean over positions, so that positions are pooled by their weights; two
more channels hold the coordinates of a position, which small networks do not know otherwise. The first state is 0, and
the mean over positions enters as it is; in the code it has unit length, and makes the first state. There is no dropout.
``tiny`` and ``base`` are ours; 512 features of attention and two layers are the paper's. Not compared with released
code: the published code is for another library, and its picture network is another.
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, cat, nn

from mmlearn.layers.embeddings import check_image
from mmlearn.models.recurrent_captions.recurrent import (
    TINY,
    AdditiveAttention,
    ImageFeatures,
    RecurrentCaptioner,
    RecurrentConfig,
    State,
    add_coordinates,
    flatten_grid,
)

ORDERS = ("channel-spatial", "spatial-channel", "spatial", "channel")


@dataclass(frozen=True)
class SCACNNConfig(RecurrentConfig):
    order: str = "channel-spatial"  # one of ORDERS
    layers: int = 2  # how many of the network's last stages are attended
    attention_width: int = 512

    PRESETS = {"tiny": TINY | dict(attention_width=32, layers=1), "base": dict()}


class ChannelAttention(nn.Module):
    r"""Attention over channels: :math:`\beta = \mathrm{softmax}_c\, w^\top \tanh(w_c \otimes v_c + b_c + W h)`.

    v (n, c) is the mean of each channel over all positions; every channel is scored by the same weights.
    Source: section 3.3.
    """

    def __init__(self, width: int, attention_width: int):
        super().__init__()
        self.attention = AdditiveAttention(1, width, attention_width)

    def forward(
        self, features: Float[Tensor, "n c rows columns"], hidden: Float[Tensor, "n d"]
    ) -> Float[Tensor, "n c"]:
        return self.attention(self.attention.key(features.mean((2, 3))[..., None]), hidden)


class SpatialAttention(nn.Module):
    r"""Attention over positions: :math:`\alpha = \mathrm{softmax}_i\, w^\top \tanh(W_s v_i + b_s + W h)`.

    Source: section 3.2.
    """

    def __init__(self, channels: int, width: int, attention_width: int):
        super().__init__()
        self.attention = AdditiveAttention(channels, width, attention_width)

    def forward(
        self, features: Float[Tensor, "n c rows columns"], hidden: Float[Tensor, "n d"]
    ) -> Float[Tensor, "n p"]:
        return self.attention(self.attention.key(flatten_grid(features)), hidden)


class ChannelSpatialAttention(nn.Module):
    r"""A feature map, weighted for the next word, and the weights of positions.

    .. math:: V' = c\,\beta \odot V, \quad X = m\,\alpha \odot V'

    for c channels and m positions. In the order channel–spatial α is of V′; in the other one β is of what α weighted;
    or there is one of both. Raises ``ValueError`` for an unknown order. Source: section 3.3, the two types of
    combination.
    """

    def __init__(self, order: str, channels: int, width: int, attention_width: int):
        super().__init__()
        if order not in ORDERS:
            raise ValueError(f"order is one of {', '.join(ORDERS)}; got {order!r}.")
        self.order = order.split("-")
        if "channel" in self.order:
            self.channel = ChannelAttention(width, attention_width)
        if "spatial" in self.order:
            self.spatial = SpatialAttention(channels, width, attention_width)

    def forward(
        self, features: Float[Tensor, "n c rows columns"], hidden: Float[Tensor, "n d"]
    ) -> tuple[Float[Tensor, "n c rows columns"], Float[Tensor, "n p"] | None]:
        weights = None
        for attention in self.order:
            if attention == "channel":
                beta = self.channel(features, hidden)  # (n, c)
                features = features * beta[:, :, None, None] * features.shape[1]
            else:
                weights = self.spatial(features, hidden)  # (n, p)
                features = features * (weights * weights.shape[1]).view(-1, 1, *features.shape[2:])
        return features, weights


class SCACNN(RecurrentCaptioner):
    r"""The last layers of the network run anew for each word, each on the attended map of the one before.

    .. math:: V^l = \mathrm{CNN}(X^{l-1}), \quad \gamma^l = \Phi(h_{t-1}, V^l), \quad X^l = f(V^l, \gamma^l), \quad
       h_t = \mathrm{LSTM}(h_{t-1}, X^L, y_{t-1})

    Errors as of :class:`RecurrentCaptioner`, and for more ``layers`` than the network has stages, or none.
    Source: section 3.1.
    """

    config: SCACNNConfig

    def __init__(self, config: SCACNNConfig):
        super().__init__(config)
        channels = config.image.widths[-config.layers :]
        if not 1 <= config.layers <= len(config.image.widths):
            raise ValueError(f"layers is from 1 to the {len(config.image.widths)} stages; got {config.layers}.")
        channels = (*channels[:-1], channels[-1] + 2)
        sizes = config.width, config.attention_width
        self.attentions = nn.ModuleList(ChannelSpatialAttention(config.order, c, *sizes) for c in channels)
        self.lstm = nn.LSTMCell(config.embedding_width + channels[-1], config.width)

    def features(self, image: Float[Tensor, "b 3 height width"]) -> Float[Tensor, "b c rows columns"]:
        """The first feature map that is attended."""
        check_image(image, self.config.image.stride)
        return self.image_encoder[: 1 - self.config.layers or None](image)

    def init_decoder(self, features: Float[Tensor, "b c rows columns"]) -> tuple[ImageFeatures, State]:
        return (features,), self.zero_state(features)

    def step(
        self, word: Float[Tensor, "n e"], image_features: ImageFeatures, state: State
    ) -> tuple[State, Float[Tensor, "n p"] | None]:
        (x,) = image_features  # (n, c, rows, columns)
        for i, attention in enumerate(self.attentions, 1 - len(self.attentions)):
            x, weights = attention(x if i else add_coordinates(x), state[0])
            x = self.image_encoder[i](x) if i else x  # the next stage; after the last there is none
        return self.lstm(cat([word, x.mean((2, 3))], 1), state), weights
