"""Points of a training run on disk: everything needed to continue it bit for bit.

    RUN/all_config.yaml           the run's configuration
    RUN/metrics.jsonl             one line per step and evaluation
    RUN/step_0006510/             config.json, model.safetensors, ema.safetensors,
                                  optimizer.safetensors, carry.safetensors, state.json

A step folder is written under a temporary name, synced, and renamed, so one that has its final
name is whole. Without the last three files it is a model alone (see ``models.weights``).
"""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
from mlx.utils import tree_map, tree_unflatten

from trm_mlx.errors import InputError
from trm_mlx.models.act import Carry
from trm_mlx.models.weights import (
    EMA_FILE,
    MODEL_FILE,
    assign_weights,
    find_checkpoint,
    read_config,
    read_weights,
    save_arrays,
    save_model,
)
from trm_mlx.options import plain
from trm_mlx.train.step import Training

OPTIMIZER_FILE, CARRY_FILE, STATE_FILE = "optimizer.safetensors", "carry.safetensors", "state.json"


@dataclass
class Progress:
    """How far a run has come. ``position`` is where the next training batch starts."""

    step: int = 0
    interval: int = 0
    position: dict[str, int] | None = None


def save_checkpoint(run: Path, training: Training, carry: Carry, progress: Progress) -> Path:
    """Write ``run/step_NNNNNNN`` and return it.

    Raises:
        InputError: the folder cannot be written; nothing half-written keeps its final name.
    """
    final = run / f"step_{progress.step:07d}"
    partial = run / f".{final.name}.partial"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        save_model(partial, training.model)
        if training.average:
            save_arrays(partial / EMA_FILE, training.average)
        save_arrays(partial / OPTIMIZER_FILE, training.optimizer.state)
        save_arrays(partial / CARRY_FILE, carry._asdict())
        state = {
            "step": progress.step,
            "interval": progress.interval,
            "position": progress.position,
            "versions": {"mlx": mx.__version__},
            "train_config": plain(training.config),
        }
        (partial / STATE_FILE).write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")
        for path in [*partial.iterdir(), partial]:
            _sync(path)
        if final.exists():
            shutil.rmtree(final)
        partial.rename(final)
        _sync(run)
    except (OSError, RuntimeError) as error:
        raise InputError(f"cannot write {final}: {error}") from error
    return final


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_state(folder: str | Path) -> tuple[Path, Progress, dict]:
    """Find the newest checkpoint of a run (or the one named) and read its ``state.json``.

    Returns:
        The checkpoint folder, the progress it stands for, and the run's plain configuration.

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
        state = json.loads(path.read_text(encoding="utf-8"))
        position = state["position"] and dict(state["position"])
        progress = Progress(int(state["step"]), int(state["interval"]), position)
        return folder, progress, dict(state["train_config"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged ({error}): resume from an earlier step") from error


def restore(folder: Path, training: Training) -> Carry:
    """Put a checkpoint's model, optimizer and average into ``training``; return its carry.

    Must come before the first training step, which captures these arrays.
    """
    model = training.model
    assign_weights(model, read_weights(folder / MODEL_FILE), str(folder))
    training.optimizer.state = tree_unflatten(read_weights(folder / OPTIMIZER_FILE))
    training.optimizer.init(model.trainable_parameters())
    if training.average:
        average = read_weights(folder / EMA_FILE)
        training.average.update(tree_unflatten(average))
    return Carry(**tree_unflatten(read_weights(folder / CARRY_FILE)))


def start_from(folder: str | Path, training: Training) -> None:
    """Take over the weights of a checkpoint of the same architecture, averaged ones if it has them.

    Where the number of puzzle identifiers differs, every puzzle embedding becomes the mean row.

    Raises:
        InputError: another architecture, by the first array that differs.
    """
    folder, model = find_checkpoint(folder), training.model
    weights = read_weights(folder / MODEL_FILE)
    if (folder / EMA_FILE).exists():
        weights |= read_weights(folder / EMA_FILE)
    theirs, ours = read_config(folder), model.config
    if theirs.name != ours.name:
        raise InputError(
            f"{folder} holds a {theirs.name}, this run trains a {ours.name}: set arch={theirs.name}"
        )
    table = weights.get("puzzle_emb.weights")
    if table is not None and table.shape[0] != ours.num_puzzle_identifiers:
        mean = mx.mean(table, axis=0, keepdims=True)
        weights["puzzle_emb.weights"] = mx.repeat(mean, ours.num_puzzle_identifiers, axis=0)
    assign_weights(model, weights, str(folder))
    if training.average:
        training.average.update(tree_map(mx.array, model.trainable_parameters()))
