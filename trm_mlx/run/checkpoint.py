"""Checkpoints of a training run on disk: everything needed to continue it bit for bit.

    RUN/all_config.yaml           the run's configuration
    RUN/metrics.jsonl             one line per step and evaluation
    RUN/step_0006510/             config.json, model.safetensors, ema.safetensors,
                                  optimizer.safetensors, carry.safetensors, state.json,
                                  identifiers.json where the data name their puzzles,
                                  carry_14.safetensors of each smaller canvas, and
                                  evaluators_000007.safetensors where those keep votes

A step folder is renamed to its name once it is complete (see ``atomic_folder``), and its arrays are
finite. Without optimizer, carry and state it is a model alone (see ``models.checkpoint_files``).
``resume`` reads them back into a run.
"""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten, tree_map

from trm_mlx.config import ModelConfig, TrainConfig
from trm_mlx.config_io import to_dict, train_config
from trm_mlx.data.format import IDENTIFIERS_FILE
from trm_mlx.errors import InputError, refusal
from trm_mlx.files import atomic_file, atomic_folder, remove_folder, sha256
from trm_mlx.models.act import Carry
from trm_mlx.models.checkpoint_files import (
    STATE_FILE,
    SUMS,
    find_checkpoint,
    read_json,
    save_arrays,
    save_model,
    step_folders,
    step_of,
)
from trm_mlx.run.folder import recovery_hint
from trm_mlx.train.step import TrainState

OPTIMIZER_FILE, CARRY_FILE = "optimizer.safetensors", "carry.safetensors"


@dataclass
class Progress:
    """How far a run has come.

    ``interval`` counts those that are trained and evaluated; ``position`` is where the next
    training batch starts; ``results`` are those of this step's evaluation, if it had one;
    ``visits`` counts the puzzles that have halted.
    """

    step: int = 0
    interval: int = 0
    position: dict[str, int] | None = None
    results: dict[str, float] = dataclasses.field(default_factory=dict)
    visits: int = 0


def save_checkpoint(
    run: Path,
    state: TrainState,
    carries: Mapping[int, Carry],
    progress: Progress,
    evaluators: Mapping[str, dict[str, np.ndarray]] = MappingProxyType({}),
    names: Sequence[str] | None = None,
) -> Path:
    """Write ``run/step_NNNNNNN`` and return it.

    Args:
        carries: by the cells of their boards.
        evaluators: the `state` of evaluators that have one, by their names.
        names: of the puzzle identifiers, which are the rows of the puzzle table; None: not known.

    Raises:
        InputError: the folder cannot be written, and nothing half-written keeps its final name; or
            the state holds NaN or infinity, which no run could continue from.
    """
    final = run / f"step_{progress.step:07d}"
    _check_finite(state, carries, final)
    values = {
        **dataclasses.asdict(progress),
        "versions": {"mlx": mx.__version__},
        "train_config": to_dict(state.config),
    }
    own_file = evaluators_file(progress)
    try:
        if final.exists():  # stopped before its evaluation, which changes no array of the model
            sums = read_json(final / STATE_FILE).get(SUMS, {})
            sums = {name: value for name, value in sums.items() if (final / name).exists()}
            if evaluators:
                with atomic_file(final / own_file) as unfinished:
                    save_arrays(unfinished, _arrays_of(evaluators))
                sums[own_file] = sha256(final / own_file)
            with atomic_file(final / STATE_FILE) as unfinished:
                _write_state(unfinished, values, sums)
            for path in final.glob("evaluators_*"):
                if path.name != own_file:  # of the state before
                    path.unlink()
            return final
        with atomic_folder(final) as finished:
            save_model(finished, state.model, average=state.average)
            save_arrays(finished / OPTIMIZER_FILE, state.optimizer.state)
            for cells, carry in carries.items():
                save_arrays(finished / carry_file(cells, state.model.config), carry._asdict())
            if evaluators:
                save_arrays(finished / own_file, _arrays_of(evaluators))
            if names is not None:  # a hundredth of the table's size
                (finished / IDENTIFIERS_FILE).write_text(json.dumps(names), encoding="utf-8")
            sums = {path.name: sha256(path) for path in sorted(finished.iterdir())}
            _write_state(finished / STATE_FILE, values, sums)
    except OSError as error:
        raise InputError(f"cannot write {final}: {refusal(error)}; {recovery_hint(run)}") from error
    return final


