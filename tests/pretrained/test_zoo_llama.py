"""``zoo/llama``: it predicts pages that it never saw as its record says, reads on past its window, and writes."""

import pytest
import torch
import torch.nn.functional as F
from typer.testing import CliRunner

from mmlearn.cli import app
from mmlearn.data.manual import PAGE, python_manual
from mmlearn.data.tokenizer import Tokenizer
from mmlearn.models.text.llama import Llama
from mmlearn.pretrained.zoo import load_zoo


@pytest.fixture(scope="module")
def kept():
    return load_zoo("llama")


def rows_of(length):
    """Texts of the test pages, one character more than ``length`` each."""
    whole = Tokenizer(load_zoo("llama").tokenizer.engine, 2 * PAGE)
    text = torch.cat([whole.prompt(page) for page in python_manual("test")])
    return text[: len(text) // (length + 1) * (length + 1)].view(-1, length + 1)


@torch.no_grad()
def losses(model, rows):
    return F.cross_entropy(model(rows[:, :-1]).token_logits.mT, rows[:, 1:], reduction="none").mean(0)


def test_it_predicts_unseen_pages_as_its_record_says(kept):
    model, _, record = kept
    assert type(model) is Llama
    assert record["licence"] == "PSF-2.0"
    loss = losses(model, rows_of(64)).mean().item()
    assert loss == pytest.approx(record["loss"]["Llama"], abs=0.08)  # a little other where Python is another
    assert record["loss"]["Llama"] < record["loss"]["GPT-2"]


def test_with_its_window_it_reads_four_times_as_far_as_it_was_trained(kept):
    model = kept.model
    assert model.config.window == 64
    found = losses(model, rows_of(256))
    assert found[192:].mean() < found[:64].mean() + 0.1


def test_each_position_sees_only_the_window_before_it(kept):
    """Two layers, so what is more than 2 × 63 characters back cannot matter, and what is less does."""
    model = kept.model
    tokens = rows_of(256)[:2, :-1]
    for back, same in ((127, True), (126, False)):
        changed = tokens.clone()
        changed[:, 255 - back] = (changed[:, 255 - back] + 1) % 100 + 4
        both = [model(each).token_logits[:, 255] for each in (tokens, changed)]
        assert torch.equal(*both) == same


def test_the_command_goes_on_writing():
    said = CliRunner().invoke(app, ["generate", "zoo/llama", "--prompt", "a class is"]).stdout
    assert said.startswith("a class is")
    assert len(said) > 40
