"""SCST: a captioner with attention that learns from captions, and then from the measure of evaluation as a reward.

Paper: Rennie et al. 2017, "Self-critical Sequence Training for Image Captioning". No official code; that of Luo,
https://github.com/ruotianluo/self-critical.pytorch, is the one in use.

Deviations: the network starts at random and is trained with all else, where the paper's was pretrained on ImageNet and
frozen. The n-gram weights of the reward are by default those of the batch's references, in the paper those of all
training captions, which ``CIDErReward`` of the recipe takes. The end token counts as a word, as in Luo's code, so that
captions do not break off. Features have two more channels with the coordinates of a position, because small networks do
not know them otherwise. There is no scheduled sampling, no curriculum over words, and no dropout. ``tiny`` and ``base``
are ours; the features of ``base`` are the paper's 512. Not compared with released code: no code was published.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.generation.decoding import greedy, sample
from mmlearn.layers.steps import StepCounter
from mmlearn.models.captions.captioner import check_pairs, empty_prompt
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
from mmlearn.objectives import self_critical, shifted_right, token_log_probs, until_end
from mmlearn.objectives.draws import generator_of_step

Texts = Sequence[Sequence[int]]  # tokens without start token and padding, the end token last
Reward = Callable[[Texts, Texts], Sequence[float]]  # of captions, each with a reference


@dataclass(frozen=True)
class SCSTConfig(RecurrentConfig):
    attention_width: int = 512
    seed: int = 0  # of the texts that are drawn

    PRESETS = {"tiny": TINY | dict(attention_width=32), "base": dict()}


class Att2in(nn.Module):
    r"""A step of an LSTM in which the attended features z enter the input of the cell alone, and no gate.

    .. math:: i, f, o = \sigma(W x + U h), \quad
       c' = i \odot \max(W_1 x + U_1 h + Z_1 z,\; W_2 x + U_2 h + Z_2 z) + f \odot c, \quad h' = o \odot \tanh c'

    with biases; the maximum of two is a maxout unit. Source: section 2.2.
    """

    def __init__(self, embedding_width: int, width: int, context_width: int):
        super().__init__()
        self.word, self.hidden = nn.Linear(embedding_width, 5 * width), nn.Linear(width, 5 * width, bias=False)
        self.context = nn.Linear(context_width, 2 * width, bias=False)

    def forward(self, word: Float[Tensor, "n e"], z: Float[Tensor, "n c"], state: State) -> State:
        hidden, cell = state
        width = hidden.shape[1]
        gates, cell_input = (self.word(word) + self.hidden(hidden)).split([3 * width, 2 * width], 1)
        input_gate, forget_gate, output_gate = gates.sigmoid().chunk(3, 1)  # (n, d) each
        candidate = torch.maximum(*(cell_input + self.context(z)).chunk(2, 1))  # maxout
        cell = input_gate * candidate + forget_gate * cell
        return output_gate * cell.tanh(), cell


class SCST(RecurrentCaptioner, StepCounter):
    r"""Two stages: cross-entropy (:meth:`loss`), and then :meth:`self_critical_loss` by a ``reward``.

    .. math:: \alpha_t = \mathrm{softmax}_i\, w^\top \tanh(W_a v_i + U_a h_{t-1}), \quad z_t = \sum_i \alpha_{t,i} v_i

    ``reward`` is a function of captions and their references; the recipe takes CIDEr-D. A checkpoint
    does not hold it. Errors as of :class:`RecurrentCaptioner`, and ``ValueError`` for a second stage without a reward.
    Source: sections 2.2 and 4.
    """

    config: SCSTConfig

    def __init__(self, config: SCSTConfig, reward: Reward | None = None):
        super().__init__(config)
        channels = config.image.widths[-1] + 2
        self.reward = reward
        self.attention = AdditiveAttention(channels, config.width, config.attention_width)
        self.lstm = Att2in(config.embedding_width, config.width, channels)

    def init_decoder(self, features: Float[Tensor, "b c rows columns"]) -> tuple[ImageFeatures, State]:
        positions = flatten_grid(add_coordinates(features))  # (b, p, c + 2)
        return (positions, self.attention.key(positions)), self.zero_state(positions)

    def step(
        self, word: Float[Tensor, "n e"], image_features: ImageFeatures, state: State
    ) -> tuple[State, Float[Tensor, "n p"]]:
        positions, keys = image_features
        weights = self.attention(keys, state[0])  # (n, p)
        z = (weights[:, None] @ positions)[:, 0]  # (n, c + 2)
        return self.lstm(word, z, state), weights

    def self_critical_loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """A sampled caption against the greedy one, both rewarded by the batch's captions. ``ValueError`` without a
        text, for one that is too long, and for a reward that is not finite. Source: section 4."""
        check_pairs(batch)
        tokens, mask = batch["tokens"], batch.get("mask")
        self.check_length(tokens.shape[1])
        real = tokens != self.config.pad_token if mask is None else mask
        return self.self_critical_from_features(self.features(batch["image"]), tokens, real)

    def self_critical_from_features(
        self, features: Float[Tensor, "b c rows columns"], tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"]
    ) -> dict[str, Float[Tensor, ""]]:
        """The same for images with these features."""
        if self.reward is None:
            raise ValueError("SCST has no reward to learn from: SCST(config, reward), or the recipe's make(config).")
        image_features, start = self.init_decoder(features)
        draw = partial(sample, generator=generator_of_step(self.config.seed, self.steps))
        drawn, best = (self._write(image_features, start, decode) for decode in (draw, greedy))
        # What was drawn, the greedy texts and the references go to the CPU together, and both rewards come back.
        texts = [drawn, best, tokens.masked_fill(~mask, -1)]
        drawn_texts, best_texts, references = torch.cat(texts, dim=1).cpu().split([x.shape[1] for x in texts], dim=1)
        true = [row[row >= 0].tolist()[1:] for row in references]
        reward, baseline = tokens.new_tensor(
            [self.reward(self._texts(one), true) for one in (drawn_texts, best_texts)], dtype=torch.float32
        )
        logits = self.decode(shifted_right(drawn, self.config.start_token), None, image_features, start).token_logits
        written = until_end(drawn, self.config.end_token)
        return {"self_critical": self_critical(token_log_probs(logits, drawn), written, reward, baseline)}

    def _texts(self, tokens: Int[Tensor, "b t"]) -> list[list[int]]:
        """Texts up to their end tokens."""
        return [row[: int(n)].tolist() for row, n in zip(tokens, until_end(tokens, self.config.end_token).sum(1))]

    @torch.no_grad()
    def _write(self, image_features: ImageFeatures, start: State, decode: Callable[..., Tensor]) -> Int[Tensor, "b t"]:
        """Captions up to the end token."""
        image_features, start = (tuple(x.detach() for x in parts) for parts in (image_features, start))
        return self.continue_prompts(
            self.step_function_from(image_features, start), empty_prompt(start[0]), None, decode, self.config.max_length
        )
