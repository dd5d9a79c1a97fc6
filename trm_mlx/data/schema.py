"""What a dataset directory holds: the file names, dataset.json and the five arrays of one set.

The layout is the published one (dataset/common.py and puzzle_dataset.py of HRM,
https://github.com/sapientinc/HRM, kept by https://github.com/SamsungSAILMontreal/TinyRecursiveModels):

    DIR/identifiers.json                  name of every puzzle identifier; entry 0 is "<blank>"
    DIR/{split}/dataset.json              DatasetMetadata
    DIR/{split}/{set}__{array}.npy        SplitArrays, one file per field

Three levels: a group (one original puzzle) owns puzzles (its augmented versions), and a puzzle owns
examples (one for Sudoku and mazes, several for ARC).
"""

import json
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from tokenize import TokenError

import numpy as np

from trm_mlx.data.json_file import read_json
from trm_mlx.errors import InputError, shortened

IGNORE_LABEL = -100  # the label in a batch that the loss does not count
METADATA_FILE = "dataset.json"
IDENTIFIERS_FILE = "identifiers.json"
SET_NAME = "all"  # the one set that the published builders write

_JSON_TYPES = {  # every other field of DatasetMetadata is an int
    "ignore_label_id": (int, type(None)),
    "mean_puzzle_examples": (int, float),
    "sets": list,
    "task": (str, type(None)),
}


@dataclass(frozen=True)
class DatasetMetadata:
    """The contents of dataset.json, fields in the published order.

    docs/file_formats.md says what each of them means.
    """

    pad_id: int
    ignore_label_id: int | None  # this label on disk becomes IGNORE_LABEL in a batch
    blank_identifier_id: int
    vocab_size: int
    seq_len: int
    num_puzzle_identifiers: int
    total_groups: int
    mean_puzzle_examples: float
    total_puzzles: int
    sets: list[str]
    task: str | None = None  # its name, for `tasks.get`; not in published datasets

    @classmethod
    def read(cls, path: str | Path) -> "DatasetMetadata":
        """Reads and checks a dataset.json; keys of other tools are ignored.

        Raises InputError if the file is absent, is not JSON, or lacks or mistypes a key.
        """
        kinds = {field.name: _JSON_TYPES.get(field.name, int) for field in fields(cls)}
        content = read_keys(path, kinds, defaults={"task": None})
        for name in ("vocab_size", "seq_len", "num_puzzle_identifiers", "total_groups"):
            if content[name] < 1:
                raise InputError(
                    f"{path}: '{name}' is {shortened(content[name])}; it must be at least 1"
                )
        sets = content["sets"]
        if not sets or not all(isinstance(name, str) for name in sets):
            raise InputError(
                f"{path}: 'sets' is {shortened(sets)}; it must list names, such as ['all']"
            )
        return cls(**content)

    @classmethod
    def of_puzzles(
        cls,
        vocab_size: int,
        seq_len: int,
        puzzles: int,
        num_puzzle_identifiers: int = 1,
        task: str | None = None,
    ) -> "DatasetMetadata":
        """One set of puzzles of one example and one group each, padded and ignored where 0."""
        return cls(
            pad_id=0,
            ignore_label_id=0,
            blank_identifier_id=0,
            vocab_size=vocab_size,
            seq_len=seq_len,
            num_puzzle_identifiers=num_puzzle_identifiers,
            total_groups=puzzles,
            mean_puzzle_examples=1.0,
            total_puzzles=puzzles,
            sets=[SET_NAME],
            task=task,
        )

    def write(self, path: str | Path) -> None:
        """Writes the one-line JSON that `read` and the published loaders read."""
        content = asdict(self)
        if self.task is None:
            del content["task"]
        Path(path).write_text(json.dumps(content), encoding="utf-8")


