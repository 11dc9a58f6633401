"""Annotations are checked at run time, every test starts from the same seed, and nothing asks the network."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"

import jaxtyping
import pytest
import torch

jaxtyping.install_import_hook("mmlearn", "testing_tools.typecheck")  # before anything imports mmlearn
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def unchecked():
    """Annotations are not checked, as for a user, so that the library's own errors show."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
