"""Chapters that would begin too late for CI are skipped, and those that have begun go on."""

from pathlib import Path
from types import SimpleNamespace

import late
import pytest


def test_a_chapter_that_would_begin_too_late_is_skipped_and_one_that_has_begun_goes_on(monkeypatch):
    monkeypatch.setattr(late, "begun", set())
    one, two = (SimpleNamespace(path=Path(name)) for name in ("01_fusion.ipynb", "02_captioning.ipynb"))
    late.pytest_runtest_setup(one)  # without LATEST none is too late
    monkeypatch.setenv("LATEST", "0")
    late.pytest_runtest_setup(one)
    with pytest.raises(pytest.skip.Exception, match="02_captioning"):
        late.pytest_runtest_setup(two)
    monkeypatch.setenv("LATEST", "1e12")
    late.pytest_runtest_setup(two)
