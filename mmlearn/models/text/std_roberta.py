"""STD-RoBERTa: a pretrained RoBERTa is refined by detecting which tokens were shuffled.

Paper: Panda et al. 2021, "Shuffled-token Detection for Refining Pre-trained RoBERTa". No official code.

Deviations: tokens are shuffled, in the paper words, which may have several tokens. ``tiny`` is ours. Not compared with
released code: no code was published; RoBERTa, which it is, is compared.
"""

from dataclasses import dataclass
from typing import NamedTuple

from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.models.text.bert import BERT, BERTConfig
from mmlearn.objectives import masked_cross_entropy, replaced_token_detection


@dataclass(frozen=True)
class STDRoBERTaConfig(BERTConfig):
    pooler: bool = False
    language_head: bool = True

    PRESETS = {name: BERTConfig.PRESETS[name] for name in ("tiny", "roberta-base", "roberta-large")}


class STDRoBERTaOutput(NamedTuple):
    tokens: Float[Tensor, "b t d"]
    token_logits: Float[Tensor, "b t v"] | None
    shuffled_logits: Float[Tensor, "b t"]  # above 0: this token was moved


class STDRoBERTa(BERT):
    """A BERT without next sentences, and a linear layer that predicts for each token whether it was moved."""

    def __init__(self, config: STDRoBERTaConfig):
        super().__init__(config)
        self.detection_head = nn.Linear(config.width, 1)

    def forward(self, tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"] | None = None) -> STDRoBERTaOutput:
        output = super().forward(tokens, mask)
        shuffled = rearrange(self.detection_head(output.tokens), "b t 1 -> b t")
        return STDRoBERTaOutput(output.tokens, output.token_logits, shuffled)

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """``std`` where the batch has ``shuffled`` (b, t), True where a token was moved; else ``mlm``.

        ``batch["token_label"]`` (b, t) is the true token where one was masked and -100 elsewhere.
        """
        output = self(batch["tokens"], batch["mask"])
        if "shuffled" in batch:
            return {"std": replaced_token_detection(output.shuffled_logits, batch["shuffled"], batch["mask"])}
        return {"mlm": masked_cross_entropy(output.token_logits, batch["token_label"])}
