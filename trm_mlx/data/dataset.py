"""Reads one or several dataset directories as one dataset, and makes batches of its examples.

Unlike in the published code (puzzle_dataset.py of HRM and TinyRecursiveModels), several datasets
are mixed, each with puzzle identifiers of its own, and a set has the same name in the metadata and
in the batches. Which examples make a batch is ``sampler.py``'s business.

A batch is a dict of int32 arrays: inputs [b, S], labels [b, S] (IGNORE_LABEL where the loss does
not count) and puzzle_identifiers [b].
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trm_mlx.data.arrays import IGNORE_LABEL, SplitArrays, array_path, check_tokens, mark_ignored
from trm_mlx.data.format import IDENTIFIERS_FILE, METADATA_FILE, merge_metadata, read_json
from trm_mlx.data.reader import Split, open_split
from trm_mlx.errors import InputError

Batch = dict[str, np.ndarray]


@dataclass(frozen=True)
class Part:
    """One set of one dataset, and where its examples and identifiers lie among all of them."""

    folder: Path  # DIR/{split}
    stored_name: str  # of the set, in its own dataset
    name: str  # of the set, unique among all datasets
    arrays: SplitArrays  # inputs and labels stay on disk, memory-mapped
    first_example: int
    identifier_shift: int


class PuzzleDataset:
    """One split of one or several dataset directories, which are treated as one dataset.

    A dataset that is no directory comes as an open ``Split``. The datasets share nothing but the
    blank identifier: the other identifiers of a dataset are shifted past those of the datasets
    before it. With N examples, P puzzles and G groups in all:

        metadata             DatasetMetadata of the whole
        puzzle_identifiers   [P] int64, after the shift
        puzzle_indices       [P+1] int64 example offsets
        group_indices        [G+1] int64 puzzle offsets

    Tokens are checked against the vocabulary when a batch is made, since reading all of a large
    memory-mapped file would delay every start.

    Raises:
        InputError: a file, which it names, is absent, damaged or inconsistent, or the datasets do
            not go together.
    """

    def __init__(self, paths: Sequence[str | Path | Split], split: str):
        if isinstance(paths, str | Path):
            raise InputError(f"paths={str(paths)!r}: must be a list of folders, [{str(paths)!r}]")
        if not paths:
            raise InputError("no dataset given; name at least one directory in data_paths")
        splits = [p if isinstance(p, Split) else open_split(Path(p), split) for p in paths]
        self.split = split
        self.parts: list[Part] = []
        first_example = identifier_shift = 0
        for folder, metadata, sets in splits:
            for stored_name, arrays in sets.items():
                name = _unique_name(stored_name, {part.name for part in self.parts})
                part = Part(folder, stored_name, name, arrays, first_example, identifier_shift)
                self.parts.append(part)
                first_example += len(arrays.inputs)
            identifier_shift += metadata.num_puzzle_identifiers - 1
        folders, parts_metadata = [s.path for s in splits], [s.metadata for s in splits]
        self.metadata = merge_metadata(folders, parts_metadata, [part.name for part in self.parts])

        blank = self.metadata.blank_identifier_id
        identifiers, example_ends, puzzle_ends, puzzles = [], [[0]], [[0]], 0
        for part in self.parts:
            own = part.arrays.puzzle_identifiers
            identifiers.append(np.where(own == blank, blank, own + part.identifier_shift))
            example_ends.append(part.arrays.puzzle_indices[1:] + part.first_example)
            puzzle_ends.append(part.arrays.group_indices[1:] + puzzles)
            puzzles += len(own)
        self.puzzle_identifiers = np.concatenate(identifiers)
        self.puzzle_indices = np.concatenate(example_ends)
        self.group_indices = np.concatenate(puzzle_ends)

    def __len__(self) -> int:
        """The number of examples, N."""
        return int(self.puzzle_indices[-1])

    def owners(self, examples: np.ndarray) -> np.ndarray:
        """The puzzles [n] that examples [n] belong to."""
        return np.searchsorted(self.puzzle_indices, examples, side="right") - 1

    def batch(self, examples: np.ndarray, puzzles: np.ndarray, rows: int) -> Batch:
        """The examples [n], which belong to puzzles [n], padded to ``rows`` >= n rows.

        Returns:
            int32 arrays: ``inputs [rows, S]``, ``labels [rows, S]``, -100 where the loss does not
            count, and ``puzzle_identifiers [rows]``.

        Raises:
            InputError: a token outside the vocabulary, by its file.
        """
        shape = (rows, self.metadata.seq_len)
        inputs = np.full(shape, self.metadata.pad_id, np.int32)
        labels = np.full(shape, IGNORE_LABEL, np.int32)
        identifiers = np.full(rows, self.metadata.blank_identifier_id, np.int32)
        identifiers[: len(puzzles)] = self.puzzle_identifiers[puzzles]
        for part in self.parts:
            stored = examples - part.first_example
            here = np.flatnonzero((stored >= 0) & (stored < len(part.arrays.inputs)))
            if here.size:
                inputs[here], labels[here] = self._tokens(part, stored[here])
        return {"inputs": inputs, "labels": labels, "puzzle_identifiers": identifiers}

    def whole(self) -> Batch:
        """All examples, in order, as one batch; errors as of `batch`."""
        every = np.arange(len(self))
        return self.batch(every, self.owners(every), len(self))

    def _tokens(self, part: Part, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Checked inputs and labels of the given rows of a part, each [rows, S]."""
        vocab_size = self.metadata.vocab_size
        inputs = part.arrays.inputs[rows]
        check_tokens(inputs, vocab_size, array_path(part.folder, part.stored_name, "inputs"))
        labels = mark_ignored(part.arrays.labels[rows], self.metadata.ignore_label_id)
        counted = np.where(labels == IGNORE_LABEL, 0, labels)
        check_tokens(counted, vocab_size, array_path(part.folder, part.stored_name, "labels"))
        return inputs, labels


