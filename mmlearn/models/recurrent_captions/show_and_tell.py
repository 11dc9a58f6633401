"""Show and Tell: a convolutional network's summary of an image is the first input of an LSTM that writes.

Paper: Vinyals et al. 2015, "Show and Tell: A Neural Image Caption Generator". Official code:
https://github.com/tensorflow/models/tree/archive/research/im2txt.

Deviations: the network is a residual one that starts at random and is trained with all else; the paper's is an
Inception network that was pretrained on ImageNet. There is no dropout, captions are not written by an ensemble, and a
loss is the mean over words, not the sum over a caption. Optimiser and rates are those of our loop. ``tiny`` and
``base`` are ours; the LSTM of ``base`` has the paper's 512 features. Not compared with released code: the published
code is for another library, and its picture network is another.
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from mmlearn.models.recurrent_captions.recurrent import TINY, ImageFeatures, RecurrentCaptioner, RecurrentConfig, State


@dataclass(frozen=True)
class ShowAndTellConfig(RecurrentConfig):
    PRESETS = {"tiny": TINY, "base": dict()}


class ShowAndTell(RecurrentCaptioner):
    r"""The LSTM sees the image once, before the first word.

    .. math:: x_{-1} = \mathrm{CNN}(I), \quad x_t = W_e S_t, \quad p_{t+1} = \mathrm{LSTM}(x_t), \quad
       \ell = -\sum_{t=1}^N \log p_t(S_t)

    Errors as of :class:`RecurrentCaptioner`. Source: section 3.1, equations 10 to 13, and figure 3.
    """

    def __init__(self, config: ShowAndTellConfig):
        super().__init__(config)
        self.image_projection = nn.Linear(config.image.widths[-1], config.embedding_width)
        self.lstm = nn.LSTMCell(config.embedding_width, config.width)

    def init_decoder(self, features: Float[Tensor, "b c rows columns"]) -> tuple[ImageFeatures, State]:
        summary = self.image_projection(features.mean((2, 3)))  # (b, e)
        return (), self.lstm(summary, self.zero_state(summary))

    def step(self, word: Float[Tensor, "n e"], image_features: ImageFeatures, state: State) -> tuple[State, None]:
        return self.lstm(word, state), None
