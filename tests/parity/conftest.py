"""Build a published model at random weights, save it as a published checkpoint, load it here, and compare.

It is Transformers' where Transformers has it (``twins``). Where it has not, it is the arithmetic of the official code,
said again in ``tests/tools/restated.py``, on weights of the released layout (``convert_released``).
"""

import itertools

import pytest
import torch
import transformers

from mmlearn import load_pretrained
from mmlearn.pretrained.convert import convert

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()


@pytest.fixture
def twins(tmp_path):
    """A published model with noise on every parameter, and ours loaded from what it saved."""

    def build(published, **save):
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in published.parameters():
                # Norms and biases start at 1 and 0, where they would prove nothing.
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
        published.eval().save_pretrained(tmp_path / "weights", **save)
        return published, load_pretrained(tmp_path / "weights")

    return build


@pytest.fixture
def assert_same_gradients(tmp_path):
    """Both losses go backward, where they are given: every parameter has the same gradient, to 1e-5.

    The published gradients are saved as if they were weights, and so find their places here by the same table of names.
    """

    def check(published, ours, *losses):
        for loss in losses:
            loss.backward()
        with torch.no_grad():
            for parameter in published.parameters():
                parameter.copy_(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)
        published.save_pretrained(tmp_path / "gradients")
        expected = dict(load_pretrained(tmp_path / "gradients").named_parameters())
        for name, parameter in ours.named_parameters():
            got = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            torch.testing.assert_close(
                got, expected[name], atol=1e-5, rtol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
            )
        assert any(parameter.grad.abs().max() > 1e-4 for parameter in ours.parameters() if parameter.grad is not None)

    return check


@pytest.fixture
def convert_released(tmp_path):
    """Weights under released names, saved as they are released, as our system."""
    numbers = itertools.count()

    def load(weights):
        file = tmp_path / f"released{next(numbers)}.pt"
        torch.save({name: tensor.detach() for name, tensor in weights.items()}, file)
        convert(file, file.with_suffix(""))
        return load_pretrained(file.with_suffix(""))

    return load


@pytest.fixture
def assert_gradients_as_released(convert_released):
    """Every parameter has the gradient that the released one has, to 1e-5, but for those named.

    Released gradients are converted as if they were weights, and so find their places by the same table of names.
    """

    def check(weights, ours, but=()):
        gradients = {name: x if x.grad is None else x.grad for name, x in weights.items()}
        without = {name for name, x in weights.items() if x.requires_grad and x.grad is None}
        gradients |= {name: torch.zeros_like(weights[name]) for name in without}
        expected = dict(convert_released(gradients).named_parameters())
        for name, parameter in ours.named_parameters():
            got = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            if name not in but and parameter.requires_grad:
                torch.testing.assert_close(
                    got, expected[name], atol=1e-5, rtol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
                )
        assert sum(x.grad is not None and x.grad.abs().max() > 1e-4 for x in ours.parameters()) > 20
        return without

    return check
