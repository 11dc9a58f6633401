"""What a recipe wants told where a training goes wrong and every loss stays finite."""

import warnings
from collections.abc import Mapping, Sequence

from mmlearn.recipes.recipe import Turn


class Alarms:
    """The alarms of these turns. Called with the losses of each step, it tells each of them at most once."""

    def __init__(self, turns: Sequence[Turn]):
        self.held = {turn.alarm: 0 for turn in turns if turn.alarm}  # for how many steps on end

    def __call__(self, step: int, losses: Mapping[str, float]) -> None:
        for alarm in list(self.held):
            self.held[alarm] = self.held[alarm] + 1 if alarm.holds(losses) else 0
            if self.held[alarm] == alarm.steps:
                now = ", ".join(f"{name} {losses[name]:.3g}" for name in (*alarm.below, *alarm.above))
                warnings.warn(f"step {step}: {alarm.line} ({now}, and so for {alarm.steps} steps)", stacklevel=2)
                del self.held[alarm]
