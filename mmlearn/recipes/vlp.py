"""The recipe of VLP: what it reads, what it learns, and how that is measured."""

from dataclasses import dataclass

import torch

from mmlearn.data.fields import Batch, Label, MaskedTokens, Regions, Tokens
from mmlearn.data.fields.labels import Sizes
from mmlearn.data.tokenizer import Tokenizer
from mmlearn.evaluation.measures import caption_scores, masked_word_accuracy
from mmlearn.models.captions.vlp import VLP, VLPConfig
from mmlearn.recipes import Objective, OneOf, Recipe, ln


@dataclass(frozen=True)
class Seq2Seq(Label):
    """``seq2seq`` (b,): in these rows no word sees a later one, and no region sees a word."""

    holds = {"seq2seq": "Bool b"}

    def __call__(self, batch: Batch, generator: torch.Generator, sizes: Sizes) -> Batch:
        return batch | {"seq2seq": torch.ones(len(batch["tokens"]), dtype=torch.bool)}


# What ends a caption is hidden, too, because a caption that is written must end.
HIDDEN = MaskedTokens(special=(Tokenizer.pad_token, Tokenizer.start_token))
RECIPE = Recipe(
    VLP,
    VLPConfig,
    reads=(Tokens(), Regions()),
    learns=OneOf(
        Objective(
            "bidirectional", {"bidirectional": ln("vocab_size")}, labels=(HIDDEN,), measures=(masked_word_accuracy,)
        ),
        Objective("seq2seq", {"seq2seq": ln("vocab_size")}, labels=(HIDDEN, Seq2Seq()), measures=(caption_scores,)),
        shares=(0.25, 0.75),
    ),
    settings={"mask_token": Tokenizer.mask_token},
    writes=True,
    architecture="""
    *detector [not trained] -> regions -> region embedding [features, class, box] -> BERT [two masks] -> !masked words
    words -> BERT
    """,
)
