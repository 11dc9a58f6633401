"""The key–value cache: the same scores and the same texts with it and without, and each token read once."""

import copy
from functools import partial

import pytest
import torch
from testing_tools import close, refused, shaken
from torch import nn

from mmlearn.generation.cache import Cache, cached, pad_left, start_prompts, uncached
from mmlearn.generation.decoding import beam_search, greedy, sample
from mmlearn.layers import Attention, TextEmbedding, Transformer, TransformerConfig, record_attention, rotary_angles

END, PAD, V, MOST = 1, 0, 12, 16


class Writer(nn.Module):
    """A small decoder with all that a cache has to do with: positions of both kinds, a bias, a padded context."""

    def __init__(self, norm_first=True, rotary=False):
        super().__init__()
        self.embedding = TextEmbedding(V, 24, MOST)
        config = TransformerConfig(24, 3, 3, norm_first=norm_first, dropout=0.0)
        self.transformer = Transformer(config, context_width=10, context_blocks=(0, 2))
        self.head = nn.Linear(24, V)
        self.angles = rotary_angles(MOST, 8) if rotary else None
        self.distance = nn.Parameter(torch.randn(3, MOST))
        self.seen = []  # how many tokens each call reads

    def reader(self, context, context_mask):
        def read(now):
            t = now.tokens.shape[1]
            self.seen.append(t)
            x = self.embedding(now.tokens, now.position)
            last = now.mask.shape[1]
            apart = torch.arange(last - t, last)[:, None] - torch.arange(last)
            x = self.transformer(
                x,
                now.mask,
                True,
                now.context(context),
                now.rows(context_mask),
                bias=self.distance[:, apart.clamp(min=0)][None],
                rotary=None if self.angles is None else self.angles[(now.mask.cumsum(1) - 1).clamp(min=0)],
            )
            return self.head(x[:, -1])

        return read


def build(seed=0, **settings):
    torch.manual_seed(seed)
    return shaken(Writer(**settings), 0.3).eval()


def given(b=4, seed=0):
    """A context of 5 tokens, of which some are padding, and starts of unequal length."""
    generator = torch.Generator().manual_seed(seed)
    context = torch.randn(b, 5, 10, generator=generator)
    context_mask = torch.arange(5) < 2 + torch.arange(b)[:, None] % 4
    prompts = [torch.randint(2, V, (1 + i % 3,), generator=generator) for i in range(b)]
    return context, context_mask, *pad_left(prompts)


DECODERS = {
    "greedy": lambda: greedy,
    "one beam": lambda: partial(beam_search, beams=1),
    "three beams": lambda: partial(beam_search, beams=3, length_penalty=0.7),
    "eight beams": lambda: partial(beam_search, beams=8, length_penalty=1.5),
    "draws": lambda: partial(sample, temperature=1.5, top_p=0.9, generator=torch.Generator().manual_seed(0)),
}
SETTINGS = dict(end_token=END, pad_token=PAD, max_length=12)


@torch.no_grad()
@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("settings", [dict(), dict(norm_first=False), dict(rotary=True)], ids=str)
def test_texts_are_equal_with_and_without(settings, name):
    lengths = set()
    for seed in range(2):
        model, (context, context_mask, start, mask) = build(seed, **settings), given(seed=seed)
        read = model.reader(context, context_mask)
        expected = DECODERS[name]()(uncached(read, mask), start, **SETTINGS)
        with cached(model, read, mask) as next_logits:
            got = DECODERS[name]()(next_logits, start, **SETTINGS)
        assert torch.equal(got, expected)
        lengths |= set((got[:, start.shape[1] :] == END).int().argmax(1).tolist())
    assert len(lengths) > 1  # they end at several positions


@torch.no_grad()
@pytest.mark.parametrize("k", [1, 3])
def test_scores_are_equal_whatever_rows_are_kept(k):
    """In each step some rows of a text are dropped, some repeated, and their order changes."""
    model, (context, context_mask, start, mask) = build(rotary=True).double(), given()  # scores reach 30
    context, b = context.double(), 4
    read = model.reader(context, context_mask)
    plain = uncached(copy.deepcopy(model).reader(context, context_mask), mask)  # no model reads two things at once
    generator = torch.Generator().manual_seed(0)
    tokens = start.repeat_interleave(k, 0)
    with cached(model, read, mask) as next_logits:
        for _ in range(10):
            close(next_logits(tokens), plain(tokens))
            rows = torch.randint(k, (b, k), generator=generator) + k * torch.arange(b)[:, None]
            new = torch.randint(V, (b * k, 1), generator=generator)
            tokens = torch.cat([tokens[rows.flatten()], new], 1)


