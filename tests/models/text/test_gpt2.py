"""GPT-2: no token sees a later one, texts go on from prompts of any length, and what is too long is told."""

import math

import torch
from testing_tools import close, overfit, pairs, refused, seeded, shaken

from mmlearn.models.text.gpt2 import GPT2, GPT2Config

TINY = GPT2Config.tiny()


def texts(b=8, seed=0):
    batch = pairs(b, seed=seed)
    return {"tokens": batch["tokens"], "mask": batch["mask"]}


def test_later_tokens_change_nothing_before_them():
    model, tokens = shaken(GPT2(TINY)).eval(), torch.randint(4, 500, (3, 9), generator=seeded())
    before = model(tokens).token_logits
    for position in range(1, 9):
        other = tokens.clone()
        other[:, position:] = torch.randint(4, 500, (3, 9 - position), generator=seeded(position))
        after = model(other).token_logits
        assert torch.equal(after[:, :position], before[:, :position])
        assert not torch.allclose(after[:, position], before[:, position], atol=1e-3)


def test_texts_are_learned_by_heart_and_written_again():
    model, batch = GPT2(TINY), texts(b=4)
    batch["tokens"][:, 0] = TINY.start_token
    batch["tokens"][batch["tokens"] == 511] = TINY.end_token
    batch["tokens"][:, 1] = torch.arange(4) + 100  # by which each text is known
    first = math.log(4) * 4 / (batch["mask"].sum() - 4)  # nothing tells which text begins
    assert overfit(model, batch, steps=150, learning_rate=3e-3) < first + 0.05
    written = model.eval().generate(batch["tokens"][:, 1:2], max_length=12)
    for row, tokens, mask in zip(written, batch["tokens"], batch["mask"]):
        assert torch.equal(row[: mask.sum() - 1], tokens[mask][1:])


def test_shorter_prompts_are_padded_at_their_left():
    model = shaken(GPT2(TINY)).eval()
    prompt = torch.randint(4, 500, (2, 5), generator=seeded())
    mask = torch.tensor([[False, False, True, True, True], [True] * 5])
    together = model.generate(prompt.masked_fill(~mask, 0), prompt_mask=mask, max_length=11)
    alone = model.generate(prompt[:1, 2:], max_length=9)
    close(together[0, 2 : 2 + alone.shape[1]], alone[0])


def test_an_empty_prompt_and_one_that_is_too_long():
    model = shaken(GPT2(TINY)).eval()
    assert model.generate(torch.zeros(2, 0, dtype=torch.long), max_length=4).shape[1] <= 4
    refused("leaves none to be written", model.generate, torch.full((1, 9), 5), max_length=9)
    refused("more than the 32 positions", model.generate, torch.full((1, 40), 5), max_length=50)
