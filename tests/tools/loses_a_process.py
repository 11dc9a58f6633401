"""``mmlearn …`` as one of several processes, of which the second ends by SIGKILL after three steps."""

import os
import signal
from typing import Any

import torch.distributed as dist

from mmlearn import cli
from mmlearn.training import loop

STEP, TAKEN = loop.train_step, []


def step(*arguments: Any) -> dict[str, Any]:
    metrics = STEP(*arguments)
    TAKEN.append(1)
    if dist.is_initialized() and dist.get_rank() == 1 and len(TAKEN) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return metrics


if __name__ == "__main__":
    loop.train_step = step
    cli.main()
