"""What the systems of this family share: encoders of questions and of images, and the loss of an answer."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.layers import Config, ImageEmbedding, real_tokens_first, select_tokens
from mmlearn.layers.embeddings import look_up
from mmlearn.objectives.masked import masked_cross_entropy
from mmlearn.tensor_checks import values_are_readable

TINY: dict[str, Any] = dict(
    vocab_size=512, width=64, word_width=64, image_size=64, patch_size=16, dropout=0.0, answers=7
)


@dataclass(frozen=True)
class VQAConfig(Config):
    """What all have: each system sets the values of its own code. ``answers`` is the length of the list of answers."""

    width: int = 512
    word_width: int = 500
    vocab_size: int = 20_000
    start_token: int = 1
    end_token: int = 2
    image_size: int = 448  # pixels
    patch_size: int = 32  # pixels of a cell
    convolutions: bool = False  # a cell of the image also sees its neighbours
    dropout: float = 0.5
    answers: int = 1000


class GridEncoder(ImageEmbedding):
    """An image as a grid of cells, each encoded alone by two layers, plus a learned position: (b, p, d).

    With ``convolutions`` they are encoded by :func:`~mmlearn.layers.embeddings.convolutional_stem` instead, which also
    sees neighbours. Raises ``ValueError`` as :class:`~mmlearn.layers.ImageEmbedding` does.
    """

    def __init__(self, config: VQAConfig):
        patch, width, wide = config.patch_size, config.width, config.convolutions
        super().__init__(config.image_size, patch, width, class_token=False, convolutions=wide)
        if not wide:
            self.patches = nn.Sequential(nn.Linear(3 * patch**2, width), nn.ReLU(), nn.Linear(width, width))


class QuestionEncoder(nn.Module):
    """An LSTM that reads the words of a question.

    Returns its states (b, t, d), their mask, and the state after the last word (b, d). Padding is skipped. Raises
    ``ValueError``, on a CPU, for a question without a word between start and end, and for a token outside the
    vocabulary.
    """

    def __init__(self, config: VQAConfig):
        super().__init__()
        self.special = config.start_token, config.end_token
        self.words = nn.Embedding(config.vocab_size, config.word_width)
        self.lstm = nn.LSTM(config.word_width, config.width, batch_first=True)

    def forward(
        self, tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"] | None = None
    ) -> tuple[Float[Tensor, "b t d"], Bool[Tensor, "b t"], Float[Tensor, "b d"]]:
        mask = check_questions(tokens, mask, *self.special)
        order = real_tokens_first(mask)  # so that the LSTM reads padding last
        x, mask = select_tokens(look_up(self.words, tokens), order), mask.gather(1, order)  # (b, t, e)
        states = self.lstm(x.masked_fill(~mask[..., None], 0))[0]  # (b, t, d)
        return states, mask, select_tokens(states, mask.sum(1).clamp(min=1) - 1)


def check_questions(
    tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"] | None, start: int, end: int
) -> Bool[Tensor, "b t"]:
    """Which tokens are real. ``ValueError``, on a CPU, for a question without a word between ``start`` and ``end``."""
    mask = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
    if values_are_readable(tokens):
        has_word = (mask & (tokens != start) & (tokens != end)).any(1)
        if not has_word.all():
            raise ValueError(
                f"Question {int(has_word.int().argmin())} of the batch is empty: it needs at least one word."
            )
    return mask


class VQASystem(nn.Module):
    """A system whose ``forward(image, tokens, mask)`` returns ``answer_logits`` (b, answers)."""

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        r"""``vqa``: the cross-entropy of the right ``answer`` (b,), -100 where there is none.

        .. math:: \ell = -\log \mathrm{softmax}(z)_a

        Raises ``ValueError`` without questions, images or answers, and for an answer that is not on the list.
        Source: Antol et al. 2015 (VQA), section 4.
        """
        if missing := [name for name in ("tokens", "image", "answer") if name not in batch]:
            raise ValueError(f"Nothing to learn: {type(self).__name__} needs {' and '.join(missing)} in the batch.")
        if not len(batch["tokens"]):
            raise ValueError("A batch holds at least one question and its picture.")
        logits = self(batch["image"], batch["tokens"], batch.get("mask")).answer_logits
        return {"vqa": masked_cross_entropy(logits, batch["answer"])}
