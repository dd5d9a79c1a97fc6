"""The log of a run: a JSONL file always, a progress bar, Weights & Biases if asked."""

import importlib.util
import io
import json
import math
import os
import shutil
import statistics
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path

import mlx.core as mx

from trm_mlx import device
from trm_mlx.config import TrainConfig
from trm_mlx.config_io import to_dict
from trm_mlx.errors import InputError
from trm_mlx.files import atomic_file, is_open_file, open_regular
from trm_mlx.progress import ProgressBar
from trm_mlx.run.folder import recovery_hint

_WINDOW = 100  # steps over which the bar averages, and whose median a loss is compared with
_HISTORY = _WINDOW + 1  # losses that restore a `SpikeWatch`
_SPIKE = 3.0  # times that median
# Seconds: a first step that says enough, what is measured otherwise, a run that is worth a line,
# and one that hardly anybody would wait for.
_LONG_STEP, _MEASURED, _LONG_RUN, _ENDLESS = 60, 10, 3600, 3 * 86_400


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
        for loss in deque(losses, maxlen=_HISTORY):
            self.median_exceeded(loss)

    def median_exceeded(self, loss: float) -> float | None:
        """Add the next loss; return the running median if the loss starts a spike above it."""
        median = statistics.median(self._recent) if len(self._recent) == _WINDOW else math.inf
        was_high, self._high = self._high, loss > _SPIKE * median
        self._recent.append(loss)
        return median if self._high and not was_high else None


class Report:
    """Writes and shows the metrics of every step and evaluation; use as a context manager.

    A resumed run's log is first cut back to ``first_step``, so that it holds each step once, with
    its evaluation if that is done.

    Args:
        silent: write and show nothing, in a process that is not the main one.
        show: a progress bar and lines of results.

    Raises:
        InputError: the log cannot be read or, here and in any method, not be written.
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
        self._silent, self._shows = silent, show and not silent
        self._path = Path(os.devnull) if silent else run / METRICS_FILE
        try:
            losses = () if silent else _cut_back(self._path, first_step, evaluated)
            self._log = self._opened()
        except OSError as error:
            raise self._refused(error) from error
        self._spikes = SpikeWatch(losses)
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
        self._log.close()
        if self._wandb:
            self._wandb.finish()

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
        """Wait until the log is on the disk, written again where it was deleted or moved."""
        if self._silent:
            return
        try:
            if not is_open_file(self._path, self._log.fileno()):
                self._write_again()
            os.fsync(self._log.fileno())
        except OSError as error:
            raise self._refused(error) from error

    def print(self, line: str) -> None:
        """Print a line of text above the progress bar."""
        if self._shows:
            self.bar.write(line, file=sys.stderr)

    def _opened(self) -> io.FileIO:
        # Unbuffered: what is written is in the file, however the process ends.
        return self._path.open("a+b", buffering=0)

    def _write_again(self) -> None:
        self._log.seek(0)  # a deleted file lasts until it is closed
        with atomic_file(self._path) as unfinished, unfinished.open("wb") as copy:
            shutil.copyfileobj(self._log, copy)
        self._log.close()
        self._log = self._opened()

    def _refused(self, error: OSError) -> InputError:
        return InputError(
            f"cannot write {self._path}: {error.strerror}; {recovery_hint(self._path.parent)}"
        )

    def _mean(self, name: str, weight: str | None = None) -> float:
        weights = [m[weight] if weight else 1.0 for m in self._recent]
        values = [m.get(name, 0.0) for m in self._recent]
        return sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)

    def _write(self, step: int, values: dict[str, float]) -> None:
        line = json.dumps({"step": step, **values}).encode() + b"\n"
        try:
            while line:  # a disk that fills up may write a part
                line = line[self._log.write(line) :]
        except OSError as error:
            raise self._refused(error) from error
        if self._wandb:
            self._wandb.log(values, step=step)


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


def _cut_back(path: Path, step: int, evaluated: bool) -> Iterable[float]:
    """Drop the lines of later steps, and an incomplete line that a killed run may have left.

    The evaluation of ``step`` itself is dropped too, unless it is complete. Returns the last losses
    of the log.
    """
    losses: deque[float] = deque(maxlen=_HISTORY)
    if not path.exists():
        return losses
    with atomic_file(path) as unfinished, unfinished.open("w", encoding="utf-8") as kept:
        for text, line in read_log(path):
            trained = any(name.startswith("train/") for name in line)
            if line["step"] < step or (line["step"] == step and (evaluated or trained)):
                kept.write(text)
                losses.extend([line["train/lm_loss"]] if "train/lm_loss" in line else [])
    return losses


def check_wandb(config: TrainConfig) -> None:
    """Raise InputError where the run asks for Weights & Biases without its package."""
    if config.wandb and importlib.util.find_spec("wandb") is None:
        raise InputError("wandb=true needs the wandb package: pip install 'trm-mlx[wandb]'")


def _start_wandb(config: TrainConfig):
    import wandb

    return wandb.init(project=config.project_name, name=config.run_name, config=to_dict(config))


METRICS_FILE = "metrics.jsonl"


def read_log(path: Path) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield every complete line of a log: its text and its numbers by name.

    An incomplete last line, of a run that is writing or was killed, is left out.

    Raises:
        InputError: the log cannot be read, or a line is damaged.
    """
    try:
        with io.TextIOWrapper(open_regular(path), encoding="utf-8") as log:
            for number, text in enumerate(log, start=1):
                if not text.endswith("\n"):
                    return
                yield text, _parsed(path, number, text)
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a log of text: move it away") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; name a run's folder") from error


def _parsed(path: Path, number: int, text: str) -> dict[str, float]:
    try:
        values = {name: float(value) for name, value in json.loads(text).items()}
        return values | {"step": int(values["step"])}
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        ArithmeticError,
        RecursionError,
    ) as error:
        raise InputError(
            f"{path} line {number} is damaged: remove the line, or move the file away"
        ) from error
