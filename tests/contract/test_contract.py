"""The contract: every system that has a recipe keeps these promises. No system is named here."""

import pytest

from mmlearn.recipes.discovery import system_files

pytest.register_assert_rewrite("contract")
from contract import PROMISES  # noqa: E402


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.__name__)
@pytest.mark.parametrize("system", system_files())
def test_contract(system, promise, tmp_path):
    promise(system, tmp_path)
