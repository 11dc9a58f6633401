"""Brackets: closed in the right order, no deeper than they may be, each with its partner."""

import pytest
import torch
from testing_tools import refused

from mmlearn.data.made.brackets import FIRST, bracket_sentences, spell_brackets


def sentences(**options):
    return bracket_sentences(300, torch.Generator().manual_seed(0), **options)


def test_each_closing_bracket_has_its_partner():
    tokens, partner = sentences()
    assert tokens.shape == partner.shape == (300, 17)
    assert (tokens[:, 0] == 1).all()
    for row, places in zip(tokens.tolist(), partner.tolist()):
        still_open, deepest = [], 0
        for i, (token, place) in enumerate(zip(row, places)):
            if token >= FIRST and token % 2 == 0:
                still_open.append(i)
                deepest = max(deepest, len(still_open))
            elif token >= FIRST:
                assert place == still_open.pop()
                assert token == row[place] + 1  # of the same kind
                continue
            assert place == -1
        assert still_open == []
        assert deepest <= 5


def test_every_depth_and_every_kind_comes():
    tokens, _ = sentences()
    assert set(tokens.unique().tolist()) == {1, *range(FIRST, FIRST + 8)}
    texts = [spell_brackets(row) for row in tokens]
    assert len(set(texts)) > 290
    depths = [max(sum(1 if sign in "([{<" else -1 for sign in text[:i]) for i in range(17)) for text in texts]
    assert set(depths) >= {2, 3, 4, 5}
    assert (tokens[:, 2] % 2 == 0).float().mean().item() == pytest.approx(0.5, abs=0.1)  # opened with equal odds
    assert torch.equal(tokens, sentences()[0])


def test_short_and_flat_sentences():
    assert {spell_brackets(row) for row in sentences(pairs=1)[0]} == {"()", "[]", "{}", "<>"}
    text = spell_brackets(sentences(pairs=3, deepest=1)[0][0])
    assert all(text[i : i + 2] in ("()", "[]", "{}", "<>") for i in (0, 2, 4))
    assert bracket_sentences(0, torch.Generator())[0].shape == (0, 17)
    refused("at least one pair", sentences, pairs=0)
    refused("at least one pair", sentences, deepest=0)