@pytest.mark.parametrize("name", DECODERS)
def test_what_was_written_can_be_learned_from(name):
    """As self-critical training does. Writing keeps nothing for a gradient, and yet its texts are plain tensors."""
    model, (context, context_mask, start, mask) = build(), given()
    with cached(model, model.reader(context, context_mask), mask) as next_logits:
        text = DECODERS[name]()(next_logits, start, **SETTINGS)
        assert not next_logits(start).requires_grad
    model.embedding.tokens(text).square().sum().backward()
    assert model.embedding.tokens.weight.grad.abs().sum() > 0


@torch.no_grad()
@pytest.mark.parametrize("name", ["greedy", "three beams"])
def test_each_token_is_read_once(name):
    model, (context, context_mask, start, mask) = build(), given()
    read = model.reader(context, context_mask)
    with cached(model, read, mask) as next_logits:
        text = DECODERS[name]()(next_logits, start, **SETTINGS)
    assert model.seen[0] == start.shape[1]
    assert set(model.seen[1:]) == {1}
    assert len(model.seen) >= text.shape[1] - start.shape[1]
    model.seen.clear()
    DECODERS[name]()(uncached(read, mask), start, **SETTINGS)
    assert model.seen == list(range(start.shape[1], start.shape[1] + len(model.seen)))


@torch.no_grad()
def test_several_tokens_at_once_and_texts_from_anew():
    model, (context, context_mask, start, mask) = build(), given()
    read = model.reader(context, context_mask)
    plain = uncached(copy.deepcopy(model).reader(context, context_mask), mask)
    with cached(model, read, mask) as next_logits:
        first = torch.cat([start, torch.randint(V, (4, 2))], 1)
        longer = torch.cat([first, torch.randint(V, (4, 3))], 1)
        other = longer.clone()
        other[2, 4] = (other[2, 4] + 1) % V
        calls = (first, 5), (longer, 3), (other, 8), (longer, 8), (start, 3), (first[:, :4], 1), (other, 4)
        for tokens, count in calls:
            model.seen.clear()
            got = next_logits(tokens)
            assert model.seen == [count]  # all of a text that does not go on from the last one
            close(got, plain(tokens))


@torch.no_grad()
@pytest.mark.parametrize("name", ["greedy", "three beams"])
def test_rows_are_written_as_if_they_were_alone(name):
    """Whatever stands at the left of a shorter prompt, and in whatever batch it is."""
    model, (context, context_mask, start, mask) = build(), given()
    with cached(model, model.reader(context, context_mask), mask) as next_logits:
        together = DECODERS[name]()(next_logits, start, **SETTINGS)
    assert (~mask).any()
    for i in range(4):
        alone = start[i, mask[i]][None]
        read = model.reader(context[i : i + 1], context_mask[i : i + 1])
        settings = SETTINGS | dict(max_length=12 - int((~mask[i]).sum()))
        with cached(model, read, torch.ones_like(alone, dtype=torch.bool)) as next_logits:
            expected = DECODERS[name]()(next_logits, alone, **settings)[0]
        got = together[i, ~torch.cat([~mask[i], torch.zeros(together.shape[1] - 3, dtype=torch.bool)])]
        assert torch.equal(got[: len(expected)], expected)
        assert (got[len(expected) :] == PAD).all()
    disturbed = start.masked_fill(~mask, 7)
    with cached(model, model.reader(context, context_mask), mask) as next_logits:
        again = DECODERS[name]()(next_logits, disturbed, **SETTINGS)
    assert torch.equal(again[:, 3:], together[:, 3:])


