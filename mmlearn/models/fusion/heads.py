"""Heads that fine-tune a fusion encoder: VQA, NLVR2, visual entailment and referring expressions.

Each maps states to logits; ``loss`` compares them with the label. All start as BERT does: logits are near 0, so an
untrained head finds every answer equally likely.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.layers.language import initialise_as_bert
from mmlearn.objectives.masked import masked_cross_entropy
from mmlearn.tensor_checks import values_are_readable


def classifier(width: int, hidden: int, outputs: int, *, norm_epsilon: float = 1e-12) -> nn.Sequential:
    r"""The two-layer classifier of LXMERT and UNITER, :math:`W_2\, \mathrm{LN}(\mathrm{GELU}(W_1 x + b_1)) + b_2`.

    Source: Tan & Bansal 2019 (LXMERT), official code; Chen et al. 2020 (UNITER), official code.
    """
    first, norm = nn.Linear(width, hidden), nn.LayerNorm(hidden, eps=norm_epsilon)
    return nn.Sequential(first, nn.GELU(), norm, nn.Linear(hidden, outputs))


class ClassifierHead(nn.Module):
    """A classifier of pooled states under cross-entropy. ``task`` names its loss, ``label`` its entry of a batch.

    ``loss`` raises ``ValueError`` for labels that do not exist. A label of -100 means that there is no question.
    """

    task: str
    label: str

    def __init__(self, width: int, hidden: int, outputs: int):
        super().__init__()
        self.classifier = classifier(width, hidden, outputs)
        self.apply(initialise_as_bert)

    def forward(self, pooled: Float[Tensor, "b d"]) -> Float[Tensor, "b outputs"]:
        return self.classifier(pooled)

    def loss(self, logits: Float[Tensor, "b outputs"], label: Int[Tensor, "b"]) -> Float[Tensor, ""]:
        _check_labels(label, self.label, len(logits))
        return masked_cross_entropy(logits, label)


class VQAHead(ClassifierHead):
    r"""Answering as a choice among frequent answers: (b, d) → (b, answers).

    A label (b,) is the one right answer, learned by cross-entropy. Labels (b, answers) are soft scores s from 0 to 1,
    because people disagree; each answer then is a yes or no of its own:

    .. math:: \ell = -\frac{1}{b} \sum_i \sum_j \left[s_{ij} \log \sigma(z_{ij})
       + (1 - s_{ij}) \log (1 - \sigma(z_{ij}))\right]

    Logits that know nothing cost ln(answers), or answers · ln 2. ``loss`` raises ``ValueError`` for answers that do not
    exist, and for scores outside 0 to 1 or of another shape.
    Source: Anderson et al. 2018, "Bottom-Up and Top-Down Attention", section 3.3, and Teney et al. 2018, "Tips and
    Tricks for Visual Question Answering", section 3, for soft scores; official code of LXMERT and UNITER.
    """

    task, label = "vqa", "answer"

    def __init__(self, width: int, answers: int):
        super().__init__(width, 2 * width, answers)

    def loss(self, logits: Float[Tensor, "b answers"], label: Tensor) -> Float[Tensor, ""]:
        if not label.is_floating_point():
            return super().loss(logits, label)
        if label.shape != logits.shape:
            raise ValueError(
                f"Soft answers are (b, answers) = {tuple(logits.shape)}, one score for each; got {tuple(label.shape)}. "
                "One right answer each is int64 (b,)."
            )
        if values_are_readable(label) and not ((label >= 0) & (label <= 1)).all():  # NaN is neither
            raise ValueError("A soft score is from 0 to 1, such as min(people who say so / 3, 1); got one outside.")
        return F.binary_cross_entropy_with_logits(logits, label, reduction="sum") / max(len(logits), 1)


class NLVRHead(ClassifierHead):
    """Is a sentence true of two pictures? The pooled states of both, each fused with the sentence: (b, 2, d) → (b, 2).

    Index 1 is *true*. The states of both pictures are concatenated, so their order counts, because sentences mention
    left and right. Source: Suhr et al. 2019 (NLVR2); Tan & Bansal 2019 (LXMERT), official code; Chen et al. 2020
    (UNITER), "Pair".
    """

    task, label = "nlvr", "label"

    def __init__(self, width: int):
        super().__init__(2 * width, 2 * width, 2)

    def forward(self, pooled: Float[Tensor, "b 2 d"]) -> Float[Tensor, "b 2"]:
        return self.classifier(rearrange(pooled, "b pair d -> b (pair d)"))


class EntailmentHead(ClassifierHead):
    """Does a picture entail a sentence, contradict it, or neither? (b, d) → (b, 3).

    Source: Xie et al. 2019, "Visual Entailment", section 3.
    """

    task, label = "entailment", "label"

    def __init__(self, width: int):
        super().__init__(width, 2 * width, 3)


class ReferringHead(nn.Module):
    r"""Which region does the expression refer to? A score for each real region, and a softmax over them.

    .. math:: P(i) = \frac{\exp(w^\top h_i + c)}{\sum_{j\ \mathrm{real}} \exp(w^\top h_j + c)}

    (b, p, d) → (b, p); regions that are padding score -∞. ``loss`` raises ``ValueError`` for a referred region that
    does not exist or is padding. Regions that know nothing cost the mean of ln(real regions).
    Source: Chen et al. 2020 (UNITER), official code for referring expressions.
    """

    task, label = "referring", "referred"

    def __init__(self, width: int):
        super().__init__()
        self.score = nn.Linear(width, 1)
        self.apply(initialise_as_bert)

    def forward(
        self, regions: Float[Tensor, "b p d"], region_mask: Bool[Tensor, "b p"] | None = None
    ) -> Float[Tensor, "b p"]:
        scores = self.score(regions)[..., 0]  # (b, p)
        return scores if region_mask is None else scores.masked_fill(~region_mask, -torch.inf)

    def loss(self, logits: Float[Tensor, "b p"], label: Int[Tensor, "b"]) -> Float[Tensor, ""]:
        _check_labels(label, self.label, len(logits))
        loss = masked_cross_entropy(logits, label)
        if not values_are_readable(label):
            return loss
        padding = logits.gather(1, label.clamp(min=0)[:, None])[:, 0].isneginf() & (label >= 0)
        if padding.any():
            row = int(padding.nonzero()[0])
            raise ValueError(f"Expression {row} refers to region {int(label[row])}, which region_mask says is padding.")
        return loss


def _check_labels(label: Tensor, name: str, b: int) -> None:
    """``ValueError`` unless labels are b whole numbers."""
    if label.shape != (b,) or label.dtype != torch.int64:
        raise ValueError(f"batch['{name}'] is int64 ({b},), one a row; got {label.dtype} {tuple(label.shape)}.")
