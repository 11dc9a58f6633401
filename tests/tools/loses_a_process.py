"""``mmlearn …`` as one of several processes, of which the second ends by SIGKILL after three steps."""

import os
import signal
from typing import Any

from mmlearn import cli
from mmlearn.training import loop

AFTER = loop._after_step


def after(state: dict[str, Any], step: int) -> None:
    AFTER(state, step)
    if state["rank"] == 1 and step == 3:
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    loop._after_step = after
    cli.main()
