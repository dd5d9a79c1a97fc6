"""Opens one split of one dataset directory, in either layout.

The published layout is that of ``format.py``. The flat one is that of the Rust port
tiny-recursive-rs, one example a puzzle and a puzzle a group:

    DIR/dataset.json                      vocab_size, seq_len, num_examples, description
    DIR/all__{inputs,labels}.npy
    DIR/all__puzzle_identifiers.npy       one for each example; absent: all are blank

A flat directory has no splits: it is whichever split is asked for. DIR/train and DIR/test may be
flat too. A split's own folder, DIR/train say, may be named in place of DIR.
"""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from trm_mlx.data.arrays import SplitArrays, array_path, open_array
from trm_mlx.data.format import METADATA_FILE, SET_NAME, DatasetMetadata, read_keys
from trm_mlx.errors import InputError
from trm_mlx.files import read_text, recover


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
    parent, own = parent_and_split(directory)
    if own is not None:
        if own != split:
            raise InputError(
                f"{directory} is the split '{own}' of a dataset: for its split '{split}' name "
                f"{parent}"
            )
        folder = parent / own
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
    return Split(folder, _checked_counts(folder / METADATA_FILE, metadata, sets), sets)


def parent_and_split(directory: Path) -> tuple[Path, str | None]:
    """The dataset and the split that a folder stands for; None: it is the dataset itself."""
    if not (directory / METADATA_FILE).is_file():
        return directory, None
    place = directory if directory.name else directory.resolve()
    if is_flat(directory) and place.name not in ("train", "test"):
        return directory, None
    return place.parent, place.name


def split_asked(directory: str, split: str | None) -> str:
    """The split to open: by default the one whose own folder is named, or else "test"."""
    return split or parent_and_split(Path(directory))[1] or "test"


def _checked_counts(
    path: Path, metadata: DatasetMetadata, sets: dict[str, SplitArrays]
) -> DatasetMetadata:
    """The metadata with its number of puzzles, once its counts are those of the arrays.

    Raises:
        InputError: naming the file and the count that differs.
    """
    puzzles = sum(len(arrays.puzzle_identifiers) for arrays in sets.values())
    counted = {
        "total_groups": sum(len(arrays.group_indices) - 1 for arrays in sets.values()),
        "total_puzzles": puzzles,
        "mean_puzzle_examples": sum(len(arrays.inputs) for arrays in sets.values()) / puzzles,
    }
    metadata = replace(metadata, total_puzzles=metadata.total_puzzles or puzzles)
    for name, found in counted.items():
        stated = getattr(metadata, name)
        if not math.isclose(stated, found, rel_tol=1e-3 if name == "mean_puzzle_examples" else 0):
            raise InputError(
                f"{path}: '{name}' is {stated}, but the arrays hold {found}; correct it"
            )
    return metadata


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
        content = json.loads(read_text(folder / METADATA_FILE))
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
