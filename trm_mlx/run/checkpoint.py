"""Points of a training run on disk: everything needed to continue it bit for bit.

    RUN/all_config.yaml           the run's configuration
    RUN/metrics.jsonl             one line per step and evaluation
    RUN/step_0006510/             config.json, model.safetensors, ema.safetensors,
                                  optimizer.safetensors, carry.safetensors, state.json, and
                                  evaluators_000007.safetensors where those count on

A step folder that has its name is whole (see ``atomic_folder``), and its arrays are finite. Without
optimizer, carry and state it is a model alone (see ``models.checkpoint_files``).
"""

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten, tree_map, tree_unflatten

from trm_mlx.atomic import atomic_file, atomic_folder, remove_folder
from trm_mlx.config import ModelConfig, TrainConfig
from trm_mlx.config_io import to_dict, train_config
from trm_mlx.errors import InputError, refusal
from trm_mlx.models.act import Carry
from trm_mlx.models.checkpoint_files import (
    EMA_FILE,
    MODEL_FILE,
    assign_weights,
    find_checkpoint,
    read_config,
    read_model_weights,
    read_weights,
    save_arrays,
    save_model,
    step_folders,
    step_of,
)
from trm_mlx.run.folder import check_newest, recovery_hint
from trm_mlx.train.step import Training

OPTIMIZER_FILE, CARRY_FILE, STATE_FILE = "optimizer.safetensors", "carry.safetensors", "state.json"


@dataclass
class Progress:
    """How far a run has come.

    ``interval`` counts those that are trained and evaluated; ``position`` is where the next
    training batch starts; ``results`` are those of this step's evaluation, if it had one.
    """

    step: int = 0
    interval: int = 0
    position: dict[str, int] | None = None
    results: dict[str, float] = dataclasses.field(default_factory=dict)


def save_checkpoint(
    run: Path,
    training: Training,
    carry: Carry,
    progress: Progress,
    evaluators: Mapping[str, dict[str, np.ndarray]] = MappingProxyType({}),
) -> Path:
    """Write ``run/step_NNNNNNN`` and return it.

    Args:
        evaluators: their `state` by name, those that have one.

    Raises:
        InputError: the folder cannot be written, and nothing half-written keeps its final name; or
            there is something to save that no run could go on from.
    """
    final = run / f"step_{progress.step:07d}"
    _check_finite(training, carry, final)
    state = {
        **dataclasses.asdict(progress),
        "versions": {"mlx": mx.__version__},
        "train_config": to_dict(training.config),
    }
    text = json.dumps(state, indent=2) + "\n"
    counted = evaluators_file(progress)
    try:
        if final.exists():  # stopped before its evaluation, which changes no array of the model
            if evaluators:
                with atomic_file(final / counted) as unfinished:
                    save_arrays(unfinished, _arrays_of(evaluators))
            with atomic_file(final / STATE_FILE) as unfinished:
                unfinished.write_text(text, encoding="utf-8")
            for path in final.glob("evaluators_*"):
                if path.name != counted:  # those of the state that was
                    path.unlink()
            return final
        with atomic_folder(final) as finished:
            save_model(finished, training.model)
            if training.average:
                save_arrays(finished / EMA_FILE, training.average)
            save_arrays(finished / OPTIMIZER_FILE, training.optimizer.state)
            save_arrays(finished / CARRY_FILE, carry._asdict())
            if evaluators:
                save_arrays(finished / counted, _arrays_of(evaluators))
            (finished / STATE_FILE).write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write {final}: {refusal(error)}; {recovery_hint(run)}") from error
    return final


def evaluators_file(progress: Progress) -> str:
    """The name says to which ``state.json`` of the same step it belongs."""
    return f"evaluators_{progress.interval:06d}.safetensors"


def read_evaluators(folder: Path, progress: Progress) -> dict[str, dict[str, np.ndarray]]:
    """The `state` of the evaluators that have one, by their names.

    Raises:
        InputError: the file is damaged.
    """
    path = folder / evaluators_file(progress)
    if not path.exists():
        return {}
    tree = tree_unflatten(list(read_weights(path).items()))
    if not all(isinstance(state, dict) for state in tree.values()):
        raise InputError(f"{path} is damaged: resume from an earlier step")
    return tree_map(np.array, tree)


def _arrays_of(evaluators: Mapping[str, dict[str, np.ndarray]]) -> dict:
    return tree_map(mx.array, dict(evaluators))


def _check_finite(training: Training, carry: Carry, final: Path) -> None:
    state = (
        training.model.parameters(),
        training.optimizer.state,
        training.average,
        carry._asdict(),
    )
    arrays = [pair for tree in state for pair in tree_flatten(tree)]
    finite = mx.stack([mx.isfinite(array).all() for _, array in arrays]).tolist()
    for (name, _), good in zip(arrays, finite, strict=True):
        if not good:
            raise InputError(
                f"{final} is not saved, {name} holds NaN or infinity; "
                f"{recovery_hint(final.parent)}, and set a smaller lr= or grad_clip=1"
            )


