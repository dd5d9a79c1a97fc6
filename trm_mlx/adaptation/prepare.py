"""What an adaptation starts from: the versions of its tasks, and a model with rows for them."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import mlx.core as mx
import numpy as np

from trm_mlx.builders.arc import write_puzzles
from trm_mlx.builders.arc_files import Puzzle, find_subsets, read_subset
from trm_mlx.config import ModelConfig
from trm_mlx.data.format import IDENTIFIERS_FILE, read_json
from trm_mlx.errors import InputError, refusal
from trm_mlx.models.checkpoint_files import (
    assign_weights,
    read_config,
    read_model_weights,
    save_model,
)
from trm_mlx.models.model import build_model
from trm_mlx.tasks.arc import ARC
from trm_mlx.tasks.arc_rows import SHARED, parts_of

DATA, START = "data", "start"


def read_tasks(path: str | Path) -> tuple[list[Puzzle], list[str]]:
    """Read ARC tasks.

    Args:
        path: a JSON file of a task or of several, with the outputs of their tests beside it if it
            is called ``..._challenges.json``; or a folder of such files. See
            ``builders/arc_files.py``.

    Returns:
        The tasks, and what is wrong with those that are left out.

    Raises:
        InputError: no task can be used.
    """
    path, puzzles, problems = Path(path).expanduser(), [], []
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; name a task's JSON file")
    for subset in find_subsets(path):
        found = read_subset(path, subset, held_out=True, skip_invalid=True)
        puzzles += found.puzzles
        problems += found.skipped
    return puzzles, problems


def check_adaptable(folder: Path) -> ModelConfig:
    """Return the configuration of a model that can be adapted to ARC tasks.

    Raises:
        InputError: naming what it lacks.
    """
    config = read_config(folder)
    if (config.vocab_size, config.seq_len) != (ARC.vocab_size, ARC.seq_len):
        raise InputError(
            f"{folder} reads {config.seq_len} cells of {config.vocab_size} tokens, ARC's canvases "
            f"have {ARC.seq_len} of {ARC.vocab_size}: name a model trained on ARC"
        )
    if not config.board_positions:
        raise InputError(
            f"{folder} has arch.pos_encodings={config.pos_encodings}: adapting needs rope2d, as of "
            "experiment=arc1_fast"
        )
    if not config.puzzle_dims:
        raise InputError(f"{folder} has no puzzle embeddings, which adapting trains: name another")
    return config


def write_inputs(
    folder: Path,
    source: Path,
    config: ModelConfig,
    puzzles: Sequence[Puzzle],
    versions: int,
    seed: int,
) -> None:
    """Write what is trained on, ``versions`` of every task, and the model with rows for them.

    Raises:
        InputError: the folder cannot be written.
    """
    drawing, placing = np.random.default_rng(seed).spawn(2)
    write_puzzles(folder / DATA, puzzles, versions - 1, drawing, placing)
    names = read_json(folder / DATA / IDENTIFIERS_FILE, "build it again", "build it again")
    _write_start(folder / START, source, config, names)


def _write_start(folder: Path, source: Path, config: ModelConfig, names: list[str]) -> None:
    """Write the model with new rows for the named versions, each the mean of the trained ones."""
    weights = read_model_weights(source)
    table, shared, parts = weights["puzzle_emb.weights"], 1, None
    config = dataclasses.replace(config, num_puzzle_identifiers=len(names))
    rows = len(names)
    if config.num_puzzle_rows:
        shared, parts = SHARED, parts_of(names)
        rows = int(parts.max()) + 1
        config = dataclasses.replace(config, num_puzzle_rows=rows)
    mean = mx.mean(table[shared:] if len(table) > shared else table, axis=0, keepdims=True)
    new = mx.repeat(mean, rows - shared, axis=0)
    weights["puzzle_emb.weights"] = mx.concatenate([table[:shared], new])
    model = build_model(config)
    assign_weights(model, weights, str(source))
    if parts is not None:
        model.puzzle_emb.compose(mx.array(parts))
    try:
        folder.mkdir(parents=True)
        save_model(folder, model)
    except OSError as error:
        raise InputError(f"cannot write {folder}: {refusal(error)}") from error
