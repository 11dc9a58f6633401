"""A loss curve that grows while a notebook trains."""

from typing import Any

from mmlearn.visualization.figures import loss_curve


class LiveCurve:
    """Pass as ``on_step`` to ``fit``: redraws one display in place every ``every`` steps.

    ``chance`` is drawn as a line, what a model pays that ``knows`` no more; outside a notebook it does nothing.
    """

    def __init__(self, *, every: int = 50, chance: float | None = None, knows: str = "nothing"):
        self.every, self.chance, self.knows = every, chance, knows
        self.history: list[dict[str, float]] = []
        self.handle: Any = None

    def __call__(self, step: int, metrics: dict[str, float]) -> None:
        self.history.append(metrics)
        if step % self.every == 0:
            self.draw()

    def draw(self) -> None:
        """Draw what there is so far."""
        from IPython import get_ipython
        from IPython.display import display

        if get_ipython() is None:
            return
        figure = loss_curve(self.history, chance=self.chance, knows=self.knows)
        if self.handle is None:
            self.handle = display(figure, display_id=True)
        else:
            self.handle.update(figure)
