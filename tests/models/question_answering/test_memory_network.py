"""Memory networks: hops, tying and both encodings, against plain loops over words, positions and facts."""

import dataclasses
import math

import pytest
import torch
from testing_tools import close, pairs, refused, shaken

from mmlearn.models import MemoryNetwork
from mmlearn.models.question_answering.memory_network import MemoryNetworkConfig, position_encoding

TINY = MemoryNetworkConfig.tiny()
FACTS = dataclasses.replace(TINY, memory="facts")


def build(config, **changes):
    torch.manual_seed(0)
    return shaken(MemoryNetwork(dataclasses.replace(config, **changes))).eval()


def story(b=4, n=6, t=5):
    """Facts of different lengths; some rows have fewer of them."""
    generator = torch.Generator().manual_seed(3)
    facts = torch.randint(4, 500, (b, n, t), generator=generator)
    facts = facts.masked_fill(torch.arange(t) >= 2 + torch.arange(n)[:, None] % 4, 0)
    return facts.masked_fill(torch.arange(n)[:, None] >= n - torch.arange(b)[:, None, None] % 3, 0)


def encoded(table, words, width, positions=True):
    """The vector of one sentence, word by word and number by number."""
    result, j_all = torch.zeros(width), len(words)
    for j, word in enumerate(words, start=1):
        for k in range(1, width + 1):
            weight = (1 - j / j_all) - (k / width) * (1 - 2 * j / j_all) if positions else 1.0
            result[k - 1] += weight * table.weight[word, k - 1].item()
    return result


def test_position_encoding_by_hand():
    got = position_encoding(torch.tensor([[True, True, False], [False, True, True]]), 2)
    close(got[0], torch.tensor([[0.5, 0.5], [0.5, 1.0], [0.0, 0.0]]))
    close(got[1], torch.tensor([[0.0, 0.0], [0.5, 0.5], [0.5, 1.0]]))


@pytest.mark.parametrize("positions", [True, False])
@pytest.mark.parametrize("tying", ["adjacent", "layer-wise"])
def test_facts_against_plain_loops(tying, positions):
    system, batch, facts = build(FACTS, tying=tying, position_encoding=positions, hops=2), pairs(4), story()
    output = system(None, batch["tokens"], batch["mask"], facts)
    assert len(system.embeddings) == (3 if tying == "adjacent" else 2)
    for row in range(4):
        u = encoded(system.words, batch["tokens"][row][batch["mask"][row]].tolist(), 64, positions)
        told = [[word for word in fact.tolist() if word] for fact in facts[row]]
        told = [fact for fact in told if fact]
        for hop in range(2):
            first = hop if tying == "adjacent" else 0
            m, c = ([encoded(system.embeddings[e], fact, 64, positions) + system.memory_positions[e][len(told) - 1 - i]
                     for i, fact in enumerate(told)] for e in (first, first + 1))  # fmt: skip
            scores = [math.exp((u @ one).item()) for one in m]
            shares = [score / sum(scores) for score in scores]
            close(output.maps[row, hop, : len(told)], torch.tensor(shares), 1e-4)
            assert (output.maps[row, hop, len(told) :] == 0).all()
            o = sum(share * one for share, one in zip(shares, c))
            u = (u if tying == "adjacent" else system.hop_projection.weight @ u) + o
        close(output.answer_logits[row], system.answer_head.weight @ u + system.answer_head.bias, 1e-3)


def test_adjacent_tying_shares_the_table_of_words_with_the_question():
    system = build(FACTS)
    assert system.words is system.embeddings[0]
    assert len(system.embeddings) == len(system.memory_positions) == 4


def test_patches_against_a_plain_loop():
    system, batch = build(TINY), pairs(3)
    output = system(batch["image"], batch["tokens"], batch["mask"])
    x = system.image_encoder(batch["image"])
    for row in range(3):
        u = encoded(system.words, batch["tokens"][row][batch["mask"][row]].tolist(), 64)
        for hop in range(3):
            m, c = ((x[row] @ system.embeddings[e].weight.T + system.memory_positions[e]) for e in (hop, hop + 1))
            shares = (m @ u).softmax(0)
            close(output.maps[row, hop], shares, 1e-4)
            u = u + shares @ c
        close(output.answer_logits[row], system.answer_head.weight @ u + system.answer_head.bias, 1e-4)


def test_what_is_wrong_is_told(unchecked):
    refused("no memory 'pictures'", build, TINY, memory="pictures")
    refused("no tying 'both'", build, TINY, tying="both")
    refused("hops is at least 1", build, TINY, hops=0)
    batch = pairs(4)
    refused("holds facts: give it facts", build(FACTS), None, batch["tokens"], batch["mask"])
    refused("holds patches: give it image", build(TINY), None, batch["tokens"], batch["mask"], story())
    refused("has 3 slots; got 6", build(FACTS, slots=3), None, batch["tokens"], batch["mask"], story())