def read_state(folder: str | Path) -> tuple[Path, Progress, dict]:
    """Find the newest checkpoint of a run (or the one named) and read its ``state.json``.

    Returns:
        The checkpoint folder, the progress it stands for, and the run's to_dict configuration.

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
        position = state["position"]
        if position is not None:
            position = {name: int(value) for name, value in position.items()}
        results = {name: float(value) for name, value in state.get("results", {}).items()}
        progress = Progress(int(state["step"]), int(state["interval"]), position, results)
        return folder, progress, dict(state["train_config"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path} is damaged ({error}): resume from an earlier step") from error


# What, besides the architecture, a run cannot change on the way and still be the same run.
FIXED = (
    "global_batch_size", "epochs_per_interval", "puzzles_per_epoch", "augment", "seed", "optimizer",
    "ema", "freeze_weights",
)  # fmt: skip


def check_resumable(folder: Path, progress: Progress, saved: dict, config: TrainConfig) -> None:
    """Refuse to continue a run as another run, or from the middle of its own past.

    Raises:
        InputError: naming what differs and how to go on.
    """
    before = train_config(saved)
    pairs = [(name, getattr(config, name), getattr(before, name)) for name in FIXED]
    for field in dataclasses.fields(config.arch):
        sides = (getattr(side.arch, field.name) for side in (config, before))
        pairs.append((f"arch.{field.name}", *sides))
    for name, ours, theirs in pairs:
        if ours != theirs:
            raise InputError(
                f"{name}={ours} cannot resume {folder}, trained with "
                f"{theirs}: leave it as it "
                f"was, or start a new run with load_checkpoint={folder}"
            )
    if progress.interval * config.epochs_per_interval >= config.epochs:
        raise InputError(
            f"{folder} has finished its {config.epochs} epochs: continue with a larger epochs="
        )
    check_newest(Path(config.checkpoint_path), folder)


def restore(folder: Path, training: Training) -> Carry | None:
    """Put a checkpoint's model, optimizer and average into ``training``; return its carry.

    The carry is the largest file by far. Where it was left behind, None is returned and every row
    begins a new puzzle; all else goes on as it was.

    Must come before the first training step, which captures these arrays.

    Raises:
        InputError: a file is damaged or does not belong to this run.
    """
    model, rows = training.model, training.config.global_batch_size
    _check_same_model(read_config(folder), model.config, folder)
    assign_weights(model, read_weights(folder / MODEL_FILE), str(folder))
    training.optimizer.state = _read_tree(folder / OPTIMIZER_FILE, training.optimizer.state)
    training.optimizer.init(model.trainable_parameters())
    if training.average:
        training.average.update(_read_tree(folder / EMA_FILE, training.average))
    if not (folder / CARRY_FILE).exists():
        return None
    puzzle = mx.zeros((rows, model.config.seq_len), mx.int32)
    batch = {"inputs": puzzle, "labels": puzzle, "puzzle_identifiers": mx.zeros((rows,), mx.int32)}
    return Carry(**_read_tree(folder / CARRY_FILE, model.initial_carry(batch)._asdict()))


def _read_tree(path: Path, like: dict) -> dict:
    """The tree stored in ``path``; InputError unless it has the names and shapes of ``like``."""
    stored = read_weights(path)
    expected = {name: array.shape for name, array in tree_flatten(like)}
    if {name: array.shape for name, array in stored.items()} != expected:
        raise InputError(f"{path} does not hold this run's arrays: resume from an earlier step")
    return tree_unflatten(stored)


def _check_same_model(theirs: ModelConfig, ours: ModelConfig, folder: Path) -> None:
    name = theirs.difference(ours)
    if name is not None:
        raise InputError(
            f"{folder} was trained with {name}={getattr(theirs, name)}, this run has "
            f"{name}={getattr(ours, name)}: make them agree"
        )


def start_from(folder: str | Path, training: Training) -> None:
    """Take over the weights of a checkpoint of the same architecture, averaged ones if it has them.

    Where the number of puzzle identifiers differs, every puzzle embedding becomes the mean row.

    Raises:
        InputError: another architecture, by the first field or array that differs.
    """
    folder, model = find_checkpoint(folder), training.model
    _check_same_model(read_config(folder), model.config, folder)
    weights = read_model_weights(folder)
    table = weights.get("puzzle_emb.weights")
    if table is not None and table.shape[0] != model.config.num_puzzle_identifiers:
        mean = mx.mean(table, axis=0, keepdims=True)
        weights["puzzle_emb.weights"] = mx.repeat(mean, model.config.num_puzzle_identifiers, axis=0)
    assign_weights(model, weights, str(folder))
    if training.average:
        training.average.update(tree_map(mx.array, model.trainable_parameters()))


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
            raise InputError(f"keep_best={metric}: evaluations have {', '.join(sorted(found))}")
    sign = -1 if metric.endswith("loss") else 1
    finite = [(sign * found[metric], folder) for folder, found in evaluated.items()]
    finite = [(value, step_of(folder), folder) for value, folder in finite if math.isfinite(value)]
    return {max(finite)[2]} if finite else set()
