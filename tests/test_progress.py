"""A chapter's process tells how far its cell is, and its terminal shows it."""

import os
import sys
import time

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from mmlearn import progress
from mmlearn.notebooks import Notebook, run
from mmlearn.progress import VARIABLE, newest_state, shown_while_it_trains, training_bar


def test_the_newest_state_is_the_last_that_was_drawn():
    assert newest_state("") == ""
    assert newest_state("\r 0/9 \r 4/9 loss=0.3") == "4/9 loss=0.3"
    assert newest_state("\r 0/9 \r 9/9 loss=0.1\n") == ""  # done


def test_a_bar_is_drawn_into_the_file_of_who_watches(tmp_path, monkeypatch, capsys):
    path = tmp_path / "progress.txt"
    monkeypatch.setenv(VARIABLE, str(path))
    monkeypatch.setattr(progress, "SECONDS", 0.0)
    with training_bar(total=9, unit="step") as bar:
        bar.set_postfix(loss="0.250", refresh=False)
        bar.update(4)
        bar.refresh()
        assert "4/9" in newest_state(path.read_text())
        assert "loss=0.250" in newest_state(path.read_text())
    assert newest_state(path.read_text()) == ""
    assert capsys.readouterr().err == ""


def test_without_a_watcher_it_is_drawn_here(monkeypatch, capsys):
    monkeypatch.delenv(VARIABLE, raising=False)
    with training_bar(total=2) as bar:
        bar.update(2)
    assert "2/2" in capsys.readouterr().err


def test_what_another_process_draws_is_shown_and_then_gone(tmp_path, monkeypatch, capsys):
    path = tmp_path / "progress.txt"
    monkeypatch.setattr(progress, "SECONDS", 0.01)
    with shown_while_it_trains(path):
        path.write_text("\r  3/9 loss=0.5")
        said = ""
        for _ in range(1000):
            if "3/9 loss=0.5" in said:
                break
            time.sleep(0.01)
            said += capsys.readouterr().err
    assert "3/9 loss=0.5" in said
    assert not path.exists()


KERNEL = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}


@pytest.mark.parametrize(("asked", "terminal"), [(True, True), (True, False), (False, True)])
def test_a_chapter_is_watched_in_a_terminal_where_its_progress_is_asked_for(asked, terminal, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    source = f"""
import os
from mmlearn.chapters import Chapter
chapter = Chapter("00_x", scale=SCALE, seed=SEED)
chapter.result("watched", float("{VARIABLE}" in os.environ))
chapter.finish()
"""
    parameters = new_code_cell("SCALE, SEED = 'laptop', 0", metadata={"tags": ["parameters"]})
    path = tmp_path / "00_x.ipynb"
    path.write_text(
        nbformat.writes(new_notebook(cells=[parameters, new_code_cell(source)], metadata=KERNEL)), encoding="utf-8"
    )
    before = dict(os.environ)
    found = run(Notebook("00", "00_x", "X", 1, path), tmp_path / "out", scale="smoke", progress=asked)
    assert [row["obtained"] for row in found["results"]] == [float(asked and terminal)]
    assert dict(os.environ) == before
