"""Processes that talk, fail, and wait too long."""

import os
import time

import pytest
import torch
import torch.distributed as dist
from testing_tools import refused

from mmlearn.processes import in_processes

FROM_A_NOTEBOOK = """
def work(rank, world, x):
    import torch
    from mmlearn.objectives import gather

    return gather(torch.tensor([x + rank]))
"""


def summed(rank, world, x):
    total = x * (rank + 1)
    dist.all_reduce(total)
    return rank, world, torch.get_num_threads(), total


def environment(rank, world):
    return os.environ["MMLEARN_TEST"]


def one_fails(rank, world, folder):
    """While the other one waits for something else, and would go on if it were not ended."""
    if rank == 0:
        waits(rank, world, folder)
    while not (folder / "number").exists():
        time.sleep(0.02)
    raise KeyError("no such pair")


def waits(rank, world, folder):
    (folder / "unfinished").write_text(str(os.getpid()))
    (folder / "unfinished").rename(folder / "number")
    time.sleep(15)
    (folder / "late").touch()


def assert_ended(folder):
    """The process that waits is no longer there, and was not waited for."""
    with pytest.raises(ProcessLookupError):
        os.kill(int((folder / "number").read_text()), 0)
    assert not (folder / "late").exists()


def test_each_returns_what_it_found():
    found = in_processes(summed, 2, torch.arange(3.0))
    assert [row[:3] for row in found] == [(0, 2, 1), (1, 2, 1)]
    for row in found:
        assert row[3].tolist() == [0, 3, 6]


def test_a_function_of_a_notebook_is_handed_on_by_its_source(monkeypatch, tmp_path):
    (tmp_path / "cell.py").write_text(FROM_A_NOTEBOOK)
    monkeypatch.syspath_prepend(tmp_path)
    import cell

    monkeypatch.setattr(cell.work, "__module__", "__main__")
    assert in_processes(cell.work, 1, 3)[0].tolist() == [3]


def test_the_environment_is_added():
    assert in_processes(environment, 1, environment={"MMLEARN_TEST": "seen"}) == ["seen"]


def test_where_one_fails_all_end(tmp_path):
    with pytest.raises(RuntimeError, match=r"Process 1 of 2 failed: .*KeyError: 'no such pair'"):
        in_processes(one_fails, 2, tmp_path)
    assert_ended(tmp_path)


def test_nobody_waits_for_ever(tmp_path):
    with pytest.raises(RuntimeError, match="After 6 seconds not all of the 1 processes had ended"):
        in_processes(waits, 1, tmp_path, timeout=6)
    assert not (tmp_path / "late").exists()


def test_there_is_at_least_one():
    refused("at least one process, got 0", in_processes, summed, 0)
