"""The tokenizer: any text comes back, words find their tokens, what is too long is cut, damaged files are refused."""

import json
import random
import sys
import unicodedata

import pytest
import torch
from testing_tools import refused
from tokenizers import Tokenizer as Engine
from tokenizers import models

from mmlearn.data import Tokenizer
from mmlearn.data.tokenizer import SPECIAL, SPECIAL_FILE, PublishedTokenizer

TEXTS = [
    "a small solid red circle left of a large dotted blue square",
    "the large striped green star is above the small solid white ring",
    "ein großes Schiff auf dem Meer",
    "日本語の文字",
    "πλοίο στη θάλασσα",
]
TRICKY = (
    "aéÉe\u0301ßẞİıſK\u212bΩσςΣǅﬁ日本語한글\u1112\u1161\u11ab👩\u200d👧🇩🇪\u0327\u0301"
    ".,<>|&;'\"\\/\x00\x7f\u00ad\ufeff\ufffd\U0010ffff"
)
SPACES = [" ", "  ", "\t", "\n", "\r\n", "\u00a0", "\u3000", "\u2028", "\x85", " \t "]


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(TEXTS, vocab_size=380, max_length=32)


@pytest.fixture(scope="module")
def roomy():
    """The same vocabulary with a context that nothing here fills."""
    return Tokenizer.train(TEXTS, vocab_size=380, max_length=2000)


def normal(text):
    """Composed and in lower case, letter by letter."""
    return "".join(letter.lower() for letter in unicodedata.normalize("NFC", text))


def any_letter(generator):
    while True:
        letter = chr(generator.choice([generator.randrange(0x250), generator.randrange(sys.maxunicode + 1)]))
        if unicodedata.category(letter) not in ("Cn", "Cs"):  # a code point that Unicode has not assigned, a surrogate
            return letter


def any_words(generator):
    """Words of any letters, and a text that holds them."""
    words = [
        "".join(
            generator.choice(TRICKY) if generator.random() < 0.5 else any_letter(generator)
            for _ in range(generator.randint(1, 6))
        )
        for _ in range(generator.randint(1, 8))
    ]
    words = [word for joined in words for word in joined.split()]  # some letters are spaces
    return words, "".join(word + generator.choice(SPACES) for word in words)


# Round trip.


@pytest.mark.parametrize("text", [*TEXTS, "", " ", TRICKY, "\u2028", "a\nb", "\x00", "A" * 300, "𝔘𝔫𝔦𝔠𝔬𝔡𝔢"])
def test_a_text_comes_back_composed_and_in_lower_case(roomy, text):
    tokens, mask = roomy([text])
    assert roomy.decode(tokens[0]) == normal(text).strip()
    assert roomy.decode(tokens[0][mask[0]].tolist()) == normal(text).strip()


def test_any_text_at_all_comes_back(roomy):
    generator = random.Random(0)
    texts = ["".join(any_letter(generator) for _ in range(generator.randint(1, 60))) for _ in range(1500)]
    tokens, mask = roomy(texts)
    for text, row, real in zip(texts, tokens, mask):
        assert roomy.decode(row) == normal(text).strip(), text.encode("unicode_escape")
        assert (row[real][1:-1] >= len(SPECIAL)).all()
        assert (row < roomy.vocab_size).all()


@pytest.mark.parametrize("text", ["<pad>", "a <end> b", "<mask><start>", "< pad >"])
def test_the_name_of_a_special_token_is_text_like_any_other(tokenizer, text):
    tokens, mask = tokenizer([text])
    inside = tokens[0][mask[0]][1:-1]
    assert (inside >= len(SPECIAL)).all()
    assert tokenizer.decode(inside) == text


# The form of a batch.


def test_start_text_end_padding(tokenizer):
    texts = ["red", "a small solid red circle left of a large dotted blue square", ""]
    tokens, mask = tokenizer(texts)
    assert tokens.shape == mask.shape == (3, 32)
    assert (tokens.dtype, mask.dtype) == (torch.int64, torch.bool)
    for row, real in zip(tokens.tolist(), mask.tolist()):
        length = sum(real)
        assert real == [True] * length + [False] * (32 - length)
        assert row[0] == tokenizer.start_token == 1
        assert row[length - 1] == tokenizer.end_token == 2
        assert row[length:] == [tokenizer.pad_token] * (32 - length) == [0] * (32 - length)
    assert mask[2].sum() == 2
    assert tokens[1].unique().numel() > 5
    assert torch.equal(tokenizer(texts[:1])[0], tokens[:1])


