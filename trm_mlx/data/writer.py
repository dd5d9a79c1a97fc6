"""Writes a dataset directory: all of it or nothing, one chunk in memory at a time.

The layout is that of ``format.py``. The published builders write into the final directory file by
file, so an interrupted build leaves a mixture of old and new; here a finished folder is renamed
into place.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trm_mlx.data.arrays import (
    IGNORE_LABEL,
    INDICES,
    SplitArrays,
    array_path,
    check_offsets,
    check_tokens,
)
from trm_mlx.data.format import IDENTIFIERS_FILE, METADATA_FILE, SET_NAME, DatasetMetadata
from trm_mlx.data.reader import recovered
from trm_mlx.data.sampler import prefetch
from trm_mlx.errors import InputError, refusal
from trm_mlx.files import atomic_folder

Chunk = tuple[np.ndarray, np.ndarray]  # inputs and labels of the next n examples, [n, S] each

CHUNK_EXAMPLES = 8192  # of a SplitArrays, checked and written at once
CHUNKS_AHEAD = 8  # made while others are written; as they may differ in size, more than two


@dataclass(frozen=True)
class SplitStream:
    """A ``SplitArrays`` whose tokens are made while they are written, larger than memory maybe.

    The chunks hold the puzzle_indices[-1] examples in order, and are stored in the integer types of
    the first one. A few of them are made ahead, in a thread.
    """

    chunks: Iterable[Chunk]
    puzzle_identifiers: np.ndarray  # [P]
    puzzle_indices: np.ndarray  # [P+1]
    group_indices: np.ndarray  # [G+1]


def write_dataset(
    directory: str | Path,
    splits: Mapping[str, SplitArrays | SplitStream | Mapping[str, SplitArrays]],
    identifiers: list[str],
    *,
    vocab_size: int,
    seq_len: int,
    pad_id: int = 0,
    ignore_label_id: int | None = 0,
    blank_identifier_id: int = 0,
    task: str | None = None,
    overwrite: bool = False,
    extra_files: dict[str, str] | None = None,
) -> None:
    """Write every split, dataset.json and identifiers.json under ``directory``.

    Args:
        splits: split name ("train", "test") to its arrays, or to a stream where they are large, or
            to arrays by the names of several sets, which are evaluated apart.
        identifiers: the name of every puzzle identifier, the blank one included.
        vocab_size: tokens are 0 to vocab_size - 1.
        seq_len: tokens of an example.
        pad_id: the token that fills incomplete batches.
        ignore_label_id: the label that the loss does not count; None: every one counts.
        blank_identifier_id: the identifier of puzzles that have none of their own.
        task: its name in the registry of tasks, for those who read the dataset.
        overwrite: replace a dataset that is there; a folder of anything else is never replaced.
        extra_files: file name to text, stored beside identifiers.json (ARC: test_puzzles.json).

    Raises:
        InputError: the arrays are inconsistent, the directory is in use, or cannot be
            written; what was in ``directory`` before is then untouched.
    """
    directory = Path(directory).resolve()
    check_replaceable(directory, overwrite)
    texts = {IDENTIFIERS_FILE: json.dumps(identifiers), **(extra_files or {})}
    try:
        with atomic_folder(directory) as finished:
            for split, arrays in splits.items():
                place = directory / split  # what messages name
                sets = arrays if isinstance(arrays, Mapping) else {SET_NAME: arrays}
                streams = {
                    name: _validated(stored, place, name, seq_len, len(identifiers))
                    for name, stored in sets.items()
                }
                examples = sum(int(stream.puzzle_indices[-1]) for stream in streams.values())
                puzzles = sum(len(stream.puzzle_identifiers) for stream in streams.values())
                metadata = DatasetMetadata(
                    pad_id=pad_id,
                    ignore_label_id=ignore_label_id,
                    blank_identifier_id=blank_identifier_id,
                    vocab_size=vocab_size,
                    seq_len=seq_len,
                    num_puzzle_identifiers=len(identifiers),
                    total_groups=sum(len(each.group_indices) - 1 for each in streams.values()),
                    mean_puzzle_examples=examples / puzzles,
                    total_puzzles=puzzles,
                    sets=[*streams],
                    task=task,
                )
                (finished / split).mkdir()
                metadata.write(finished / split / METADATA_FILE)
                for name, stream in streams.items():
                    _write_indices(finished / split, name, stream)
                    with closing(prefetch(stream.chunks, CHUNKS_AHEAD)) as chunks:
                        checked = _checked(chunks, place, name, vocab_size, ignore_label_id)
                        shape = (int(stream.puzzle_indices[-1]), seq_len)
                        _write_tokens(finished / split, name, checked, shape)
            for name, text in texts.items():
                (finished / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"cannot write {directory}: {refusal(error)}; free some disk space or choose another "
            "directory"
        ) from error


def check_replaceable(directory: Path, overwrite: bool) -> None:
    """Check that a directory may be written: it is new, empty, or a dataset to overwrite.

    Raises:
        InputError: it may not.
    """
    recovered(directory)
    if not directory.exists():
        return
    if not directory.is_dir():
        raise InputError(f"{directory} is a file; choose another output directory")
    if not any(directory.iterdir()):
        return
    if not overwrite:
        raise InputError(f"{directory} is not empty; set overwrite to replace the dataset there")
    # A mistyped output directory must not cost somebody a home folder.
    if not any(directory.glob(f"*/{METADATA_FILE}")):
        raise InputError(
            f"{directory} holds something other than a dataset, which overwrite does not delete; "
            "choose another output directory"
        )


def _validated(
    arrays: SplitArrays | SplitStream,
    place: Path,
    name: str,
    seq_len: int,
    num_puzzle_identifiers: int,
) -> SplitStream:
    """The set as a stream, after every check that needs no token."""
    if isinstance(arrays, SplitArrays):
        arrays.validate(place, name, seq_len=seq_len, num_puzzle_identifiers=num_puzzle_identifiers)
        return SplitStream(_chunks(arrays), *(getattr(arrays, field) for field in INDICES))
    check_offsets(arrays, int(arrays.puzzle_indices[-1]), num_puzzle_identifiers, place, name)
    return arrays


def _chunks(arrays: SplitArrays) -> Iterator[Chunk]:
    """The tokens of arrays, which may be memory-mapped, in the smallest types that hold them."""
    inputs, labels = arrays.inputs, arrays.labels
    input_type, label_type = _smallest_type(inputs), _smallest_type(labels)
    for start in range(0, len(inputs), CHUNK_EXAMPLES):
        rows = slice(start, start + CHUNK_EXAMPLES)
        yield inputs[rows].astype(input_type), labels[rows].astype(label_type)


def _smallest_type(array: np.ndarray) -> np.dtype:
    return np.result_type(np.min_scalar_type(array.min()), np.min_scalar_type(array.max()))


def _checked(
    chunks: Iterable[Chunk], place: Path, name: str, vocab_size: int, ignore_label_id: int | None
) -> Iterator[Chunk]:
    """The chunks, each once its tokens were found to be in the vocabulary."""
    for inputs, labels in chunks:
        check_tokens(inputs, vocab_size, array_path(place, name, "inputs"))
        counted = labels
        if labels.min() < 0 or labels.max() >= vocab_size:  # as an ignored label may be
            ignored = labels == IGNORE_LABEL
            if ignore_label_id is not None:
                ignored |= labels == ignore_label_id
            counted = np.where(ignored, 0, labels)
        check_tokens(counted, vocab_size, array_path(place, name, "labels"))
        yield inputs, labels


def _write_tokens(folder: Path, name: str, chunks: Iterable[Chunk], shape: tuple[int, int]) -> None:
    """Write the inputs and labels of all chunks, which together have the given shape."""
    written, kinds = 0, []
    with ExitStack() as stack:
        paths = [array_path(folder, name, field) for field in ("inputs", "labels")]
        files = [stack.enter_context(open(path, "wb")) for path in paths]
        for chunk in chunks:
            if not kinds:
                kinds = [tokens.dtype for tokens in chunk]
                for file, kind in zip(files, kinds, strict=True):
                    description = np.lib.format.dtype_to_descr(kind)
                    header = {"descr": description, "fortran_order": False, "shape": shape}
                    np.lib.format.write_array_header_1_0(file, header)
            for file, tokens, kind in zip(files, chunk, kinds, strict=True):
                file.write(np.ascontiguousarray(tokens.astype(kind, casting="safe", copy=False)))
            written += len(chunk[0])
    if written != shape[0]:
        raise ValueError(f"the chunks hold {written} examples, puzzle_indices counts {shape[0]}")


def _write_indices(folder: Path, name: str, stream: SplitStream) -> None:
    for field in INDICES:
        with open(array_path(folder, name, field), "wb") as file:
            np.save(file, np.asarray(getattr(stream, field), np.int32), allow_pickle=False)
