"""LSTM + CNN: two vectors and their product, against plain tensors."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from testing_tools import close, pairs, refused, shaken

from mmlearn.models import LSTMCNN
from mmlearn.models.question_answering.lstm_cnn import LSTMCNNConfig

TINY = LSTMCNNConfig.tiny()


@pytest.mark.parametrize("normalise", [False, True])
def test_against_its_equation(normalise):
    system, batch = shaken(LSTMCNN(dataclasses.replace(TINY, normalise=normalise))).eval(), pairs()
    output = system(batch["image"], batch["tokens"], batch["mask"])
    features = system.image_encoder(batch["image"]).reshape(8, -1)
    if normalise:
        features = features / features.norm(dim=1, keepdim=True)
    image = torch.tanh(features @ system.image_projection.weight.T + system.image_projection.bias)
    ends = system.question_encoder(batch["tokens"], batch["mask"])[2]
    question = torch.tanh(
        torch.cat([ends[:, 0], ends[:, 1]], 1) @ system.question_projection.weight.T + system.question_projection.bias
    )
    x = image * question
    first, _, _, second, _, _, last = system.classifier
    for layer in (first, second):
        x = torch.tanh(F.linear(x, layer.weight, layer.bias))
    close(output.answer_logits, F.linear(x, last.weight, last.bias))
    close(output.image_embedding, image)
    close(output.question_embedding, question)


def test_a_image_of_another_size_is_refused(unchecked):
    system, batch = LSTMCNN(TINY), pairs()
    for height, width in ((48, 48), (32, 128)):  # of the second there are as many cells
        image = torch.randn(8, 3, height, width)
        refused("pictures of 64 pixels a side", system, image, batch["tokens"], batch["mask"])