def test_no_text_is_an_empty_batch(tokenizer):
    tokens, mask = tokenizer([])
    assert tokens.shape == mask.shape == (0, 32)
    assert tokens.dtype == torch.int64


def test_texts_that_differ_in_case_or_composition_are_the_same(tokenizer):
    tokens, _ = tokenizer(["É red", "e\u0301 RED", "é Red"])
    assert torch.equal(tokens[0], tokens[1])
    assert torch.equal(tokens[0], tokens[2])


@pytest.mark.parametrize("length", [3, 4, 9, 32])
def test_what_is_too_long_is_cut_and_still_ends(roomy, length):
    tokenizer = Tokenizer.train(TEXTS, vocab_size=380, max_length=length)
    text = " ".join(TEXTS)
    (tokens, mask), (whole, _) = tokenizer([text, text + " more"]), roomy([text])
    assert mask.all()
    assert tokens[0].tolist() == [*whole[0, : length - 1].tolist(), tokenizer.end_token]
    assert torch.equal(tokens[0], tokens[1])


def test_a_text_that_just_fits_is_not_cut(roomy):
    text = TEXTS[0]
    length = int(roomy([text])[1].sum())
    fits, too_short = (Tokenizer.train(TEXTS, vocab_size=380, max_length=length - cut) for cut in (0, 1))
    assert fits.decode(fits([text])[0][0]) == text
    assert too_short([text])[1].all()
    assert text.startswith(too_short.decode(too_short([text])[0][0]))
    assert too_short.decode(too_short([text])[0][0]) != text


# Words.


def test_words_of_any_letters_find_their_tokens(roomy):
    generator = random.Random(1)
    for _ in range(400):
        words, text = any_words(generator)
        tokens = roomy([text])[0][0]
        found = roomy.words(text)
        assert [word for word, _ in found] == words
        used = [position for _, positions in found for position in positions]
        assert used == sorted(set(used))  # in order, and no token belongs to two words
        for word, positions in found:
            # A mark at the start of a word may join a space before it, and so is left to the test of whole texts.
            if not unicodedata.combining(word[0]):
                assert roomy.decode(tokens[positions]) == normal(word), (text, word)


def test_positions_are_those_of_the_characters(roomy):
    text = TEXTS[0]
    tokens = roomy([text])[0][0]
    for phrase in ("small solid red circle", "large dotted blue square", "left of", "a", "red"):
        start = text.index(phrase)
        assert roomy.decode(tokens[roomy.positions(text, start, start + len(phrase))]) == phrase
    start = text.index("circle")
    assert roomy.positions(text, start, start) == []
    assert roomy.positions(text, start + 1, start + 2)[0] in roomy.positions(text, start, start + 6)


def test_a_repeated_word_has_tokens_of_its_own(roomy):
    (_, first), _, (_, second) = roomy.words("red or red")
    assert first
    assert second
    assert not set(first) & set(second)


def test_a_letter_within_another_word_is_not_taken_for_it(roomy):
    """ "a" stands in "star" before it stands alone."""
    text = "star a"
    (_, star), (_, alone) = roomy.words(text)
    assert max(star) < min(alone)
    assert roomy.decode(roomy([text])[0][0][alone]) == "a"


def test_words_that_were_cut_have_no_tokens(tokenizer):
    words = tokenizer.words(" ".join(TEXTS))
    lengths = [len(positions) for _, positions in words]
    assert lengths[0] > 0
    assert lengths[-1] == 0
    assert sorted(map(bool, lengths), reverse=True) == [bool(length) for length in lengths]
    assert max(max(positions, default=0) for _, positions in words) == 30  # 31 is <end>


# Training.


def test_vocabulary_is_bytes_special_tokens_and_merges(tokenizer):
    assert tokenizer.vocab_size == 380
    least = Tokenizer.train(TEXTS, vocab_size=260)
    assert least.vocab_size == 260
    text = "a small ship"
    assert int(least([text])[1].sum()) == len(text) + 3  # a byte each, a space before, <start> and <end>
    assert int(tokenizer([text])[1].sum()) < len(text)
    assert Tokenizer.train(["ab"], vocab_size=5000).vocab_size < 270  # no pair is left


def test_training_again_gives_the_same_tokens():
    texts = [" ".join(random.Random(seed).choices(" ".join(TEXTS).split(), k=6)) for seed in range(200)]
    one, other = (Tokenizer.train(iter(texts), vocab_size=512) for _ in range(2))
    assert one.engine.to_str() == other.engine.to_str()


