"""Annotations are checked at run time, every test starts from the same seed, and nothing asks the network."""

import builtins
import os
import shutil

os.environ["HF_HUB_OFFLINE"] = "1"

import jaxtyping
import pytest
import torch

jaxtyping.install_import_hook("mmlearn", "testing_tools.typecheck")  # before anything imports mmlearn
torch.set_num_threads(1)


def pytest_addoption(parser):
    parser.addoption("--systems", default="", help="hold these systems alone to the contract, with commas between them")


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def unchecked():
    """Annotations are not checked, as for a user, so that the library's own errors show."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def without(monkeypatch):
    """A function after which a package of this name is not installed."""

    def take_away(package):
        real = builtins.__import__

        def imported(name, *arguments, **named):
            if name.startswith(package):
                raise ModuleNotFoundError(f"No module named {name!r}")
            return real(name, *arguments, **named)

        monkeypatch.setattr(builtins, "__import__", imported)

    return take_away


@pytest.fixture
def archive_copy(tmp_path, monkeypatch):
    """A copy of the packaged archives that a test may damage."""
    from mmlearn.data.packaged import archives

    shutil.copytree(archives.ARCHIVES, tmp_path / "archives")
    monkeypatch.setattr(archives, "ARCHIVES", tmp_path / "archives")
    return tmp_path / "archives"
