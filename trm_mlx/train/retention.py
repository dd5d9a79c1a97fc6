"""Which checkpoints of a run stay: the newest and the best."""

import math
from pathlib import Path

from trm_mlx.errors import InputError, shortened
from trm_mlx.models.weights import step_folders, step_of
from trm_mlx.train.checkpoint import STATE_FILE, read_state
from trm_mlx.whole_folder import remove_folder


def prune(run: Path, keep: int, metric: str | None) -> None:
    """Delete a run's checkpoints but for the ``keep`` >= 1 newest and the best by a metric.

    Raises:
        InputError: no checkpoint has the metric, or one cannot be read or deleted.
    """
    steps = [folder for folder in step_folders(run) if (folder / STATE_FILE).exists()]
    kept = set(steps[-keep:])
    if metric is not None:
        kept |= _best(steps, metric)
    for folder in steps:
        if folder not in kept:
            try:
                remove_folder(folder)
            except OSError as error:
                raise InputError(f"cannot delete {folder}: {error.strerror}") from error


def _best(steps: list[Path], metric: str) -> set[Path]:
    """The folder of the best value, the newest of several; empty before the first evaluation."""
    results = {folder: read_state(folder)[1].results for folder in steps}
    evaluated = {folder: found for folder, found in results.items() if found}
    for found in evaluated.values():
        if metric not in found:
            raise InputError(
                f"keep_best={shortened(metric)}: evaluations have {', '.join(sorted(found))}"
            )
    sign = -1 if metric.endswith("loss") else 1
    finite = [(sign * found[metric], folder) for folder, found in evaluated.items()]
    finite = [(value, step_of(folder), folder) for value, folder in finite if math.isfinite(value)]
    return {max(finite)[2]} if finite else set()
