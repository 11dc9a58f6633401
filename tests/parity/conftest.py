"""Build a Transformers model at random weights, save it as a published checkpoint, load it here, and compare."""

import pytest
import torch
import transformers

from mmlearn import load_pretrained

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
