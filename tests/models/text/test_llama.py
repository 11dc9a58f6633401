"""Llama: what changed since GPT-2, each by its definition; windows, caches, and what is refused."""

from dataclasses import replace

import pytest
import torch
from testing_tools import close, refused, seeded, shaken
from torch import nn

from mmlearn.generation.cache import Cache
from mmlearn.generation.decoding import beam_search
from mmlearn.layers import Attention
from mmlearn.layers.rotary import RotaryConfig, rotary_frequencies
from mmlearn.models.text.llama import GroupedQueryAttention, Llama, LlamaConfig, RMSNorm, SwiGLU

TINY = LlamaConfig.tiny()


def tokens(b=3, t=9, seed=0):
    return torch.randint(4, 500, (b, t), generator=seeded(seed))


def test_the_norm_scales_and_does_nothing_else():
    x, norm = torch.randn(2, 5, 8), RMSNorm(8, 1e-6)
    nn.init.normal_(norm.weight)
    close(norm(x), torch.stack([row / (row @ row / 8) ** 0.5 for row in x.flatten(0, 1)]).view_as(x) * norm.weight)
    close(norm(7 * x), norm(x))
    assert not torch.allclose(norm(x + 1), norm(x), atol=0.1)
    assert norm(torch.full((1, 8), 300.0).half()).isfinite().all()  # although no square of it is a float16


def test_each_group_of_queries_shares_a_key():
    """It is attention whose key and value weights are there once for each query head."""
    config = replace(TINY, num_heads=6, num_kv_heads=2, width=24, qkv_bias=True)
    grouped, whole = GroupedQueryAttention(config), Attention(24, 6)
    with torch.no_grad():
        for name, parameter in whole.named_parameters():
            given = grouped.get_parameter(name) if name != "output.bias" else torch.zeros(24)
            if name.startswith(("key", "value")):
                given = torch.cat([part for part in given.chunk(2) for _ in range(3)])
            parameter.copy_(given)
    x = torch.randn(2, 5, 24)
    close(grouped(x, causal=True), whole(x, causal=True))
    refused("num_heads 6 is no multiple of num_kv_heads 4", GroupedQueryAttention, replace(config, num_kv_heads=4))


def test_the_gate_is_a_swish():
    mlp, x = SwiGLU(6, 10, "silu"), torch.randn(2, 3, 6)
    gate = x @ mlp.gate.weight.T
    close(mlp(x), (gate * gate.sigmoid() * (x @ mlp.expand.weight.T)) @ mlp.contract.weight.T)


def test_rotary_frequencies_by_hand():
    theta = torch.tensor([1.0, 0.1, 0.01, 0.001])
    close(rotary_frequencies(8, RotaryConfig()), theta)
    close(rotary_frequencies(8, RotaryConfig(scaling="linear", factor=4.0)), theta / 4)
    # In 200 tokens the pairs turn 31.8, 3.18, 0.318 and 0.0318 times. Between 0.5 and 4 they are slowed down in part.
    scaled = rotary_frequencies(8, RotaryConfig(10_000.0, "llama3", 8.0, 0.5, 4.0, 200))
    kept = (20 / (2 * torch.pi) - 0.5) / 3.5
    close(scaled, torch.tensor([1.0, 0.1 * kept + 0.1 / 8 * (1 - kept), 0.01 / 8, 0.001 / 8]))
    refused("default, linear or llama3, not 'yarn'", Llama, replace(TINY, rotary=RotaryConfig(scaling="yarn")))
    for wrong in (dict(factor=0.0), dict(base=-1.0), dict(low_frequency_factor=4.0)):
        refused("above 0, and the low factor is below the high one", rotary_frequencies, 8, RotaryConfig(**wrong))
    refused("head_width must be even, got 5", Llama, replace(TINY, head_width=5))


def test_only_distances_count():
    """Where all positions are shifted, nothing changes but what rounding does."""
    model, text = shaken(Llama(TINY)).eval(), tokens()
    x, position = model.embed(text), torch.arange(9).expand(3, 9)
    close(model.read(x, position=position + 20), model.read(x, position=position), 1e-4)
    assert not torch.allclose(model.read(x, position=position * 2), model.read(x, position=position), atol=0.01)


def test_a_window_hides_what_is_far():
    """With one block a token sees its window alone; with two, what those saw."""
    text, other = tokens(t=12), tokens(t=12, seed=1)
    for depth in (1, 2):
        model = shaken(Llama(replace(TINY, window=4, depth=depth))).eval()
        changed = torch.cat([other[:, :3], text[:, 3:]], 1)
        same = (model(text).tokens == model(changed).tokens).all(-1).all(0)
        assert same.tolist() == [i >= 3 + 3 * depth for i in range(12)]
    refused("window 40 is none of 1 to max_length, 32 tokens", Llama, replace(TINY, window=40))


@pytest.mark.parametrize("window", [None, 4])
def test_shorter_prompts_are_padded_at_their_left(window):
    model, prompt = shaken(Llama(replace(TINY, window=window))).eval(), tokens(2, 5)
    mask = torch.tensor([[False, False, True, True, True], [True] * 5])
    together = model.generate(prompt.masked_fill(~mask, 0), prompt_mask=mask, max_length=11)
    alone = model.generate(prompt[:1, 2:], max_length=9)
    close(together[0, 2 : 2 + alone.shape[1]], alone[0])


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_the_cache_takes_the_bytes_that_are_told(heads, monkeypatch):
    kept = []
    extend = Cache.extend
    monkeypatch.setattr(Cache, "extend", lambda *given: kept.append(given[0]) or extend(*given))
    model = Llama(config := replace(TINY, num_kv_heads=heads, end_token=3)).eval()
    model.generate(tokens(1, 5), max_length=9)
    bytes_held = sum(part.numel() * 4 for parts in kept[-1].kept.values() for part in parts)
    assert bytes_held == config.cache_bytes(9, 4)  # the last token is written and not read; a start token was
    assert LlamaConfig.preset("Llama-3.2-1B").cache_bytes(1) == 32 * 1024


def test_several_tokens_may_end_a_text_and_a_chat_has_ended_turns():
    model, prompt = shaken(Llama(TINY)).eval(), tokens(1, 4)
    whole = model.generate(prompt, max_length=12)[0].tolist()
    assert len(whole) == 12
    model.config = replace(TINY, more_end_tokens=(whole[6], 499))
    end = whole.index(whole[6], 4)
    assert model.generate(prompt, max_length=12)[0].tolist() == whole[: end + 1]
    assert model.generate(prompt, beam_search, max_length=12).shape[1] <= 12
    chat = torch.cat([prompt, torch.tensor([[TINY.end_token]]), prompt], 1)
    assert torch.equal(model.generate(chat, max_length=12)[:, :9], chat)


def test_without_a_start_token_a_prompt_begins_the_text():
    model, prompt = shaken(Llama(replace(TINY, start_token=None))).eval(), tokens(2, 4)
    written = model.generate(prompt, max_length=6)
    close(written[:, 4], model(prompt).token_logits[:, -1].argmax(-1))
    refused("The start is empty", model.generate, max_length=4)


def test_what_is_too_long():
    model = Llama(TINY).eval()
    refused("33 tokens are more than the 32 positions", model, tokens(1, 33))
    refused("more than the 32 positions", model.generate, tokens(1, 40), max_length=50)
    refused("leaves none to be written", model.generate, tokens(1, 9), max_length=9)
