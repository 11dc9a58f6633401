"""BART and T5: what is cut out is learned, a text is written from a text, padding of either side changes nothing."""

import pytest
import torch
from testing_tools import close, overfit, refused, seeded, shaken

from mmlearn.models.text.bart import BART, BARTConfig
from mmlearn.models.text.t5 import T5, T5Config

BOTH = {"bart": (BART, BARTConfig.tiny()), "t5": (T5, T5Config.tiny())}


def texts(b=6, seed=0):
    generator = seeded(seed)
    tokens, target = (torch.randint(4, 400, (b, t), generator=generator) for t in (9, 7))
    mask, target_mask = torch.arange(9) < 9 - torch.arange(b)[:, None], torch.arange(7) < 2 + torch.arange(b)[:, None]
    return dict(tokens=tokens.masked_fill(~mask, 0), mask=mask, target=target, target_mask=target_mask)


@pytest.mark.parametrize("name", BOTH)
def test_later_tokens_of_the_target_change_nothing_before_them(name):
    kind, config = BOTH[name]
    model, batch = shaken(kind(config)).eval(), texts()
    before = model(batch["tokens"], batch["target"], batch["mask"]).token_logits
    other = batch["target"].clone()
    other[:, 3:] = 7
    after = model(batch["tokens"], other, batch["mask"]).token_logits
    assert torch.equal(after[:, :4], before[:, :4])
    assert not torch.allclose(after[:, 4], before[:, 4], atol=1e-3)


@pytest.mark.parametrize("name", BOTH)
def test_a_text_is_written_from_a_text(name):
    kind, config = BOTH[name]
    torch.manual_seed(0)
    model, generator = kind(config), seeded()
    prompt = torch.randint(4, 400, (4, 5), generator=generator)
    answer = torch.randint(4, 400, (4, 3), generator=generator)
    end = torch.full((4, 1), config.end_token)
    begin = torch.full((4, 1), 1) if name == "bart" else end[:, :0]
    batch = dict(tokens=torch.cat([begin, prompt, end], 1), target=torch.cat([begin, answer, end], 1))
    assert overfit(model, batch, steps=120, learning_rate=3e-3) < 0.1
    written = model.eval().generate(prompt, max_length=8)
    assert torch.equal(written, batch["target"])
    padded, mask = torch.nn.functional.pad(prompt, (2, 1)), torch.nn.functional.pad(torch.ones_like(prompt), (2, 1)) > 0
    assert torch.equal(model.generate(padded, prompt_mask=mask, max_length=8), written)


def test_distances_matter_and_positions_do_not():
    """T5 reads a text alike wherever it stands."""
    model = shaken(T5(T5Config.tiny())).eval()
    tokens = torch.randint(4, 400, (2, 6), generator=seeded())
    later = torch.nn.functional.pad(tokens, (3, 0))
    close(model.encode(later, torch.arange(9).expand(2, 9) >= 3)[:, 3:], model.encode(tokens), 1e-4)
    assert not torch.allclose(model.encode(tokens.flip(1)).flip(1), model.encode(tokens), atol=1e-3)


def test_a_text_that_is_too_long_for_bart():
    model = BART(BARTConfig.tiny())
    refused("33 tokens are more than the 32 positions", model, torch.full((1, 33), 5), torch.full((1, 4), 5))
    refused("33 tokens are more than the 32 positions", model, torch.full((1, 4), 5), torch.full((1, 33), 5))
