"""LSTM + CNN: its question and its product, against plain tensors; sizes and dropout of the official code."""

import dataclasses

import pytest
import torch
from testing_tools import close, pairs, refused, shaken
from torch import nn

from mmlearn.models import LSTMCNN
from mmlearn.models.question_answering.lstm_cnn import LSTMCNNConfig

TINY = LSTMCNNConfig.tiny()


def question_by_pytorch(encoder, words):
    """Of one question, whose words are embedded through a tanh: cells and outputs of both LSTMs."""
    lstm = nn.LSTM(words.shape[-1], encoder.width, num_layers=len(encoder.layers), batch_first=True)
    cells = list(enumerate(encoder.layers))
    lstm.load_state_dict({f"{name}_l{i}": weight for i, cell in cells for name, weight in cell.named_parameters()})
    _, (h, c) = lstm(torch.tanh(words)[None])
    return torch.cat([part[i, 0] for i in range(len(encoder.layers)) for part in (c, h)])


@pytest.mark.parametrize("normalise", [False, True])
def test_against_its_equation(normalise):
    system, batch = shaken(LSTMCNN(dataclasses.replace(TINY, normalise=normalise))).eval(), pairs()
    output = system(batch["image"], batch["tokens"], batch["mask"])
    features = system.image_encoder(batch["image"]).reshape(8, -1)
    if normalise:
        features = features / features.norm(dim=1, keepdim=True)
    image = torch.tanh(features @ system.image_projection.weight.T + system.image_projection.bias)
    encoder = system.question_encoder
    read = [encoder.words(tokens[real]) for tokens, real in zip(batch["tokens"], batch["mask"])]
    states = torch.stack([question_by_pytorch(encoder, words) for words in read])
    question = torch.tanh(states @ system.question_projection.weight.T + system.question_projection.bias)
    close(output.answer_logits, (image * question) @ system.answer_head.weight.T + system.answer_head.bias)
    close(output.image_embedding, image)
    close(output.question_embedding, question)


def test_sizes_are_those_of_the_official_code():
    """``train.lua``: 200 features of a word, two LSTMs of 512 whose cells and outputs count, 1,024 of the product."""
    with torch.device("meta"):
        system = LSTMCNN(LSTMCNNConfig())
    encoder = system.question_encoder
    assert [cell.weight_ih.shape for cell in encoder.layers] == [(4 * 512, 200), (4 * 512, 512)]
    assert system.question_projection.weight.shape == (1024, 2 * 2 * 512)
    assert system.image_projection.weight.shape[0] == 1024
    assert system.answer_head.weight.shape == (1000, 1024)
    assert system.image_encoder.grid == (7, 7)


def test_dropout_is_where_the_official_code_has_it():
    """Before the tanh of a word, between LSTMs, and before each of the three layers that make the answer."""
    torch.manual_seed(0)
    system, batch = LSTMCNN(dataclasses.replace(TINY, dropout=0.5)).train(), pairs()
    names = ("question_encoder.layers.0", "question_encoder.layers.1")
    names += ("image_projection", "question_projection", "answer_head")
    seen = {name: [] for name in names}  # what each part reads
    for name in names:
        system.get_submodule(name).register_forward_pre_hook(lambda part, x, name=name: seen[name].append(x[0]))
    system(batch["image"], batch["tokens"], batch["mask"])
    for name, (x, *_) in seen.items():
        assert 0.3 < (x == 0).float().mean() < 0.7, name
    words = system.question_encoder.words(batch["tokens"][:, 0])
    first = seen["question_encoder.layers.0"][0]
    close(first[first != 0], torch.tanh(2 * words)[first != 0])


def test_a_image_of_another_size_is_refused(unchecked):
    system, batch = LSTMCNN(TINY), pairs()
    for height, width in ((48, 48), (32, 128)):  # of the second there are as many cells
        image = torch.randn(8, 3, height, width)
        refused("pictures of 64 pixels a side", system, image, batch["tokens"], batch["mask"])
