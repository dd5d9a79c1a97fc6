"""Writes a dataset directory: all of it or nothing.

The layout is schema.py's. The published builders write into the final directory file by file, so an
interrupted build leaves a mixture of old and new; here a finished folder is renamed into place.
"""

import json
from pathlib import Path

import numpy as np

from trm_mlx.data.schema import (
    IDENTIFIERS_FILE,
    IGNORE_LABEL,
    METADATA_FILE,
    SET_NAME,
    DatasetMetadata,
    SplitArrays,
    array_path,
    check_tokens,
    mark_ignored,
)
from trm_mlx.errors import InputError
from trm_mlx.whole_folder import whole_folder


def write_dataset(
    directory: str | Path,
    splits: dict[str, SplitArrays],
    identifiers: list[str],
    *,
    vocab_size: int,
    seq_len: int,
    pad_id: int = 0,
    ignore_label_id: int | None = 0,
    blank_identifier_id: int = 0,
    overwrite: bool = False,
    extra_files: dict[str, str] | None = None,
) -> None:
    """Writes every split, dataset.json and identifiers.json under `directory`.

    Args:
        splits: split name ("train", "test") to its arrays.
        identifiers: the name of every puzzle identifier, the blank one included.
        overwrite: replace a dataset that is there; a folder of anything else is never replaced.
        extra_files: file name to text, stored beside identifiers.json (ARC: test_puzzles.json).

    Raises InputError if the arrays are inconsistent, the directory is in use, or the disk refuses;
    whatever was in `directory` before is then still there, untouched.
    """
    directory = Path(directory).resolve()
    check_replaceable(directory, overwrite)
    metadata_of_split = {}
    for split, arrays in splits.items():
        folder = directory / split
        arrays.validate(folder, seq_len=seq_len, num_puzzle_identifiers=len(identifiers))
        check_tokens(arrays.inputs, vocab_size, array_path(folder, SET_NAME, "inputs"))
        labels = mark_ignored(arrays.labels, ignore_label_id)
        labels[labels == IGNORE_LABEL] = 0
        check_tokens(labels, vocab_size, array_path(folder, SET_NAME, "labels"))
        puzzles = len(arrays.puzzle_identifiers)
        metadata_of_split[split] = DatasetMetadata(
            pad_id=pad_id,
            ignore_label_id=ignore_label_id,
            blank_identifier_id=blank_identifier_id,
            vocab_size=vocab_size,
            seq_len=seq_len,
            num_puzzle_identifiers=len(identifiers),
            total_groups=len(arrays.group_indices) - 1,
            mean_puzzle_examples=len(arrays.inputs) / puzzles,
            total_puzzles=puzzles,
            sets=[SET_NAME],
        )

    texts = {IDENTIFIERS_FILE: json.dumps(identifiers), **(extra_files or {})}
    try:
        with whole_folder(directory) as finished:
            for split, arrays in splits.items():
                (finished / split).mkdir()
                metadata_of_split[split].write(finished / split / METADATA_FILE)
                _write_arrays(finished / split, arrays)
            for name, text in texts.items():
                (finished / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"cannot write {directory}: {error}; free some disk space or choose another directory"
        ) from error


def check_replaceable(directory: Path, overwrite: bool) -> None:
    """Refuses a directory in use: a dataset without `overwrite`, anything else always."""
    if not directory.exists():
        return
    if not directory.is_dir():
        raise InputError(f"{directory} is a file; choose another output directory")
    if not any(directory.iterdir()):
        return
    if not overwrite:
        raise InputError(f"{directory} is not empty; pass --overwrite to replace the dataset there")
    # A mistyped output directory must not cost somebody a home folder.
    if not any(directory.glob(f"*/{METADATA_FILE}")):
        raise InputError(
            f"{directory} holds something other than a dataset, which --overwrite does not delete; "
            "choose another output directory"
        )


def _write_arrays(folder: Path, arrays: SplitArrays) -> None:
    """Saves tokens in the smallest integer type that holds them, the index arrays as int32."""
    for field, array in vars(arrays).items():
        if field in ("inputs", "labels"):
            lowest, highest = np.min_scalar_type(array.min()), np.min_scalar_type(array.max())
            dtype = np.result_type(lowest, highest)
        else:
            dtype = np.dtype(np.int32)
        with open(array_path(folder, SET_NAME, field), "wb") as file:
            np.save(file, np.ascontiguousarray(array, dtype=dtype), allow_pickle=False)
