"""Two texts in one row: without a second one it is the first; co-masked and switched words; regions named by words."""

import pytest
import torch
import torch.nn.functional as F
from testing_tools import close, refused, seeded

from mmlearn.objectives.masked import mask_tokens
from mmlearn.objectives.translation import code_switch, join_translations, masked_region_to_token


def two_texts(b=7, t=6, u=9):
    mask, other_mask = (torch.arange(n) <= 1 + torch.arange(b)[:, None] % (n - 1) for n in (t, u))
    text, translation = torch.randint(4, 99, (b, t)), torch.randint(4, 99, (b, u))
    return text, translation, mask, other_mask.flip(0)


def test_a_row_is_the_text_and_then_its_translation_without_the_start():
    text, translation, mask, other_mask = two_texts()
    row, real = join_translations(text, translation, mask, other_mask, padding=-7)
    assert row.shape == real.shape == (7, 6 + 9 - 1)
    for i in range(7):
        expected = [*text[i][mask[i]].tolist(), *translation[i][other_mask[i]].tolist()[1:]]
        assert row[i][real[i]].tolist() == row[i, : len(expected)].tolist() == expected
        assert (row[i, len(expected) :] == -7).all()


def test_one_language_alone_is_the_text():
    """So TLM reduces to MLM."""
    text, translation, mask, other_mask = two_texts()
    row, real = join_translations(text, translation, mask, other_mask & False)
    assert torch.equal(row[:, :6], text.masked_fill(~mask, 0))
    assert torch.equal(real[:, :6], mask)
    assert not real[:, 6:].any()


@pytest.mark.parametrize("together", [False, True])
def test_a_word_is_hidden_with_its_translation_or_by_itself(together):
    """Words are of one or two tokens; those of the translation stand in the reverse order. 0 is padding."""
    text = torch.arange(4, 14).expand(400, -1)
    word = torch.tensor([-1, 0, 0, 1, 2, 2, 3, 4, 4, -1]).expand(400, -1)
    pair = torch.cat([word, word.flip(1)], 1)
    tokens = torch.cat([text, text.flip(1) + 20], 1)
    tokens[:, [0, 9, 10, 19]] = 1
    options = dict(vocab_size=40, mask_token=3, special=(0, 1, 2), generator=seeded(), words=pair if together else None)
    shown, label = mask_tokens(tokens, tokens > 0, **options)
    hidden = label != -100
    assert not hidden[:, [0, 9, 10, 19]].any()
    assert torch.equal(hidden[:, 10:].flip(1), hidden[:, :10]) == together
    assert torch.equal(hidden[:, 1], hidden[:, 2]) == together
    assert torch.equal(label[hidden], tokens[hidden])
    assert 0.1 < hidden[:, 1:9].float().mean() < 0.3
    assert torch.equal(shown[~hidden], tokens[~hidden])


def test_a_region_is_named_by_the_token_of_its_class():
    logits, classes, names = torch.randn(6, 50), torch.rand(6, 4), torch.tensor([9, 3, 3, 41])
    expected = -sum(logits[i].log_softmax(0)[names[classes[i].argmax()]] for i in range(6)) / 6
    close(masked_region_to_token(logits, classes, names), expected)
    assert masked_region_to_token(logits[:0], classes[:0], names) == 0
    close(masked_region_to_token(torch.zeros(6, 50), classes, names), torch.tensor(50.0).log())
    sure = F.one_hot(names[classes.argmax(1)], 50) * 99.0
    assert masked_region_to_token(sure, classes, names) < 1e-6


def in_words(b=300):
    """Texts of three words of two, one and two tokens, whose translations stand in the reverse order; 1 and 2 frame."""
    text = torch.tensor([1, 10, 11, 20, 30, 31, 2, 0]).expand(b, -1)
    word = torch.tensor([-1, 0, 0, 1, 2, 2, -1, -1]).expand(b, -1)
    other = torch.tensor([1, 130, 120, 121, 122, 110, 2]).expand(b, -1)
    translated = torch.tensor([-1, 2, 1, 1, 1, 0, -1]).expand(b, -1)
    return text, other, text > 0, other > 0, word, translated


def test_words_are_switched_whole_in_their_positions():
    rows, real = code_switch(*in_words(), 0.4, seeded())
    here, there = ([10, 11], [20], [30, 31]), ([110], [120, 121, 122], [130])
    seen, switched = set(), 0
    for row, mask in zip(rows, real):
        rest, kinds = row[mask].tolist(), []
        assert (rest.pop(0), rest.pop()) == (1, 2)
        for one, other in zip(here, there):
            kinds.append(rest[: len(other)] == other)
            assert kinds[-1] or rest[: len(one)] == one
            rest = rest[len(other if kinds[-1] else one) :]
        assert not rest
        seen.add(tuple(kinds))
        switched += sum(kinds)
        assert not mask[int(mask.sum()) :].any()
        assert (row[~mask] == 0).all()
    assert len(seen) == 8
    assert switched / 900 == pytest.approx(0.4, abs=0.05)
    assert torch.equal(rows, code_switch(*in_words(), 0.4, seeded())[0])
    assert not torch.equal(rows, code_switch(*in_words(), 0.4, seeded(1))[0])


def test_none_or_all_are_switched():
    text, other, mask, other_mask, word, translated = in_words(3)
    for probability, expected in ((0.0, text[0, :7]), (1.0, torch.tensor([1, 110, 120, 121, 122, 130, 2]))):
        rows, real = code_switch(text, other, mask, other_mask, word, translated, probability, seeded())
        assert torch.equal(rows[:, :7], expected.expand(3, -1))
        assert (real.sum(1) == 7).all()
    unknown = translated.masked_fill(translated == 1, -1)  # a word without a translation stays
    rows, real = code_switch(text, other, mask, other_mask, word, unknown, 1.0, seeded())
    assert rows[0][real[0]].tolist() == [1, 110, 20, 130, 2]
    rows, real = code_switch(text, other, mask, other_mask & False, word, translated, 1.0, seeded())
    assert torch.equal(rows[:, :8], text)
    refused("is from 0 to 1, got 1.5", code_switch, *in_words(1), 1.5, seeded())
