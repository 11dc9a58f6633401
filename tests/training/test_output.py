"""A run's folder is its own: looked at before anything is loaded, and written by one process at a time."""

import fcntl
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mmlearn import train_command
from mmlearn.training import output
from mmlearn.training.distributed import first_process, new_accelerator
from mmlearn.training.output import check_folder, locked
from mmlearn.training.stopping import Stopped


def filled(folder, *names):
    folder.mkdir()
    for name in names:
        (folder / name).write_text("{}")
    return folder


@pytest.mark.parametrize(
    ("names", "resume", "error", "says"),
    [
        ((), True, FileNotFoundError, "holds no run to go on with; start it without --resume"),
        (("model.safetensors",), True, FileNotFoundError, "holds no run to go on with"),
        (("config.json",), False, ValueError, "holds a run already; add --resume"),
        (("model.safetensors",), False, ValueError, "holds a model already; give another folder"),
    ],
)
def test_a_folder_that_does_not_fit_is_refused(tmp_path, names, resume, error, says):
    with pytest.raises(error, match=says):
        check_folder(filled(tmp_path / "run", *names), resume)


@pytest.mark.parametrize(("names", "resume"), [((), False), (("notes.txt",), False), (("config.json",), True)])
def test_others_are_taken(tmp_path, names, resume):
    check_folder(filled(tmp_path / "run", *names), resume)


@pytest.mark.parametrize("name", ["", ".", "/", "//", "/tmp/.."])
def test_a_run_needs_a_folder_of_its_own(name):
    with pytest.raises(ValueError, match="A run needs a folder of its own, such as runs/clip, not"):
        check_folder(Path(name), False)


HOLD = "import sys; from pathlib import Path; from mmlearn.training.output import locked\n"
HOLD += "with locked(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"


def test_one_process_writes_at_a_time(tmp_path):
    """The lock names its process, and a process that is killed leaves none behind, whatever file it leaves."""
    folder = tmp_path / "run"
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout.readline() == "held\n"
    with pytest.raises(ValueError, match=re.escape(f"is being written by process {other.pid}; wait")), locked(folder):
        pass
    other.kill()
    other.wait()
    assert (folder / ".lock").exists()
    with locked(folder):
        assert int((folder / ".lock").read_text()) == os.getpid()
    assert not list(folder.iterdir())


def test_a_lock_that_was_opened_before_its_owner_ended_counts_for_nothing(tmp_path, monkeypatch):
    """Its file is no longer in the folder, where a third run would make another."""
    real = fcntl.flock

    def late(file, how):
        monkeypatch.undo()
        (tmp_path / ".lock").unlink()
        real(file, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with locked(tmp_path):
        with pytest.raises(ValueError, match=f"is being written by process {os.getpid()};"), locked(tmp_path):
            pass
        assert (tmp_path / ".lock").exists()


def test_a_failed_run_opens_its_lock(tmp_path):
    with pytest.raises(ZeroDivisionError), locked(tmp_path):
        raise ZeroDivisionError
    with locked(tmp_path):
        pass


def test_a_run_that_is_refused_removes_nothing_of_the_other(tmp_path, monkeypatch):
    """Which began between the look at the folder and the lock."""
    folder = tmp_path / "run"

    def taken(path):
        filled(path, "config.json")
        raise ValueError("is being written")

    monkeypatch.setattr(output, "locked", taken)
    with pytest.raises(ValueError, match="is being written"), train_command._own_folder(folder, False, True, 1):
        pass
    assert [path.name for path in folder.iterdir()] == ["config.json"]


def test_of_a_run_that_fails_nothing_stays_but_what_was_there(tmp_path):
    folder = tmp_path / "runs" / "clip"
    with pytest.raises(FileExistsError), train_command._own_folder(folder, False, True, 1):
        filled(filled(folder / "checkpoints", "x"))
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("given", "first"),
    [({}, True), ({"RANK": "3"}, True), ({"RANK": "3", "WORLD_SIZE": "1"}, True), ({"WORLD_SIZE": "2"}, True)]
    + [({"RANK": "0", "WORLD_SIZE": "2"}, True), ({"RANK": "1", "WORLD_SIZE": "2"}, False), ({"RANK": ""}, True)],
)
def test_a_rank_counts_among_several(monkeypatch, given, first):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert first_process() is first


def test_what_an_earlier_launch_left_changes_nothing(monkeypatch):
    left = {"RANK": "1", "LOCAL_RANK": "1", "ACCELERATE_MIXED_PRECISION": "bf16", "ACCELERATE_USE_FSDP": "true"}
    left |= {"ACCELERATE_DYNAMO_BACKEND": "INDUCTOR", "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "7"}
    for name, value in left.items():
        monkeypatch.setenv(name, value)
    made = new_accelerator("no", 2)
    assert (made.mixed_precision, made.gradient_accumulation_steps) == ("no", 2)
    assert (made.num_processes, made.process_index, made.distributed_type.value) == (1, 0, "NO")
    assert made.state.dynamo_plugin.backend.value == "NO"
    assert left.items() <= os.environ.items()


def test_of_several_processes_the_first_tells(tmp_path, monkeypatch, capsys):
    """The others wait until they are ended with it, and if they are not, they tell what is their own."""
    waited = []
    monkeypatch.setattr(time, "sleep", waited.append)
    with pytest.raises(ZeroDivisionError), train_command._own_folder(tmp_path / "run", False, False, 1):
        raise ZeroDivisionError
    assert waited == [train_command.PATIENCE]
    for stop, code in ((Stopped(signal.SIGTERM, 3), 143), (KeyboardInterrupt(), 130)):
        with pytest.raises(SystemExit) as ended, train_command._own_folder(tmp_path / "run", False, False, 1):
            raise stop
        assert ended.value.code == code
    assert capsys.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())
