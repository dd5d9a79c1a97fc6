"""Watches a run's numbers: stops it at NaN and infinity, and notices a loss that jumps."""

import math
import statistics
from collections import deque
from collections.abc import Iterable
from pathlib import Path

from trm_mlx.errors import InputError
from trm_mlx.run.folder import recovery_hint

_WINDOW = 100  # steps whose median a loss is held against
HISTORY = _WINDOW + 1  # losses that tell a `SpikeWatch` all it has to know of the past
_SPIKE = 3.0  # times that median


def check_numbers(step: int, metrics: dict[str, float], run: Path) -> None:
    """Raises InputError at a metric that is no number, which names the last good checkpoint."""
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise InputError(
                f"step {step}: {name} is {value}, nothing after it is saved; {recovery_hint(run)}, "
                "and set a smaller lr= or grad_clip=1"
            )


class SpikeWatch:
    """Tells the first step of every spike of the loss.

    Args:
        losses: of the steps before, the latest last; a resumed run sees the spikes of a whole one.
    """

    def __init__(self, losses: Iterable[float] = ()):
        self._recent: deque[float] = deque(maxlen=_WINDOW)
        self._high = False
        for loss in deque(losses, maxlen=HISTORY):
            self.median_exceeded(loss)

    def median_exceeded(self, loss: float) -> float | None:
        """Take the next loss; the running median, if the loss starts a spike above it."""
        median = statistics.median(self._recent) if len(self._recent) == _WINDOW else math.inf
        was_high, self._high = self._high, loss > _SPIKE * median
        self._recent.append(loss)
        return median if self._high and not was_high else None
