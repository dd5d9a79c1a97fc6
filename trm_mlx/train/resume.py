"""Going on from a checkpoint: as the same run, bit for bit, or from its weights as a new one."""

import dataclasses
from pathlib import Path

import mlx.core as mx
from mlx.utils import tree_flatten, tree_map, tree_unflatten

from trm_mlx.config import ModelConfig, TrainConfig
from trm_mlx.errors import InputError, shortened
from trm_mlx.models.act import Carry
from trm_mlx.models.weights import (
    EMA_FILE,
    MODEL_FILE,
    assign_weights,
    find_checkpoint,
    read_config,
    read_model_weights,
    read_weights,
)
from trm_mlx.options import train_config
from trm_mlx.train.checkpoint import CARRY_FILE, OPTIMIZER_FILE, Progress
from trm_mlx.train.run_folder import check_newest
from trm_mlx.train.step import Training

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
                f"{name}={shortened(ours)} cannot resume {folder}, trained with "
                f"{shortened(theirs)}: leave it as it "
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


def _check_same_model(
    theirs: ModelConfig, ours: ModelConfig, folder: Path, lengths: bool = True
) -> None:
    name = theirs.difference(ours, lengths)
    if name is not None:
        raise InputError(
            f"{folder} was trained with {name}={shortened(getattr(theirs, name))}, this run has "
            f"{name}={getattr(ours, name)}: make them agree"
        )


def start_from(folder: str | Path, training: Training) -> None:
    """Take over the weights of a checkpoint of the same architecture, averaged ones if it has them.

    Where the number of puzzle identifiers differs, every puzzle embedding becomes the mean row.
    A board of another size is the same picture to attention with rotary positions, so such weights
    go on from smaller puzzles to larger ones.

    Raises:
        InputError: another architecture, by the first field or array that differs.
    """
    folder, model = find_checkpoint(folder), training.model
    _check_same_model(read_config(folder), model.config, folder, lengths=False)
    weights = read_model_weights(folder)
    table = weights.get("puzzle_emb.weights")
    if table is not None and table.shape[0] != model.config.num_puzzle_identifiers:
        mean = mx.mean(table, axis=0, keepdims=True)
        weights["puzzle_emb.weights"] = mx.repeat(mean, model.config.num_puzzle_identifiers, axis=0)
    assign_weights(model, weights, str(folder))
    if training.average:
        training.average.update(tree_map(mx.array, model.trainable_parameters()))
