"""What a run reports of itself: to its log, a progress bar, and Weights & Biases if asked."""

import importlib.util
import math
import statistics
import sys
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path

import mlx.core as mx

from trm_mlx import device
from trm_mlx.config import TrainConfig
from trm_mlx.config_io import to_dict
from trm_mlx.errors import InputError
from trm_mlx.progress import ProgressBar
from trm_mlx.run.folder import recovery_hint
from trm_mlx.run.log import HISTORY, MetricsLog

_WINDOW = HISTORY - 1  # steps over which the bar averages, and whose median a loss is compared with
_SPIKE = 3.0  # times that median
# Seconds: a first step that says enough, what is measured otherwise, a run that is worth a line,
# and one that hardly anybody would wait for.
_LONG_STEP, _MEASURED, _LONG_RUN, _ENDLESS = 60, 10, 3600, 3 * 86_400


class Report:
    """Writes and shows the metrics of every step and evaluation; use as a context manager.

    Args:
        first_step, evaluated: of a resumed run, see `MetricsLog`.
        silent: write and show nothing, in a process that is not the main one.
        show: a progress bar and lines of results.

    Raises:
        InputError: as `MetricsLog`, here and in any method.
    """

    def __init__(
        self,
        run: Path,
        config: TrainConfig,
        first_step: int,
        total_steps: int,
        evaluated: bool,
        silent: bool = False,
        show: bool = True,
    ):
        self._shows = show and not silent
        self._log = None if silent else MetricsLog(run, first_step, evaluated)
        self._spikes = SpikeWatch(self._log.losses if self._log else ())
        self._wandb = _start_wandb(config) if config.wandb and not silent else None
        self._recent: deque[dict[str, float]] = deque(maxlen=_WINDOW)
        self._forecast: Forecast | None = Forecast(first_step, total_steps)
        self.bar = ProgressBar(
            total=total_steps,
            initial=first_step,
            unit="step",
            dynamic_ncols=True,
            mininterval=0.5 if sys.stderr.isatty() else 20,
            disable=not self._shows,
        )

    def __enter__(self) -> "Report":
        return self

    def __exit__(self, *_) -> None:
        self.bar.close()
        if self._log:
            self._log.close()
        if self._wandb:
            self._wandb.finish()

    def finish(self) -> None:
        """End the bar full: where intervals drop puzzles, steps are fewer than counted."""
        self.bar.total = self.bar.n

    def train(self, step: int, metrics: dict[str, float]) -> None:
        """Report one training step: the means of `mean_metrics`."""
        self._write(step, {f"train/{name}": value for name, value in metrics.items()})
        loss = metrics["lm_loss"]
        median = self._spikes.median_exceeded(loss)
        if median is not None:
            self._write(step, {"train/loss_spike": loss, "train/loss_median": median})
            self.print(
                f"step {step}: loss spikes to {loss:.4g}, {loss / median:.1f} times its median"
            )
        self._recent.append(metrics)
        self.bar.update()
        line = self._forecast and self._forecast.after(step, time.monotonic())
        if line is not None:
            self._forecast = None
            if line:
                self.print(line)
        shown = {"loss": f"{self._mean('lm_loss'):.3f}"}
        if any(m["count"] for m in self._recent):
            shown["exact"] = f"{self._mean('exact_accuracy', weight='count'):.3f}"
        shown["memory"] = f"{mx.get_peak_memory() / 2**30:.2f}GiB"
        self.bar.set_postfix(shown, refresh=False)

    def evaluation(self, step: int, results: dict[str, dict[str, float]]) -> None:
        """Report one evaluation: means per set."""
        for set_name, metrics in results.items():
            self._write(step, {f"{set_name}/{name}": value for name, value in metrics.items()})
            self.print(
                f"step {step}: {set_name} exact accuracy {metrics['exact_accuracy']:.4f}, "
                f"accuracy {metrics['accuracy']:.4f} on {metrics['count']:.0f} puzzles"
            )

    def evaluating(self, examples: int) -> ProgressBar:
        """Return a progress bar for one evaluation, shown on a terminal only."""
        hidden = None if self._shows else True  # None: where there is no terminal
        return ProgressBar(
            total=examples, desc="evaluating", unit="puzzle", leave=False, disable=hidden
        )

    def evaluator(self, step: int, name: str, metrics: dict[str, float]) -> None:
        """Report the metrics of a task evaluator."""
        self._write(step, {f"{name}/{metric}": value for metric, value in metrics.items()})
        shown = ", ".join(f"{metric} {value:.4g}" for metric, value in metrics.items())
        self.print(f"step {step}: {name} {shown}")

    def sync(self) -> None:
        """Wait until the log is on the disk; see `MetricsLog`."""
        if self._log:
            self._log.sync()

    def print(self, line: str) -> None:
        """Print a line of text above the progress bar."""
        if self._shows:
            self.bar.write(line, file=sys.stderr)

    def _mean(self, name: str, weight: str | None = None) -> float:
        weights = [m[weight] if weight else 1.0 for m in self._recent]
        values = [m.get(name, 0.0) for m in self._recent]
        return sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)

    def _write(self, step: int, values: dict[str, float]) -> None:
        if self._log:
            self._log.write(step, values)
        if self._wandb:
            self._wandb.log(values, step=step)


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


class Forecast:
    """The time that a run will take, told by its first steps.

    Args:
        first_step, total_steps: of this process, and of the run.
        start: when the first step begins, by ``time.monotonic``; by default now.
    """

    def __init__(self, first_step: int, total_steps: int, start: float | None = None):
        self._step, self._total = first_step, total_steps
        self._since = time.monotonic() if start is None else start
        self._compiled = False

    def after(self, step: int, now: float) -> str | None:
        """Return a line about the rest of the run, "" if that is short; None: too early to say.

        The first step also compiles, and counts only where it alone takes a minute.
        """
        taken, seconds = step - self._step, now - self._since
        if seconds < (_MEASURED if self._compiled else _LONG_STEP):
            if not self._compiled:
                self._step, self._since, self._compiled = step, now, True
            return None
        left = self._total - step
        whole = left * seconds / taken
        if whole < _LONG_RUN:
            return ""
        kind = device.device_kind()
        place = "CPU" if kind == "cpu" else "GPU"
        line = f"{left:,} steps, {_duration(seconds / taken)} each on this {place}: "
        line += _duration(whole)
        if whole < _ENDLESS:
            return line
        return (
            f"{line}; to see the end, use {'a GPU, ' if kind == 'cpu' else ''}a smaller model "
            "(arch.hidden_size=, arch.L_cycles=) or fewer epochs="
        )


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2g} s"


def check_numbers(step: int, metrics: dict[str, float], run: Path) -> None:
    """Raise InputError at a metric that is NaN or infinite; it names the last good checkpoint."""
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise InputError(
                f"step {step}: {name} is {value}, nothing after it is saved; {recovery_hint(run)}, "
                "and set a smaller lr= or grad_clip=1"
            )


def check_wandb(config: TrainConfig) -> None:
    """Raise InputError where the run asks for Weights & Biases without its package."""
    if config.wandb and importlib.util.find_spec("wandb") is None:
        raise InputError("wandb=true needs the wandb package: pip install 'trm-mlx[wandb]'")


def _start_wandb(config: TrainConfig):
    import wandb

    return wandb.init(project=config.project_name, name=config.run_name, config=to_dict(config))