@dataclass(frozen=True)
class SplitArrays:
    """One set of examples. N examples of S tokens belong to P puzzles, which belong to G groups.

    All arrays hold integers. inputs, labels: tokens ``[N, S]``; puzzle_identifiers ``[P]``: rows of
    the puzzle embedding; puzzle_indices ``[P+1]``: puzzle p owns the examples from
    ``puzzle_indices[p]`` to ``puzzle_indices[p + 1] - 1``; group_indices ``[G+1]``: group g owns
    the puzzles from ``group_indices[g]`` to ``group_indices[g + 1] - 1``.
    """

    inputs: np.ndarray
    labels: np.ndarray
    puzzle_identifiers: np.ndarray
    puzzle_indices: np.ndarray
    group_indices: np.ndarray

    @classmethod
    def of(cls, inputs: np.ndarray, labels: np.ndarray) -> "SplitArrays":
        """Examples on their own, tokens ``[N, S]``: each its own puzzle and group, identifier 0."""
        ends = np.arange(len(inputs) + 1, dtype=np.int32)
        return cls(inputs, labels, np.zeros(len(inputs), np.int32), ends, ends)

    @classmethod
    def read(cls, folder: Path, set_name: str, metadata: DatasetMetadata) -> "SplitArrays":
        """Opens and validates a set: tokens memory-mapped, the small index arrays as int64.

        Raises InputError, naming the file, if one is absent, damaged or inconsistent.
        """
        arrays = {}
        for field in fields(cls):
            arrays[field.name] = open_array(array_path(folder, set_name, field.name))
        stored = cls(**arrays)
        identifiers = metadata.num_puzzle_identifiers
        stored.validate(
            folder, set_name, seq_len=metadata.seq_len, num_puzzle_identifiers=identifiers
        )
        return replace(
            stored,
            puzzle_identifiers=np.array(stored.puzzle_identifiers, np.int64),
            puzzle_indices=np.array(stored.puzzle_indices, np.int64),
            group_indices=np.array(stored.group_indices, np.int64),
        )

    def validate(
        self,
        folder: str | Path,
        set_name: str = SET_NAME,
        *,
        seq_len: int,
        num_puzzle_identifiers: int,
    ) -> None:
        """Raises InputError, naming the file in `folder`, unless shapes and offsets agree.

        Token values are not read here, since the arrays may be large and memory-mapped: see
        `check_tokens`.
        """
        examples = len(self.inputs)
        for field, array in (("inputs", self.inputs), ("labels", self.labels)):
            require = partial(_require, folder, set_name, field)
            require(array.dtype.kind in "iu", f"holds {array.dtype}, not integers")
            require(array.ndim == 2, f"shape {array.shape} is not 2-D")
            require(examples > 0, "holds no examples")
            expected = (examples, seq_len)
            require(array.shape == expected, f"shape {array.shape} is not {expected}")
        check_offsets(
            folder,
            set_name,
            examples,
            self.puzzle_identifiers,
            self.puzzle_indices,
            self.group_indices,
            num_puzzle_identifiers,
        )


def check_offsets(
    folder: str | Path,
    set_name: str,
    examples: int,
    puzzle_identifiers: np.ndarray,
    puzzle_indices: np.ndarray,
    group_indices: np.ndarray,
    num_puzzle_identifiers: int,
) -> None:
    """Raises InputError, naming the file in `folder`, unless the index arrays of a set agree."""
    require = partial(_require, folder, set_name)
    for field, array in (
        ("puzzle_identifiers", puzzle_identifiers),
        ("puzzle_indices", puzzle_indices),
        ("group_indices", group_indices),
    ):
        require(field, array.dtype.kind in "iu", f"holds {array.dtype}, not integers")
        require(field, array.ndim == 1, f"shape {array.shape} is not 1-D")
    puzzles = len(puzzle_identifiers)
    for field, offsets, owners, end in (
        ("puzzle_indices", puzzle_indices, puzzles, examples),
        ("group_indices", group_indices, max(len(group_indices) - 1, 1), puzzles),
    ):
        length = len(offsets)
        require(field, length == owners + 1, f"has {length} offsets, not {owners + 1}")
        require(field, offsets[0] == 0, f"starts at {offsets[0]}, not 0")
        require(field, not (offsets[1:] < offsets[:-1]).any(), "offsets decrease")
        require(field, offsets[-1] == end, f"ends at {offsets[-1]}, not {end}")
    lowest, highest = puzzle_identifiers.min(), puzzle_identifiers.max()
    require(
        "puzzle_identifiers",
        lowest >= 0 and highest < num_puzzle_identifiers,
        f"identifiers {lowest} to {highest} do not fit 0 to {num_puzzle_identifiers - 1}",
    )