def _unique_name(name: str, taken: set[str]) -> str:
    """``name``, or with the smallest number after it that is free: the second "all" is "all1"."""
    candidates = itertools.chain([name], (f"{name}{number}" for number in itertools.count(1)))
    return next(candidate for candidate in candidates if candidate not in taken)


def check_labelled(data: PuzzleDataset) -> None:
    """Check that the loss counts a label of every set.

    Raises:
        InputError: it counts none; naming the file.
    """
    ignored = data.metadata.ignore_label_id
    for part in data.parts:
        labels = part.arrays.labels
        chunks = (labels[start : start + _CHUNK] for start in range(0, len(labels), _CHUNK))
        if all((mark_ignored(chunk, ignored) == IGNORE_LABEL).all() for chunk in chunks):
            raise InputError(
                f"{array_path(part.folder, part.stored_name, 'labels')}: every label is ignored, "
                f"as ignore_label_id={ignored} and {IGNORE_LABEL} are: write the answers there, or "
                f"set ignore_label_id in {METADATA_FILE} to a value that no answer has"
            )


_CHUNK = 4096  # labels looked at at once: one counted label is enough


def puzzle_names(data: PuzzleDataset) -> list[str]:
    """A name for every puzzle identifier; of several datasets, numbered as in ``PuzzleDataset``.

    Raises:
        InputError: ``identifiers.json`` is absent, damaged, or of another dataset.
    """
    names: list[str] = []
    for directory in dict.fromkeys(part.folder.parent for part in data.parts):
        own = _read_names(directory / IDENTIFIERS_FILE)
        names += own[1:] if names else own  # all share the blank one
    if len(names) != data.metadata.num_puzzle_identifiers:
        raise InputError(
            f"{directory / IDENTIFIERS_FILE}: {len(names)} puzzles are named, but the dataset "
            f"counts {data.metadata.num_puzzle_identifiers}; rebuild the dataset"
        )
    return names


def known_names(data: PuzzleDataset) -> list[str] | None:
    """`puzzle_names`, or None where the data have only the blank puzzle or name none.

    Raises:
        InputError: as `puzzle_names`, but for a file that is absent.
    """
    folders = {part.folder.parent for part in data.parts}
    if data.metadata.num_puzzle_identifiers == 1:
        return None
    return puzzle_names(data) if all((f / IDENTIFIERS_FILE).exists() for f in folders) else None


def check_numbering(
    names: list[str] | None, source: object, data: PuzzleDataset, remedy: str
) -> None:
    """Check that the data number their puzzles as ``source`` does; None: not known, which passes.

    Raises:
        InputError: naming the first puzzle of the data that has another's number, and the remedy.
    """
    others = None if names is None else known_names(data)
    if others is None:
        return
    for number in np.unique(data.puzzle_identifiers).tolist():
        before = names[number] if number < len(names) else "no puzzle"
        if before != others[number]:
            folder = data.parts[0].folder.parent
            raise InputError(
                f"puzzle identifier {number} is {before} in {source} but {others[number]} in "
                f"{folder}: {remedy}"
            )


def unnamed(names: list[str] | None, source: object, data: PuzzleDataset) -> str | None:
    """A warning where `check_numbering` cannot compare, as one of the two names no puzzles."""
    if data.metadata.num_puzzle_identifiers == 1:
        return None
    place = source if names is None else data.parts[0].folder.parent
    if names is not None and known_names(data) is not None:
        return None
    return (
        f"{place} does not name its puzzles ({IDENTIFIERS_FILE}): they are taken by their numbers, "
        "which nothing checks"
    )


def saved_names(folder: Path) -> list[str] | None:
    """The names of a checkpoint's puzzle identifiers; None: it does not say.

    Raises:
        InputError: they are damaged.
    """
    path = folder / IDENTIFIERS_FILE
    return _read_names(path) if path.exists() else None


def _read_names(path: Path) -> list[str]:
    names = read_json(path, "rebuild the dataset", "rebuild the dataset")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{path} holds no list of names; rebuild the dataset")
    return names
