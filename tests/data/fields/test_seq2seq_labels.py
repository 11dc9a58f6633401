"""Labels that change texts: what T5, BART, ALBERT and BERT are given, and the segments that captions are cut into."""

from types import SimpleNamespace

import pytest
import torch
from testing_tools import Listed, refused, seeded

from mmlearn.data.collate import Collate
from mmlearn.data.fields import (
    MaskedTokens,
    NextSegment,
    Segments,
    SpanCorruption,
    SwappedSegments,
    TextInfilling,
    Tokens,
)
from mmlearn.data.fields.texts import segments
from mmlearn.data.tokenizer import Tokenizer
from mmlearn.layers import Config
from mmlearn.objectives import fill_spans

CAPTIONS = [
    "a red star above a blue bar",
    "the green ring is left of the pink dot",
    "one",
    "Two cups. A plate! Is there a fork? Yes.",
    "grinning face with big eyes and a very wide mouth that smiles",
]
SAMPLES = [SimpleNamespace(caption=caption) for caption in CAPTIONS]
PAD, START, END, MASK = range(4)


@pytest.fixture
def tokens():
    return Tokens(sentinels=16, vocab_size=400).fitted(Listed(SAMPLES), Config(), 0)


@pytest.fixture
def pairs():
    return Segments(vocab_size=400).fitted(Listed(SAMPLES), Config(), 0)


def real(batch, i, name="tokens", mask="mask"):
    return batch[name][i][batch[mask][i]]


def test_hidden_spans_are_what_the_target_holds(tokens):
    plain = tokens(SAMPLES)
    batch = SpanCorruption()(plain, seeded(), tokens.sizes().__getitem__)
    sentinel = tokens.sizes()["vocab_size"] - 1
    assert sentinel == tokens.tokenizer.vocab_size + 15
    for i in range(len(SAMPLES)):
        text, target = real(batch, i), real(batch, i, "target", "target_mask")
        assert text[-1] == target[-1] == END
        assert torch.equal(fill_spans(text[:-1], target[:-1], sentinel), real(plain, i)[1:-1])
        assert target[0] == sentinel
    assert (batch["tokens"][~batch["mask"]] == PAD).all()
    assert (batch["target"][~batch["target_mask"]] == PAD).all()
    assert batch["mask"].any(0).all()
    assert batch["target_mask"].any(0).all()


def test_what_is_infilled_is_the_whole_text(tokens):
    plain = tokens(SAMPLES)
    batch = TextInfilling()(plain, seeded(), tokens.sizes().__getitem__)
    for i in range(len(SAMPLES)):
        text, target = real(batch, i), real(batch, i, "target", "target_mask")
        assert torch.equal(target, real(plain, i))
        assert text[0] == START
        assert text[-1] == END
        assert set(text.tolist()) <= {*target.tolist(), MASK}
    assert (batch["tokens"] == MASK).any()


def test_captions_are_cut_where_they_may_be():
    assert segments("Two cups. A plate! Is there a fork? Yes.") == ("Two cups. A plate!", "Is there a fork? Yes.")
    assert segments("a red star above a blue bar") == ("a red star above", "a blue bar")
    assert segments("one") == ("one", "")
    assert segments("No. 5") == ("No.", "5")


def test_segments_are_the_caption_in_two(pairs):
    batch = pairs(SAMPLES)
    decode = pairs.tokenizer.decode
    for i, caption in enumerate(CAPTIONS):
        first, second = segments(caption.lower())
        row, kind = real(batch, i), batch["token_type"][i][batch["mask"][i]]
        assert decode(row[kind == 0]) == first
        assert decode(row[kind == 1]) == second
        assert row[0] == START
        assert row[kind == 0][-1] == row[-1] == END
    assert batch["tokens"].shape[1] <= pairs.sizes()["max_length"] == pairs.tokenizer.max_length + 1
    assert (batch["token_type"][~batch["mask"]] == 0).all()


def test_a_caption_that_is_too_long_loses_the_end_of_its_longer_segment():
    short, long = (Segments(Tokenizer.train(CAPTIONS, vocab_size=300, max_length=most)) for most in (8, 64))
    batch, whole = short(SAMPLES), long(SAMPLES)
    assert batch["tokens"].shape[1] == 9
    for i in range(len(SAMPLES)):
        was, now = (
            [x["tokens"][i][x["mask"][i] & (x["token_type"][i] == k)].tolist() for k in (0, 1)] for x in (whole, batch)
        )
        assert now == [[*full[: len(left) - 1], END] for full, left in zip(was, now)]
        cut = [len(full) - len(left) for full, left in zip(was, now)]
        assert all(not lost or len(left) >= len(now[1 - k]) - 1 for k, (lost, left) in enumerate(zip(cut, now)))


def test_labels_of_segments(pairs):
    collate = Collate((pairs,), (SwappedSegments(), MaskedTokens()), seed=3)
    batch, plain = collate(SAMPLES[:4]), pairs(SAMPLES[:4])
    original = torch.where(batch["token_label"] == -100, batch["tokens"], batch["token_label"])
    changed = (original != plain["tokens"]).any(1) | (batch["token_type"] != plain["token_type"]).any(1)
    assert torch.equal(batch["order_label"] == 1, changed)
    assert batch["order_label"].sum() == 2
    batch = Collate((pairs,), (NextSegment(), MaskedTokens()), seed=3)(SAMPLES[:4])
    assert batch["next_label"].sum() == 2
    assert batch["tokens"].shape == batch["token_type"].shape == batch["mask"].shape == batch["token_label"].shape
    assert batch["tokens"].shape[1] <= pairs.sizes()["max_length"]


@pytest.mark.parametrize("label", [SpanCorruption, TextInfilling])
def test_shares_are_checked(label):
    refused("probability is a share from 0 to 1", label, probability=1.2)


def test_segments_take_no_words():
    for option in (dict(words=True), dict(maskable={"red"}), dict(grounded=True), dict(whole=True)):
        refused("Segments have no words, maskable, grounded or whole", Segments, **option)
    refused("has no tokenizer yet", Segments(), SAMPLES)


def test_infilling_never_makes_a_text_too_long():
    """A mask may stand where nothing is missing, so that the spoilt text has more tokens than the text."""
    full = torch.tensor([[1, *range(10, 22), 2]])
    batch, longest = {"tokens": full, "mask": torch.ones_like(full, dtype=torch.bool)}, 0
    for seed in range(60):
        found = TextInfilling(mean_length=0.5)(batch, seeded(seed), {"max_length": 14, "vocab_size": 40}.__getitem__)
        assert found["tokens"].shape[1] <= 14
        assert torch.equal(found["target"], full)
        longest = max(longest, found["tokens"].shape[1])
    assert longest == 14
