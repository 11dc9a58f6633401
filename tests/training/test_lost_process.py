"""A killed process ends the others, and it is said why; then the run goes on."""

import os
import subprocess
import sys
from pathlib import Path

import loses_a_process
import pytest
from testing_tools import free_port

from mmlearn.training.checkpoint import checkpoints

SCRIPT = Path(loses_a_process.__file__)
WORDS = ["train", "vit", "--data", "emoji", "--batch-size", "8", "--checkpoint-every", "2", "--optimizer", "adamw"]
LINE = "mmlearn: Process 0 of 2 lost another one, which was killed or failed; see what that one said, and go on with"


@pytest.fixture
def environment():
    return os.environ | {"PYTHONPATH": f"{SCRIPT.parent}:{os.environ.get('PYTHONPATH', '')}", "OMP_NUM_THREADS": "1"}


def words(folder, steps=5):
    return [*WORDS, "--steps", str(steps), "--output", str(folder)]


def test_without_a_launcher_the_other_says_so_itself(tmp_path, environment):
    """As it is where Slurm starts each process; and the run goes on from its newest checkpoint, by one process."""
    port, started = str(free_port()), []
    for rank in "01":
        position = dict(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE="2", MASTER_ADDR="localhost", MASTER_PORT=port)
        command = [sys.executable, SCRIPT, *words(tmp_path / "run")]
        started.append(subprocess.Popen(command, env=environment | position, stderr=subprocess.PIPE, text=True))
    assert started[1].wait(timeout=200) == -9
    said = started[0].communicate(timeout=60)[1]
    assert started[0].returncode == 1
    assert "Traceback" not in said
    assert said.splitlines()[-1].startswith(LINE)
    (kept,) = checkpoints(tmp_path / "run" / "checkpoints")
    assert kept.name == "step-00000002"
    command = [sys.executable, SCRIPT, *words(tmp_path / "run"), "--resume"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert "was written by 2 processes, and this run has 1" in done.stderr
    assert "Traceback" not in done.stderr


LAUNCHERS = {
    "torchrun": ["torch.distributed.run", "--standalone", "--nproc-per-node", "2"],
    "accelerate launch": [
        *("accelerate.commands.launch", "--multi_gpu", "--num_machines", "1", "--num_processes", "2"),
        *("--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"),
    ],
}


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_launchers_end_the_others_and_name_the_one_that_was_killed(launcher, tmp_path, environment):
    command = [sys.executable, "-m", *LAUNCHERS[launcher], SCRIPT, *words(tmp_path, steps=2000)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 1
    cause = done.stderr.partition("Root Cause")[2]
    assert "rank      : 1" in cause
    assert "Signal 9 (SIGKILL) received by PID" in cause
