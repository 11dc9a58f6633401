"""STD-RoBERTa: a RoBERTa whose second stage asks of each token whether it is at its position."""

import dataclasses

import torch
import torch.nn.functional as F
from testing_tools import close, overfit, seeded

from mmlearn.data.fields import ShuffledTokens
from mmlearn.models.text.bert import BERT, BERTConfig
from mmlearn.models.text.std_roberta import STDRoBERTa, STDRoBERTaConfig
from mmlearn.recipes.std_roberta import RECIPE


def texts(b=6, t=12, seed=0):
    """Texts in which one number follows another, so that it shows which is not at its position."""
    start = torch.randint(4, 400, (b, 1), generator=seeded(seed))
    mask = torch.arange(t) < t - torch.arange(b)[:, None]
    return {"tokens": (start + torch.arange(t)).masked_fill(~mask, 0), "mask": mask}


def shuffled(batch, seed=0):
    return ShuffledTokens(0.4)(batch, seeded(seed), {}.__getitem__)


def test_a_roberta_goes_on_where_it_was():
    """All weights of a RoBERTa with a head for masked words are taken over, and it reads as it did."""
    roberta = BERT(dataclasses.replace(BERTConfig.tiny(), pooler=False, language_head=True)).eval()
    model, batch = STDRoBERTa(STDRoBERTaConfig.tiny()).eval(), texts()
    missing, unexpected = model.load_state_dict(roberta.state_dict(), strict=False)
    assert (unexpected, {name.partition(".")[0] for name in missing}) == ([], {"detection_head"})
    output, before = model(**batch), roberta(**batch)
    close(output.tokens, before.tokens)
    close(output.token_logits, before.token_logits)
    hidden = batch | {"token_label": torch.where(batch["mask"], batch["tokens"], -100)}
    close(model.loss(hidden)["mlm"], roberta.loss(hidden)["mlm"])


def test_the_loss_asks_every_real_token():
    model, batch = STDRoBERTa(STDRoBERTaConfig.tiny()), shuffled(texts())
    assert batch["shuffled"].any()
    logits, real = model(batch["tokens"], batch["mask"]).shuffled_logits, batch["mask"]
    losses = model.loss(batch | {"token_label": batch["tokens"]})
    assert losses.keys() == {"std"}
    close(losses["std"], F.binary_cross_entropy_with_logits(logits[real], batch["shuffled"][real].float()))


def test_each_stage_moves_what_it_needs():
    model = STDRoBERTa(STDRoBERTaConfig.tiny())
    moved = [
        {name.partition(".")[0] for name in stage.optimizer_steps[0].trained_names(model)} for stage in RECIPE.stages
    ]
    assert moved[0] == {"embedding", "transformer", "language_head"}
    assert moved[1] == {"embedding", "transformer", "detection_head"}
    assert [list(stage.objectives()) for stage in RECIPE.stages] == [["mlm"], ["std"]]


def test_words_out_of_position_are_found():
    """In a batch that was learned, and in order-keeping texts no word is told to be out of position."""
    torch.manual_seed(0)
    model, batch = STDRoBERTa(STDRoBERTaConfig.tiny()), shuffled(texts())
    assert overfit(model, batch, steps=80, learning_rate=3e-3) < 0.05
    found = model(batch["tokens"], batch["mask"]).shuffled_logits > 0
    assert torch.equal(found[batch["mask"]], batch["shuffled"][batch["mask"]])