@torch.no_grad()
def test_models_are_as_before_also_after_an_error():
    model, (context, context_mask, start, mask) = build(), given()
    read = model.reader(context, context_mask)
    expected = uncached(read, mask)(start)
    with pytest.raises(ValueError, match="positions"), cached(model, read, mask) as next_logits:
        greedy(next_logits, start, end_token=V, max_length=99)
    assert all(module.cache is None for module in model.modules() if isinstance(module, Attention))
    assert torch.equal(uncached(read, mask)(start), expected)


@torch.no_grad()
def test_with_recorded_attention():
    model, (context, context_mask, start, mask) = build(), given()
    read = model.reader(context, context_mask)
    expected = greedy(uncached(read, mask), start, **SETTINGS)
    with record_attention(model) as maps, cached(model, read, mask) as next_logits:
        assert torch.equal(greedy(next_logits, start, **SETTINGS), expected)
    steps = [map.shape for name, map in maps.items() if "blocks.0.attention" in name]
    assert steps[:3] == [(4, 3, 3, 3), (4, 3, 1, 4), (4, 3, 1, 5)]
    looked = [map for name, map in maps.items() if "blocks.0.cross_attention" in name]
    for map in looked:
        close(map[:, :, -1:].sum(-1), torch.ones(4, 3, 1))
        assert map.shape[-1] == 5
        assert (map[~context_mask[:, None, None].expand_as(map)] == 0).all()


def test_no_rows_at_all():
    model, none = build(), torch.zeros(0, 2, dtype=torch.long)
    context, mask = torch.zeros(0, 5, 10), torch.ones(0, 2, dtype=torch.bool)
    for decode in (greedy, beam_search):
        with cached(model, model.reader(context, torch.ones(0, 5, dtype=torch.bool)), mask) as next_logits:
            assert len(decode(next_logits, none, **SETTINGS)) == 0


def test_rows_are_looked_for_among_those_of_their_text_alone():
    """Two texts with equal tokens have other contexts, so that keys of one are wrong for the other."""
    cache = Cache()
    assert cache.look_up(torch.tensor([[3, 4], [3, 5], [3, 5], [3, 4]]), 2) == 0
    assert cache.look_up(torch.tensor([[3, 5, 6], [3, 5, 7], [3, 5, 8], [3, 4, 9]]), 2) == 2
    assert cache.rows.tolist() == [1, 1, 2, 3]


# Starts.


def test_prompts_are_padded_at_their_left():
    tokens, mask = pad_left([[5, 6, 7], torch.tensor([8]), (9, 10)], pad_token=4)
    assert tokens.tolist() == [[5, 6, 7], [4, 4, 8], [4, 9, 10]]
    assert mask.tolist() == [[True] * 3, [False, False, True], [False, True, True]]
    refused("Prompt 1 is empty", pad_left, [[5], []])


def test_texts_begin_with_a_token_of_the_model():
    tokens, mask = start_prompts(99, *pad_left([[5, 6, 7], [8]]))
    assert tokens[mask].tolist() == [99, 5, 6, 7, 99, 8]
    assert mask.tolist() == [[True] * 4, [False, False, True, True]]
    tokens, mask = start_prompts(99, torch.zeros(2, 0, dtype=torch.long))
    assert tokens.tolist() == [[99], [99]]
    assert mask.all()


class Adder(nn.Module):
    """A recurrent network whose state is a sum over what was read: not to be had from the new tokens alone."""

    def __init__(self):
        super().__init__()
        self.table, self.read = nn.Embedding(V, V), []

    def reader(self, begin_with):
        def read(now):
            self.read.append(now.tokens.shape[1])
            (total,) = now.state([begin_with])
            total = total + (self.table(now.tokens) * now.new[..., None]).sum(1)
            now.keep([total])
            return total.sin() * 3

        return read


@torch.no_grad()
@pytest.mark.parametrize("name", DECODERS)
def test_a_state_is_kept_and_goes_with_its_row(name):
    torch.manual_seed(0)
    model, start_state = Adder(), torch.randn(4, V)
    _, _, start, mask = given()
    read = model.reader(start_state)
    anew = DECODERS[name]()(uncached(read, mask), start, **SETTINGS)
    model.read.clear()
    with cached(model, read, mask) as next_logits:
        assert torch.equal(DECODERS[name]()(next_logits, start, **SETTINGS), anew)
    assert model.read[0] == start.shape[1]
    assert set(model.read[1:]) == {1}
