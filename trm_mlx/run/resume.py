"""Continue a run from its checkpoint, or start a new one from the weights of another."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten, tree_map, tree_unflatten

from trm_mlx.config import ModelConfig, TrainConfig
from trm_mlx.config_io import train_config
from trm_mlx.data.dataset import PuzzleDataset, check_numbering, saved_names
from trm_mlx.errors import InputError, located
from trm_mlx.evaluate.evaluate import Evaluator
from trm_mlx.models.act import Carry
from trm_mlx.models.checkpoint_files import (
    EMA_FILE,
    MODEL_FILE,
    assign_weights,
    find_checkpoint,
    read_config,
    read_model_weights,
    read_weights,
)
from trm_mlx.run.checkpoint import OPTIMIZER_FILE, Progress, carry_file, evaluators_file
from trm_mlx.run.folder import check_newest
from trm_mlx.tasks.arc_rows import SHARED, row_names
from trm_mlx.train.batches import GeneratedPuzzles
from trm_mlx.train.step import TrainState

# What, besides the architecture, must stay as it was for a run to be the same run.
FIXED = (
    "global_batch_size", "epochs_per_interval", "puzzles_per_epoch", "augment", "seed", "optimizer",
    "ema", "freeze_weights",
)  # fmt: skip


def check_resumable(
    folder: Path,
    progress: Progress,
    saved: dict,
    config: TrainConfig,
    data: PuzzleDataset | GeneratedPuzzles,
) -> None:
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
                f"{name}={ours} cannot resume {folder}, trained with {theirs}: leave it as it "
                f"was, or start a new run with load_checkpoint={folder}"
            )
    if progress.interval * config.epochs_per_interval >= config.epochs:
        raise InputError(
            f"{folder} has finished its {config.epochs} epochs: continue with a larger epochs="
        )
    check_newest(Path(config.checkpoint_path), folder)
    if isinstance(data, PuzzleDataset):
        remedy = (
            "resume with the run's own dataset, or start a new run with "
            f"load_checkpoint={folder}, which keeps the puzzles it knows"
        )
        check_numbering(saved_names(folder), folder, data, remedy)


def restore(folder: Path, state: TrainState) -> dict[int, Carry]:
    """Put a checkpoint's model, optimizer and average into ``state``; return its carries.

    They are the largest files by far, and are returned by the cells of their boards. Where they
    were not copied along, every row begins a new puzzle, and all else continues as it was.

    Must come before the first training step, which captures these arrays.

    Raises:
        InputError: a file is damaged or does not belong to this run.
    """
    model, rows = state.model, state.config.global_batch_size
    _check_same_model(read_config(folder), model.config, folder)
    assign_weights(model, read_weights(folder / MODEL_FILE), str(folder))
    state.optimizer.state = _read_tree(folder / OPTIMIZER_FILE, state.optimizer.state)
    state.optimizer.init(model.trainable_parameters())
    if state.average:
        state.average.update(_read_tree(folder / EMA_FILE, state.average))
    carries, config = {}, model.config
    for cells in {config.seq_len, *(side**2 for side in config.canvases or ())}:
        path = folder / carry_file(cells, config)
        if path.exists():
            puzzle, identifiers = mx.zeros((rows, cells), mx.int32), mx.zeros((rows,), mx.int32)
            batch = {"inputs": puzzle, "labels": puzzle, "puzzle_identifiers": identifiers}
            carries[cells] = Carry(**_read_tree(path, model.initial_carry(batch)._asdict()))
    return carries


def _read_tree(path: Path, like: dict) -> dict:
    """Return the tree stored in ``path``, if it has the names and shapes of ``like``."""
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
            f"{folder} was trained with {name}={getattr(theirs, name)}, this run has "
            f"{name}={getattr(ours, name)}: make them agree"
        )


def start_from(
    folder: str | Path, state: TrainState, names: Sequence[str] | None = None
) -> str | None:
    """Start from the weights of a checkpoint of the same architecture, averaged if it has those.

    Puzzles that it names keep their embedding, whatever their number; the others begin as the mean
    row. Where no names are known, rows are kept by number, or all become the mean row if there are
    more or fewer of them.
    A board of another size is the same picture to attention with rotary positions, so such weights
    go on from smaller puzzles to larger ones.

    Args:
        names: of this run's puzzle identifiers; None: not known.

    Returns:
        A remark on how many embeddings were kept; None: the model has one alone, or none.

    Raises:
        InputError: another architecture, by the first field or array that differs.
    """
    folder, model = find_checkpoint(folder), state.model
    _check_same_model(read_config(folder), model.config, folder, lengths=False)
    weights = read_model_weights(folder)
    table, remark = weights.get("puzzle_emb.weights"), None
    if table is not None:
        rows, first = len(model.puzzle_emb.weights), 0
        known = saved_names(folder)
        if model.config.num_puzzle_rows:
            first = SHARED
            known, names = (n and row_names(n) for n in (known, names))
        weights["puzzle_emb.weights"], kept = _table_for(rows, table, known, names, first)
        if max(rows, len(table)) > 1:
            how = "number" if known is None or names is None else "name"
            remark = (
                f"{folder}: {kept} of {rows} puzzle embeddings kept by {how}, {rows - kept} set to "
                "the mean row"
            )
    assign_weights(model, weights, str(folder))
    if state.average:
        state.average.update(tree_map(mx.array, model.trainable_parameters()))
    return remark


def _table_for(
    rows: int, table: mx.array, known: list[str] | None, names: Sequence[str] | None, first: int
) -> tuple[mx.array, int]:
    """The puzzle table ``[rows, E]`` of a run from that of a checkpoint, and the rows it keeps.

    Args:
        known, names: of the checkpoint's rows and the run's; None: not known.
        first: row from which on they are a puzzle's, and count in the mean.
    """
    if known is None or names is None or known == names:
        sources = range(rows) if rows == len(table) else [-1] * rows
    else:
        places = {name: row for row, name in enumerate(known[: len(table)])}
        sources = [places.get(name, -1) for name in names]
    source = mx.array(list(sources))[:, None]
    mean = mx.mean(table[first:], axis=0, keepdims=True)
    kept = mx.where(source >= 0, table[mx.maximum(source[:, 0], 0)], mean)
    return kept, sum(row >= 0 for row in sources)


def restore_evaluators(
    folder: Path, progress: Progress, evaluators: Sequence[Evaluator]
) -> list[str]:
    """Put a checkpoint's evaluator states in place; return warnings about those it lacks.

    Raises:
        InputError: the file is damaged, or belongs to another dataset.
    """
    path, states = folder / evaluators_file(progress), {}
    if path.exists():
        states = tree_map(np.array, tree_unflatten(read_weights(path)))
    if not all(isinstance(state, dict) for state in states.values()):
        raise InputError(f"{path} is damaged: resume from an earlier step")
    missing = []
    for evaluator in evaluators:
        if evaluator.name in states:
            with located(folder):
                evaluator.restore(states[evaluator.name])
        elif evaluator.state():
            missing.append(f"{folder} has no votes: {evaluator.name} counts anew")
    return missing
