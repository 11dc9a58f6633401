"""Build a published model at random weights, save it as a published checkpoint, load it here, and compare.

It is Transformers' where Transformers has it (``twins``). Where it has not, it is the arithmetic of the official code,
said again in ``tests/tools/restated.py``, on weights of the released layout (``convert_released``).
"""

import itertools

import pytest
import torch
import transformers
from released import WORDS, faint, released
from restated import images_with_texts, learning
from testing_tools import assert_gradients, close

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

    The published gradients are saved as if they were weights, and so find their positions here by the same table of
    names.
    """

    def check(published, ours, *losses):
        for loss in losses:
            loss.backward()
        with torch.no_grad():
            for parameter in published.parameters():
                parameter.copy_(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)
        published.save_pretrained(tmp_path / "gradients")
        expected = dict(load_pretrained(tmp_path / "gradients").named_parameters())
        assert_gradients(ours, expected)
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

    Released gradients are converted as if they were weights, and so find their positions by the same table of names.
    """

    def check(weights, ours, but=()):
        gradients = {name: x if x.grad is None else x.grad for name, x in weights.items()}
        without = {name for name, x in weights.items() if x.requires_grad and x.grad is None}
        gradients |= {name: torch.zeros_like(weights[name]) for name in without}
        expected = dict(convert_released(gradients).named_parameters())
        frozen = [name for name, parameter in ours.named_parameters() if not parameter.requires_grad]
        assert_gradients(ours, expected, (*but, *frozen))
        assert sum(x.grad is not None and x.grad.abs().max() > 1e-4 for x in ours.parameters()) > 20
        return without

    return check


@pytest.fixture
def assert_written_alike(twins, assert_same_gradients):
    """States, logits, the loss and gradients of a model that writes texts from texts. Returns ours."""

    def check(published, padded, tokens, target, mask, target_mask):
        if not padded:
            mask, target_mask = torch.ones_like(mask), torch.ones_like(target_mask)
        published, ours = twins(published)
        label = target.masked_fill(~target_mask, -100)
        expected = published(input_ids=tokens, attention_mask=mask.long(), labels=label)
        output = ours(tokens, target, mask)
        close(output.tokens[mask], expected.encoder_last_hidden_state[mask])
        close(output.token_logits[target_mask], expected.logits[target_mask])
        batch = dict(tokens=tokens, target=target)
        (loss,) = ours.loss(batch | dict(mask=mask, target_mask=target_mask) if padded else batch).values()
        close(loss, expected.loss)
        assert_same_gradients(published, ours, loss, expected.loss)
        return ours

    return check


@pytest.fixture
def released_pair(convert_released):
    """Released weights, our system of them, and a batch; the weights of ``small`` parts are a hundredth."""

    def build(shapes, sizes, classes, *small):
        torch.manual_seed(0)
        weights = {name.removeprefix("module."): x for name, x in released(shapes).items()}
        weights = learning(faint(weights, *small))
        return (
            weights,
            convert_released(weights),
            images_with_texts(*sizes, words=WORDS, features=20, classes=classes),
        )

    return build
