"""GPT-2, BART and T5 write what Transformers writes: greedily and with beams, with and without padding."""

from functools import partial

import pytest
import torch
from published import BART, GPT2, T5
from torch.nn.functional import pad
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    GPT2Config,
    GPT2LMHeadModel,
    T5Config,
    T5ForConditionalGeneration,
)

from mmlearn.generation.decoding import beam_search, greedy

END, LONGEST = 29, 9
LARGER = dict(n_positions=24, n_layer=2)
LIMITS = {
    "": {},
    ", no pair twice": dict(no_repeat_ngram_size=2),
    ", six tokens": dict(min_new_tokens=6),
    ", four different ones": dict(no_repeat_ngram_size=1, min_new_tokens=4),
}
BEAMS = {
    name + more: (partial(decode, **limits), theirs | limits)
    for name, decode, theirs in (
        ("greedy", greedy, {}),
        ("beam", partial(beam_search, beams=3), dict(num_beams=3, early_stopping=False)),
    )
    for more, limits in LIMITS.items()
}


def loud(model, times):
    """With larger weights, so that texts differ and end."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name and "ln_" not in name:
                parameter.mul_(times)
    return model


def written(rows):
    """Tokens up to the end, behind which Transformers puts one or the other."""
    rows = [[token for token in row if token] for row in rows.tolist()]
    return [row[: row.index(END) + 1] if END in row else row for row in rows]


@pytest.mark.parametrize("strategy", BEAMS)
def test_gpt2(strategy, twins):
    decode, theirs = BEAMS[strategy]
    torch.manual_seed(3)
    config = GPT2Config(**GPT2 | LARGER, bos_token_id=1, eos_token_id=END, pad_token_id=0)
    published, ours = twins(loud(GPT2LMHeadModel(config), 8))
    prompt = torch.randint(4, 28, (5, 4))
    mask = torch.arange(4) >= torch.arange(5)[:, None] - 2
    start, start_mask = pad(prompt, (1, 0)), pad(mask, (1, 0))
    first = (~start_mask).sum(1) - 1
    start[torch.arange(5), first], start_mask[torch.arange(5), first] = 1, True
    given = dict(attention_mask=start_mask.long(), max_length=LONGEST + 1, do_sample=False)
    expected = published.generate(start.masked_fill(~start_mask, 0), **given, **theirs)
    got = ours.generate(prompt.masked_fill(~mask, 0), decode, prompt_mask=mask, max_length=LONGEST)
    assert written(got) == [row[1:] for row in written(expected)]
    assert len({tuple(row) for row in written(got)}) > 2


@pytest.mark.parametrize("strategy", BEAMS)
@pytest.mark.parametrize("family", ["bart", "t5"])
def test_from_a_text(family, strategy, twins):
    decode, theirs = BEAMS[strategy]
    torch.manual_seed(4)
    ids = dict(pad_token_id=0, eos_token_id=END)
    if family == "bart":
        more = dict(bos_token_id=1, decoder_start_token_id=END, forced_eos_token_id=None, max_position_embeddings=24)
        published = BartForConditionalGeneration(BartConfig(**BART | ids | more))
    else:
        published = T5ForConditionalGeneration(T5Config(**T5 | ids))
    published, ours = twins(loud(published, 20 if family == "bart" else 4))
    prompt = torch.randint(4, 28, (5, 4))
    mask = torch.arange(4) < 4 - torch.arange(5)[:, None] % 3
    tokens, real = pad(prompt.masked_fill(~mask, 0), (0, 1)), pad(mask, (0, 1))
    tokens[torch.arange(5), mask.sum(1)], real[torch.arange(5), mask.sum(1)] = END, True
    if family == "bart":
        tokens, real = (pad(tokens, (1, 0), value=1), pad(real, (1, 0), value=True))
    expected = published.generate(tokens, attention_mask=real.long(), max_length=LONGEST + 1, do_sample=False, **theirs)
    got = ours.generate(prompt, decode, prompt_mask=mask, max_length=LONGEST)
    assert written(got) == written(expected[:, 1:])
    assert len({tuple(row) for row in written(got)}) > 1


@pytest.mark.parametrize("strategy", ["greedy", "beam", "greedy, four different ones"])
def test_a_forced_end_comes_before_what_is_limited(strategy, twins):
    """BART's, whose decoder begins with its end token."""
    decode, theirs = BEAMS[strategy]
    torch.manual_seed(4)
    ids = dict(pad_token_id=0, eos_token_id=END, bos_token_id=1, decoder_start_token_id=END, forced_eos_token_id=END)
    config = BartConfig(**BART | ids | dict(max_position_embeddings=24))
    published, ours = twins(loud(BartForConditionalGeneration(config), 20))
    prompt = torch.randint(4, 28, (5, 4))
    source = pad(pad(prompt, (1, 0), value=1), (0, 1), value=END)
    expected = published.generate(source, max_length=8, do_sample=False, **theirs)[:, 1:]
    got = ours.generate(prompt, decode, max_length=7)
    assert written(got) == written(expected)
    assert all(row[-1] == END for row in written(got))
