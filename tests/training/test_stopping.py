"""A training that is asked to stop ends after its step, with a checkpoint, and goes on as if it never had."""

import multiprocessing
import os
import signal
import threading

import killable
import pytest
from testing_tools import fit

from mmlearn.training.checkpoint import checkpoints
from mmlearn.training.stopping import SIGNALS, Stopped, asked_to_stop


@pytest.fixture(autouse=True)
def as_in_a_terminal():
    """Whoever runs the tests in the background has these signals ignored, and so would all that is started there."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    yield
    for number, does in before.items():
        signal.signal(number, does)


def sends(number, at, times=1):
    """An ``on_step`` that signals this process in the middle of step ``at`` + 1."""

    def on_step(step, metrics):
        if step == at:
            for _ in range(times):
                os.kill(os.getpid(), number)

    return on_step


@pytest.mark.usefixtures("unchecked")  # the checker draws from Python's generator
@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("log_every", [1, 3])
def test_the_step_is_finished_and_saved(tmp_path, number, log_every):
    killable.restless(tmp_path / "whole", steps=8, checkpoint_every=100)
    before, options = signal.getsignal(number), dict(steps=8, checkpoint_every=100, log_every=log_every)
    with pytest.raises(Stopped) as stop:
        killable.restless(tmp_path / "run", on_step=sends(number, 2), **options)
    asked = {1: 3, 3: 6}[log_every]  # it is looked for where numbers are fetched: after step 2 comes 3, or 6
    assert (stop.value.number, stop.value.step) == (number, asked)
    assert [path.name for path in checkpoints(tmp_path / "run" / "checkpoints")] == [f"step-{asked:08d}"]
    assert signal.getsignal(number) == before
    killable.restless(tmp_path / "run", **options)
    whole, run = (killable.sha256(tmp_path / name / "model.safetensors") for name in ("whole", "run"))
    assert run == whole


def test_asked_again_it_stops_at_once(tmp_path):
    with pytest.raises(KeyboardInterrupt) as stop:
        killable.restless(tmp_path, steps=8, checkpoint_every=100, on_step=sends(signal.SIGINT, 2, times=2))
    assert not isinstance(stop.value, Stopped)
    assert checkpoints(tmp_path / "checkpoints") == []


def test_without_a_folder_it_stops_as_well():
    with pytest.raises(Stopped, match="SIGINT stopped the training after step 3"):
        fit(
            killable.Restless(), killable.Numbers(), killable.collate, steps=9, batch_size=4, warmup=0,
            on_step=sends(signal.SIGINT, 2), progress=False,
        )  # fmt: skip


def test_the_last_step_is_the_end(tmp_path):
    """There is nothing left to stop, and the model is written."""
    killable.restless(tmp_path, steps=3, on_step=sends(signal.SIGTERM, 3))
    assert (tmp_path / "model.safetensors").exists()


def test_what_was_ignored_stays_ignored(monkeypatch):
    """As under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with asked_to_stop() as asked:
            os.kill(os.getpid(), signal.SIGHUP)
            assert asked() == 0
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_other_threads_change_nothing():
    """Python gives signals to the main thread alone, and lets no other set what they do."""
    before, seen = signal.getsignal(signal.SIGINT), []

    def work():
        with asked_to_stop() as asked:
            seen.append((asked(), signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(0, before)]


class Killing(killable.Numbers):
    """Its sample 7 takes the process along that reads it; or all of them get a Ctrl-C, as from a terminal."""

    def __init__(self, number):
        super().__init__()
        self.number, self.main, self.left = number, os.getpid(), multiprocessing.Value("i", 1)

    def __getitem__(self, index):
        if index == 7 and os.getpid() != self.main and self.left.value:
            self.left.value = 0
            if self.number == signal.SIGINT:
                os.kill(self.main, self.number)
            os.kill(os.getpid(), self.number)
        return super().__getitem__(index)


def with_workers(number, **options):
    fit(
        killable.Restless(), Killing(number), killable.collate, steps=40, batch_size=4, warmup=0, workers=2,
        progress=False, **options,
    )  # fmt: skip


def test_a_killed_worker_is_told_in_one_line():
    with pytest.raises(ChildProcessError, match=r"^One of the 2 processes .* resume"):
        with_workers(signal.SIGKILL)


def test_ctrl_c_with_workers_saves(tmp_path):
    """The signal reaches every process of the terminal."""
    with pytest.raises(Stopped) as stop:
        with_workers(signal.SIGINT, output=tmp_path)
    assert [path.name for path in checkpoints(tmp_path / "checkpoints")] == [f"step-{stop.value.step:08d}"]
