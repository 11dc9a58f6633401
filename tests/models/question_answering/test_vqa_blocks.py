"""How questions and pictures are read: an LSTM over real words, cells without neighbours, bad input in one line."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from testing_tools import close, pairs, refused, shaken

from mmlearn.data.fields.texts import Answers
from mmlearn.models.question_answering.vqa_blocks import GridEncoder, QuestionEncoder, VQAConfig
from mmlearn.recipes.discovery import find_recipe

CONFIG = VQAConfig(width=16, word_width=12, vocab_size=512, image_size=64, patch_size=16, dropout=0.0, answers=7)
SYSTEMS = ("lstm-cnn", "san", "memory-network", "aoa")


def build(name):
    torch.manual_seed(0)
    return shaken(find_recipe(name).make(find_recipe(name).config.tiny())).eval()


def asked(b=8):
    return pairs(b) | {"answer": torch.arange(b) % 7}


def test_a_question_is_read_as_by_pytorch_word_by_word():
    reader, batch = QuestionEncoder(CONFIG), pairs()
    states, mask, last = reader(batch["tokens"], batch["mask"])
    for i in range(8):
        x = F.embedding(batch["tokens"][i][batch["mask"][i]], reader.words.weight)[None]
        expected, (end, _) = reader.lstm(x)
        close(last[i], end[0, 0])
        close(states[i, : x.shape[1]], expected[0])
        assert mask[i].sum() == x.shape[1]


def test_gaps_in_a_question_are_passed_over():
    reader, batch = QuestionEncoder(CONFIG), pairs()
    mask = batch["mask"].roll(1, 1)
    _, _, right = reader(batch["tokens"], batch["mask"])
    _, _, moved = reader(batch["tokens"].roll(1, 1), mask)
    rows = ~batch["mask"][:, -1]  # those of which nothing was turned round
    close(right[rows], moved[rows])


@pytest.mark.parametrize("convolutions", [False, True])
def test_cells_see_their_neighbours_only_with_convolutions(convolutions):
    cells = GridEncoder(dataclasses.replace(CONFIG, convolutions=convolutions))
    image = torch.randn(1, 3, 64, 64)
    other = image.clone()
    other[..., 16:32, 16:32] += 1  # cell 5
    changed = (cells(image) != cells(other)).any(-1)[0].nonzero()[:, 0].tolist()
    assert (changed == [5]) != convolutions
    assert 5 in changed
    middle = cells(torch.zeros_like(image))
    assert (cells(image) + cells(-image) - 2 * middle).abs().max() > 0.01  # more than a linear layer


@pytest.mark.parametrize("name", SYSTEMS)
def test_bad_input(name, unchecked):
    system, batch = build(name), asked()
    silent = batch["tokens"].clone()
    silent[2] = torch.tensor([1, 2, *[0] * 10])
    mask = batch["mask"].clone()
    mask[2] = torch.arange(12) < 2
    refused("Question 2 of the batch is empty", system.loss, batch | {"tokens": silent, "mask": mask})
    nothing = batch["mask"] & (torch.arange(8) != 2)[:, None]
    refused("Question 2 of the batch is empty", system.loss, batch | {"mask": nothing})
    refused("Labels are 0 to 6 here.*got 7", system.loss, batch | {"answer": torch.full((8,), 7)})
    refused("needs answer in the batch", system.loss, {k: v for k, v in batch.items() if k != "answer"})
    refused("at least one question", system.loss, {k: v[:0] for k, v in batch.items()})
    refused("no token 999", system.loss, batch | {"tokens": batch["tokens"].masked_fill(batch["tokens"] > 400, 999)})


def test_an_answer_outside_the_list_is_told_by_its_word():
    from mmlearn.data.synthetic.questions import Question

    class Sample:
        question = Question("colour", "what colour is it?", "mauve")

    refused("'mauve' is none of the 2 answers: red, blue", Answers(("red", "blue")), [Sample()])


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_loss_is_the_cross_entropy_of_the_right_answer(name):
    system, batch = build(name), asked()
    logits = system(batch["image"], batch["tokens"], batch["mask"]).answer_logits
    expected = -logits.log_softmax(-1)[torch.arange(8), batch["answer"]].mean()
    close(system.loss(batch)["vqa"], expected)
    half = batch["answer"].clone()
    half[::2] = -100
    rows = logits[1::2].log_softmax(-1)[torch.arange(4), batch["answer"][1::2]]
    close(system.loss(batch | {"answer": half})["vqa"], -rows.mean())
