"""One class of several, or a yes or no to each."""

import math

import torch
from testing_tools import close

from mmlearn.objectives import class_cross_entropy


def test_nothing_known_costs_the_logarithm_of_the_choices():
    nothing = torch.zeros(4, 5)
    close(class_cross_entropy(nothing, torch.arange(4)), torch.tensor(math.log(5)))
    close(class_cross_entropy(nothing, torch.eye(5)[:4]), torch.tensor(math.log(2)))


def test_what_is_right_costs_nothing():
    label = torch.arange(4)
    yes = torch.eye(5)[label]
    close(class_cross_entropy(60 * yes, label), torch.tensor(0.0))
    close(class_cross_entropy(60 * (2 * yes - 1), yes), torch.tensor(0.0))
