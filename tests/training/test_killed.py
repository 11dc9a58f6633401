"""A run killed at any moment and resumed ends with the same weights, bit for bit, as one that was never stopped."""

import multiprocessing
import os
import random
import shutil
import signal
import time
from pathlib import Path

import killable
import pytest

from mmlearn.training import checkpoint
from mmlearn.training.checkpoint import checkpoints


@pytest.fixture(scope="module")
def processes():
    """Starts processes that have everything imported already."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WARM_UP", "1")
        patch.setenv("PYTHONPATH", str(Path(killable.__file__).parent), prepend=os.pathsep)
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["killable"])
        yield lambda work, *arguments: _started(context.Process(target=work, args=arguments))


def _started(process):
    process.start()
    return process


def steps_in(folder):
    path = folder / "metrics.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.fixture(scope="module")
def whole(processes, tmp_path_factory):
    """A run that was never stopped."""
    folder = tmp_path_factory.mktemp("whole")
    process = processes(killable.clip, folder)
    process.join()
    assert process.exitcode == 0
    return folder


def finish(processes, folder, whole):
    """Resume, and compare with the run that was never stopped."""
    process = processes(killable.clip, folder)
    process.join()
    assert process.exitcode == 0
    assert killable.sha256(folder / "model.safetensors") == killable.sha256(whole / "model.safetensors")
    assert (folder / "metrics.jsonl").read_text() == (whole / "metrics.jsonl").read_text()
    assert not list(folder.rglob(".*"))


@pytest.mark.parametrize("seed", range(2))
def test_killed_at_random_moments(processes, whole, tmp_path, seed):
    """CLIP on scenes, three kills a run, each a random time after a random number of further steps."""
    moments, kills = random.Random(seed), 0
    for _ in range(3):
        process = processes(killable.clip, tmp_path)
        saved = checkpoints(tmp_path / "checkpoints")
        target = (int(saved[0].name[5:]) if saved else 0) + moments.randint(1, 4)
        while steps_in(tmp_path) != target and process.is_alive():
            time.sleep(0.001)
        time.sleep(moments.random() * 0.02)
        process.kill()
        process.join()
        kills += process.exitcode == -signal.SIGKILL
    assert kills >= 2  # a run may be over before its last kill
    finish(processes, tmp_path, whole)


@pytest.mark.parametrize("last", [1, 5, 9, 13])
def test_killed_while_saving(processes, whole, tmp_path, last):
    """A checkpoint is three files: the kill is in the first of the first, the second of the second, and so on."""
    process = processes(killable.killed_while_saving, tmp_path, last)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert len(checkpoints(tmp_path / "checkpoints")) == min((last - 1) // 3, 2)
    assert list(tmp_path.rglob(".writing-*"))
    finish(processes, tmp_path, whole)


class Watch:
    """Keeps a copy of a folder as it is in the middle of each operation on its files, which goes on undisturbed.

    For the files a process that is killed there leaves the same.
    """

    def __init__(self, monkeypatch, folder, copies):
        self.monkeypatch, self.folder, self.copies, self.count = monkeypatch, folder, copies, 0
        write = Path.write_text
        self.wrap(checkpoint, "_write", lambda path, tensors: path.write_bytes(b"\x10\0\0\0"))
        self.wrap(Path, "write_text", lambda path, text: write(path, text[: len(text) // 2]))
        self.wrap(checkpoint, "_sync", lambda path: None)
        self.wrap(os, "replace", lambda source, target: None)
        self.wrap(shutil, "rmtree", lambda path, **_: [file.unlink() for file in sorted(path.glob("*"))[:1]])

    def wrap(self, owner, name, half):
        real = getattr(owner, name)

        def operation(*arguments, **options):
            self.count += 1
            copy = Path(shutil.copytree(self.folder, self.copies / str(self.count)))
            half(*(copy / a.relative_to(self.folder) if isinstance(a, Path) else a for a in arguments), **options)
            return real(*arguments, **options)

        self.monkeypatch.setattr(owner, name, operation)


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.usefixtures("unchecked")  # the checker draws from Python's generator
def test_killed_in_every_operation_on_files(tmp_path):
    """Each write (half done), sync, rename and removal of a run with three checkpoints is the last one of some run."""
    folder, copies = tmp_path / "run", tmp_path / "copies"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        watch = Watch(patch, folder, copies)
        killable.restless(folder)
    assert watch.count >= 40
    finished, seen = contents(folder), set()
    for number in range(1, watch.count + 1):
        copy = copies / str(number)
        seen.add(tuple(path.name for path in checkpoints(copy / "checkpoints")))
        killable.restless(copy)
        assert contents(copy) == finished, number
    one, two, three = (f"step-{step:08d}" for step in (1, 2, 3))
    assert seen == {(), (one,), (two, one), (three, two, one), (three, two)}