def _require(folder: str | Path, set_name: str, field: str, condition: bool, problem: str) -> None:
    if not condition:
        path = array_path(folder, set_name, field)
        raise InputError(f"{path}: {shortened(problem)}; rebuild the dataset")


def merge_metadata(
    folders: list[Path], parts: list[DatasetMetadata], sets: list[str]
) -> DatasetMetadata:
    """The metadata of several datasets, read from `folders`, taken as one whose sets are `sets`.

    total_groups * mean_puzzle_examples stays the sum over the parts. Raises InputError if the parts
    encode puzzles differently.
    """
    first = parts[0]
    if len(parts) == 1:
        return first
    for folder, other in zip(folders, parts, strict=True):
        for name in ("seq_len", "vocab_size", "pad_id", "ignore_label_id", "blank_identifier_id"):
            here, there = getattr(first, name), getattr(other, name)
            if here != there:
                raise InputError(
                    f"{name} is {here} in {folders[0]} but {there} in {folder}; use one at a time"
                )
    if first.blank_identifier_id != 0:
        raise InputError(
            f"{folders[0]}: blank_identifier_id is {first.blank_identifier_id}; "
            "only datasets where it is 0 can be mixed"
        )
    groups = sum(part.total_groups for part in parts)
    visited = sum(part.total_groups * part.mean_puzzle_examples for part in parts)
    return replace(
        first,
        num_puzzle_identifiers=1 + sum(part.num_puzzle_identifiers - 1 for part in parts),
        total_groups=groups,
        mean_puzzle_examples=visited / groups,
        total_puzzles=sum(part.total_puzzles for part in parts),
        sets=sets,
        task=first.task if len({part.task for part in parts}) == 1 else None,
    )


def read_keys(
    path: str | Path, kinds: dict[str, type | tuple[type, ...]], defaults: dict | None = None
) -> dict:
    """The keys of a dataset.json that `kinds` names, with their types; others are ignored.

    Raises InputError if the file is absent, is not JSON, or lacks or mistypes a key.
    """
    content = read_json(path, "build the dataset first", "rebuild the dataset")
    if not isinstance(content, dict):
        raise InputError(f"{path}: must hold a JSON object; rebuild the dataset")
    content = {**(defaults or {}), **content}
    for name, kind in kinds.items():
        if name not in content:
            raise InputError(f"{path}: key '{name}' is missing; rebuild the dataset")
        value = content[name]
        if isinstance(value, bool) or not isinstance(value, kind):
            raise InputError(
                f"{path}: '{name}' has the wrong type: {shortened(repr(value))}; correct it"
            )
    return {name: content[name] for name in kinds}


def open_array(path: Path) -> np.ndarray:
    """A .npy file, memory-mapped; InputError, naming it, if it is absent or damaged."""
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; rebuild the dataset") from error
    except (ValueError, TypeError, OverflowError, SyntaxError, TokenError) as error:
        # Not .npy, cut short, pickled objects, or a header that NumPy cannot make sense of.
        raise InputError(f"{path} is damaged ({error}); rebuild the dataset") from error


def array_path(folder: str | Path, set_name: str, field: str) -> Path:
    """Where a field of SplitArrays is stored; `folder` is DIR/{split}."""
    return Path(folder) / f"{set_name}__{field}.npy"


def check_tokens(tokens: np.ndarray, vocab_size: int, path: str | Path) -> None:
    """Raises InputError, naming `path`, if a token lies outside 0 .. vocab_size - 1."""
    lowest, highest = tokens.min(), tokens.max()
    if lowest < 0 or highest >= vocab_size:
        token = lowest if lowest < 0 else highest
        raise InputError(
            f"{path}: token {token} is outside the vocabulary (0 to {vocab_size - 1}); "
            "rebuild the dataset or correct vocab_size"
        )


def mark_ignored(labels: np.ndarray, ignore_label_id: int | None) -> np.ndarray:
    """Labels as int64 with `ignore_label_id`, if any, replaced by IGNORE_LABEL; same shape."""
    marked = labels.astype(np.int64)
    if ignore_label_id is not None:
        marked[marked == ignore_label_id] = IGNORE_LABEL
    return marked