@pytest.mark.parametrize(
    ("texts", "settings", "said"),
    [
        (TEXTS, {"vocab_size": 259}, "256 bytes and 4 special tokens, got 259"),
        ([], {}, "no text to train"),
        (TEXTS, {"max_length": 2}, "at least 3, got 2"),
    ],
)
def test_settings_that_cannot_be(texts, settings, said):
    refused(said, Tokenizer.train, texts, **settings)


# Files.


def test_saved_and_loaded_it_is_the_same(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "new" / "folder")
    loaded = Tokenizer.load(tmp_path / "new" / "folder")
    texts = [*TEXTS, TRICKY, "<pad>", " ".join(TEXTS)]
    assert loaded.max_length == 32
    assert loaded.vocab_size == 380
    for got, expected in zip(loaded(texts), tokenizer(texts)):
        assert torch.equal(got, expected)
    assert loaded.words(TEXTS[2]) == tokenizer.words(TEXTS[2])


def test_a_missing_file_says_where_it_should_be(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json is missing; .* model\.safetensors"):
        Tokenizer.load(tmp_path)


def test_a_file_cut_anywhere_is_refused(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    path = tmp_path / "tokenizer.json"
    whole = path.read_bytes().rstrip()
    for length in [0, 1, *range(2, len(whole), len(whole) // 40), len(whole) - 1]:
        path.write_bytes(whole[:length])
        refused(r"tokenizer\.json is no whole tokenizer file", Tokenizer.load, tmp_path)


@pytest.mark.parametrize("content", [b"\x00\xff\xfe", b"hello", b"[]", b"{}", b'{"version": "1.0"}'])
def test_another_file_by_that_name_is_refused(tmp_path, content):
    (tmp_path / "tokenizer.json").write_bytes(content)
    refused("is no whole tokenizer file|not written by mmlearn", Tokenizer.load, tmp_path)


def test_the_tokenizer_of_another_program_is_refused(tokenizer, tmp_path):
    Engine(models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]")).save(str(tmp_path / "tokenizer.json"))
    refused("not written by mmlearn", Tokenizer.load, tmp_path)
    tokenizer.save(tmp_path)
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    (tmp_path / "tokenizer.json").write_text(json.dumps(content | {"truncation": None}))
    refused("not written by mmlearn", Tokenizer.load, tmp_path)


HOSTILE = {
    "a pattern that takes for ever": {"normalizer": {"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": ""}},
    "one that cuts": {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(x|x)*y"}, "behavior": "Isolated"}},
    "a long prefix": {"normalizer": {"type": "Prepend", "prepend": "a" * 10**7}},
    "one that expands": {"normalizer": {"type": "Replace", "pattern": {"String": "e"}, "content": "e" * 10**5}},
    "any of them inside": {
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "a" * 100}]}
    },
    "another program": {"pre_tokenizer": {"type": "UnicodeScripts"}},
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_file_is_refused(tokenizer, tmp_path, what):
    """A run from a stranger, and a published vocabulary from one: neither has run a pattern by then."""
    tokenizer.save(tmp_path)
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | HOSTILE[what]))
    refused("not written by mmlearn", Tokenizer.load, tmp_path)
    special = dict(max_length=9, start_token=1, end_token=2, pad_token=0)
    refused("which mmlearn does not run|into others", lambda: PublishedTokenizer.read(tmp_path, **special))


@pytest.mark.parametrize("settings", [[], {}, {"max_length": True}, {"max_length": -1}, {"x": 1}, "deep"], ids=str)
def test_special_tokens_that_cannot_be(tokenizer, tmp_path, settings):
    tokenizer.save(tmp_path)
    known = dict(max_length=9, start_token=1, end_token=2, pad_token=0)
    content = "[" * 10**5 if settings == "deep" else json.dumps(known | settings if settings else settings)
    (tmp_path / SPECIAL_FILE).write_text(content)
    refused(r"special_tokens\.json (is no whole|should hold a number)", Tokenizer.load, tmp_path)


def test_a_prompt_is_the_text_without_start_and_end(roomy):
    for text in (TEXTS[0], "a"):
        whole = roomy([text])[0][0]
        prompt = roomy.prompt(text)
        assert prompt.tolist() == whole[1 : 1 + len(prompt)].tolist()
        assert whole[1 + len(prompt)] == roomy.end_token


def test_prompts_that_cannot_be(roomy):
    for text in ("", "  \n"):
        refused("The prompt is empty", roomy.prompt, text)
    length = len(roomy.prompt(TEXTS[0]))
    fits, too_short = (Tokenizer.train(TEXTS, vocab_size=380, max_length=length + 2 - cut) for cut in (0, 1))
    assert len(fits.prompt(TEXTS[0])) == length
    refused(f"more than the {length - 1} tokens that this model reads", too_short.prompt, TEXTS[0])
