"""The contract: every system that has a recipe keeps these promises. No system is named here."""

import pytest

from mmlearn.recipes.discovery import system_files

pytest.register_assert_rewrite("contract")
from contract import PROMISES, keeps  # noqa: E402


def pytest_generate_tests(metafunc):
    """System by system, so that one process builds it once; all systems, or those of ``--systems``."""
    wanted = metafunc.config.getoption("--systems")
    metafunc.parametrize("system", wanted.split(",") if wanted else system_files())
    metafunc.parametrize("promise", PROMISES, ids=lambda promise: promise.__name__)


def test_contract(system, promise, tmp_path):
    keeps(promise, system, tmp_path)
