"""Opens one split of one dataset directory, in either layout.

The published layout is that of ``format.py``. The flat one is that of the Rust port
tiny-recursive-rs, one example a puzzle and a puzzle a group:

    DIR/dataset.json                      vocab_size, seq_len, num_examples, description
    DIR/all__{inputs,labels}.npy
    DIR/all__puzzle_identifiers.npy       one for each example; absent: all are blank

A flat directory has no splits: it is whichever split is asked for. DIR/train and DIR/test may be
flat too.
"""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from trm_mlx.atomic import recover
from trm_mlx.data.arrays import SplitArrays, array_path, open_array
from trm_mlx.data.format import METADATA_FILE, SET_NAME, DatasetMetadata, read_keys
from trm_mlx.errors import InputError


class Split(NamedTuple):
    """The sets of a split by name, and their folder, or another name of them for messages."""

    path: Path
    metadata: DatasetMetadata
    sets: dict[str, SplitArrays]


def open_split(directory: Path, split: str) -> Split:
    """The split "train" or "test" of a dataset directory, its tokens memory-mapped.

    Raises:
        InputError: a file, which it names, is absent, damaged or inconsistent.
    """
    if not directory.is_dir() and not recovered(directory):
        raise InputError(f"{directory} is not a directory; build the dataset or correct data_paths")
    folder = directory / split
    if not folder.is_dir():
        if is_flat(directory):
            return _open_flat(directory)
        existing = sorted(path.parent.name for path in directory.glob(f"*/{METADATA_FILE}"))
        raise InputError(
            f"{directory} has no split '{split}'; it has: {', '.join(existing) or 'none'}"
        )
    if is_flat(folder):
        return _open_flat(folder)
    metadata = DatasetMetadata.read(folder / METADATA_FILE)
    sets = {name: SplitArrays.read(folder, name, metadata) for name in metadata.sets}
    return Split(folder, metadata, sets)


def recovered(directory: Path) -> bool:
    """Rename back the dataset that a killed build was replacing; whether there was one.

    Raises:
        InputError: it cannot be renamed.
    """
    try:
        return recover(directory.resolve())
    except OSError as error:
        raise InputError(
            f"cannot restore {directory} from {error.filename}: {error.strerror}"
        ) from error


def is_flat(folder: Path) -> bool:
    """Whether a folder holds a dataset.json of the flat layout."""
    try:
        content = json.loads((folder / METADATA_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False  # whoever reads it will say so
    return isinstance(content, dict) and "num_examples" in content and "sets" not in content


def _open_flat(folder: Path) -> Split:
    sizes = read_keys(folder / METADATA_FILE, dict.fromkeys(_FLAT_KEYS, int))
    inputs, labels = (open_array(array_path(folder, SET_NAME, f)) for f in ("inputs", "labels"))
    examples = len(inputs)
    if examples != sizes["num_examples"]:
        raise InputError(
            f"{folder / METADATA_FILE}: 'num_examples' is {sizes['num_examples']}, but "
            f"{SET_NAME}__inputs.npy holds {examples}; correct it"
        )
    path = array_path(folder, SET_NAME, "puzzle_identifiers")
    identifiers = np.array(open_array(path)) if path.exists() else np.zeros(examples, np.int64)
    every = np.arange(examples + 1)
    arrays = SplitArrays(inputs, labels, identifiers, every, every)
    known = 1 + max(0, int(identifiers.max(initial=0)))
    arrays.validate(folder, seq_len=sizes["seq_len"], num_puzzle_identifiers=known)
    metadata = DatasetMetadata.of_puzzles(
        sizes["vocab_size"], sizes["seq_len"], examples, num_puzzle_identifiers=known
    )
    return Split(folder, metadata, {SET_NAME: arrays})


_FLAT_KEYS = ("vocab_size", "seq_len", "num_examples")
