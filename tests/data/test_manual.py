"""Python's manual as pages."""

from itertools import combinations
from pydoc_data.topics import topics

import pytest

from mmlearn.data.manual import PAGE, python_manual

SPLITS = ("train", "val", "test")


def test_a_tenth_of_the_pages_is_for_validation_and_a_tenth_for_the_test():
    counts = {split: len(python_manual(split)) for split in SPLITS}
    assert min(counts.values()) >= 6
    assert 7.5 <= counts["train"] / counts["test"] <= 9
    assert abs(counts["val"] - counts["test"]) <= 1
    assert all(len(page) == PAGE for split in SPLITS for page in python_manual(split))


def test_no_paragraph_is_in_two_splits():
    def paragraphs(split):
        return {" ".join(text.split()) for page in python_manual(split) for text in page.split("\n\n")[1:-1] if text}

    assert min(len(paragraphs(split)) for split in SPLITS) > 100
    assert all(not paragraphs(one) & paragraphs(other) for one, other in combinations(SPLITS, 2))
    everything = [" ".join(text.split()) for text in topics.values()]
    assert all(any(paragraph in text for text in everything) for paragraph in sorted(paragraphs("test"))[:50])


def test_an_unknown_split_is_refused_with_a_suggestion():
    with pytest.raises(ValueError, match="test"):
        python_manual("tests")