def _write_state(path: Path, values: dict, sums: dict[str, str]) -> None:
    path.write_text(json.dumps(values | {SUMS: sums}, indent=2) + "\n", encoding="utf-8")


def carry_file(cells: int, config: ModelConfig) -> str:
    """Return the file of the carry of boards of ``cells``: ``carry_14.safetensors`` is of 14x14."""
    if cells == config.seq_len:
        return CARRY_FILE
    return f"carry_{math.isqrt(cells)}.safetensors"


def evaluators_file(progress: Progress) -> str:
    """Return the file for evaluators' arrays, named after the ``state.json`` it belongs to."""
    return f"evaluators_{progress.interval:06d}.safetensors"


def _arrays_of(evaluators: Mapping[str, dict[str, np.ndarray]]) -> dict:
    return tree_map(mx.array, dict(evaluators))


def _check_finite(state: TrainState, carries: Mapping[int, Carry], final: Path) -> None:
    trees = [state.model.parameters(), state.optimizer.state, state.average]
    trees += [carry._asdict() for carry in carries.values()]
    arrays = [pair for tree in trees for pair in tree_flatten(tree)]
    finite = mx.stack([mx.isfinite(array).all() for _, array in arrays]).tolist()
    for (name, _), good in zip(arrays, finite, strict=True):
        if not good:
            raise InputError(
                f"{final} is not saved, {name} holds NaN or infinity; "
                f"{recovery_hint(final.parent)}, and set a smaller lr= or grad_clip=1"
            )


class SavedState(NamedTuple):
    """A checkpoint's folder, its progress, and its run's configuration as plain values."""

    folder: Path
    progress: Progress
    config: dict


def read_state(folder: str | Path) -> SavedState:
    """Find the newest checkpoint of a run (or the one named) and read its ``state.json``.

    Raises:
        InputError: there is none, or it is a model without training state.
    """
    folder = find_checkpoint(folder)
    path = folder / STATE_FILE
    if not path.exists():
        raise InputError(
            f"{folder} holds a model but no training state: start from it with "
            f"load_checkpoint={folder} instead of resume="
        )
    try:
        state = read_json(path)
    except InputError as error:
        raise InputError(f"{error}; or resume from an earlier step") from error
    try:
        position = state["position"]
        if position is not None:
            position = {name: int(value) for name, value in position.items()}
        results = {name: float(value) for name, value in state.get("results", {}).items()}
        visits = int(state.get("visits", 0))  # absent from older checkpoints
        progress = Progress(int(state["step"]), int(state["interval"]), position, results, visits)
        return SavedState(folder, progress, dict(state["train_config"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is damaged ({error}): resume from an earlier step") from error


def config_of_run(folder: str | Path) -> TrainConfig | None:
    """Return the configuration of the run that a checkpoint is of; None for a model alone.

    Raises:
        InputError: as `read_state`.
    """
    folder = find_checkpoint(folder)
    return train_config(read_state(folder).config) if (folder / STATE_FILE).exists() else None


def prune(run: Path, keep: int, metric: str | None) -> list[str]:
    """Delete a run's checkpoints but for the ``keep`` >= 1 newest and the best by a metric.

    Returns:
        A line for each that could not be deleted.

    Raises:
        InputError: no checkpoint has the metric, or one cannot be read.
    """
    steps = [folder for folder in step_folders(run) if (folder / STATE_FILE).exists()]
    kept = set(steps[-keep:])
    if metric is not None:
        kept |= _best(steps, metric)
    warnings = []
    for folder in steps:
        if folder not in kept:
            try:
                remove_folder(folder)
            except OSError as error:
                warnings.append(f"cannot delete {folder}: {error.strerror}")
    return warnings


def _best(steps: list[Path], metric: str) -> set[Path]:
    """The folder of the best value, the newest of several; empty before the first evaluation."""
    results = {folder: read_state(folder).progress.results for folder in steps}
    evaluated = {folder: found for folder, found in results.items() if found}
    for found in evaluated.values():
        if metric not in found:
            raise InputError(f"keep_best={metric}: evaluations have {', '.join(sorted(found))}")
    sign = -1 if metric.endswith("loss") else 1
    finite = [(sign * found[metric], folder) for folder, found in evaluated.items()]
    finite = [(value, step_of(folder), folder) for value, folder in finite if math.isfinite(value)]
    return {max(finite)[2]} if finite else set()
