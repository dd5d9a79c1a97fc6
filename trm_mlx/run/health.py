"""The health of a run: it stops at NaN and infinity, and a loss that spikes is noticed."""

import math
import statistics
from collections import deque
from collections.abc import Iterable
from pathlib import Path

from trm_mlx.errors import InputError
from trm_mlx.run.folder import recovery_hint

_WINDOW = 100  # steps whose median a loss is compared with
HISTORY = _WINDOW + 1  # losses that restore a `SpikeWatch`
_SPIKE = 3.0  # times that median


def check_numbers(step: int, metrics: dict[str, float], run: Path) -> None:
    """Raise InputError at a metric that is NaN or infinite; it names the last good checkpoint."""
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise InputError(
                f"step {step}: {name} is {value}, nothing after it is saved; {recovery_hint(run)}, "
                "and set a smaller lr= or grad_clip=1"
            )


class SpikeWatch:
    """Finds the first step of every spike of the loss.

    Args:
        losses: of the steps before, the latest last, so that a resumed run finds the same spikes.
    """

    def __init__(self, losses: Iterable[float] = ()):
        self._recent: deque[float] = deque(maxlen=_WINDOW)
        self._high = False
        for loss in deque(losses, maxlen=HISTORY):
            self.median_exceeded(loss)

    def median_exceeded(self, loss: float) -> float | None:
        """Add the next loss; return the running median if the loss starts a spike above it."""
        median = statistics.median(self._recent) if len(self._recent) == _WINDOW else math.inf
        was_high, self._high = self._high, loss > _SPIKE * median
        self._recent.append(loss)
        return median if self._high and not was_high else None
