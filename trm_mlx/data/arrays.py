"""The five arrays of one set of a dataset, and what must hold of them."""

import warnings
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from tokenize import TokenError
from typing import Protocol

import numpy as np

from trm_mlx.data.format import SET_NAME, DatasetMetadata
from trm_mlx.errors import InputError
from trm_mlx.files import open_regular

IGNORE_LABEL = -100  # the label in a batch that the loss does not count
INDICES = ("puzzle_identifiers", "puzzle_indices", "group_indices")  # of a `SplitArrays`


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
        """Open and validate a set: tokens memory-mapped, the small index arrays as int64.

        Raises:
            InputError: a file, which it names, is absent, damaged or inconsistent.
        """
        stored = cls(*(open_array(array_path(folder, set_name, f.name)) for f in fields(cls)))
        identifiers = metadata.num_puzzle_identifiers
        stored.validate(
            folder, set_name, seq_len=metadata.seq_len, num_puzzle_identifiers=identifiers
        )
        indices = {field: np.array(getattr(stored, field), np.int64) for field in INDICES}
        return replace(stored, **indices)

    def validate(
        self,
        folder: str | Path,
        set_name: str = SET_NAME,
        *,
        seq_len: int,
        num_puzzle_identifiers: int,
    ) -> None:
        """Check that shapes and offsets agree.

        Token values are not read here, since the arrays may be large and memory-mapped: see
        ``check_tokens``.

        Raises:
            InputError: they do not; it names the file in ``folder``.
        """
        examples = len(self.inputs)
        for field, array in (("inputs", self.inputs), ("labels", self.labels)):
            require = partial(_require, folder, set_name, field)
            require(array.dtype.kind in "iu", f"holds {array.dtype}, not integers")
            require(array.ndim == 2, f"shape {array.shape} is not 2-D")
            require(examples > 0, "holds no examples")
            expected = (examples, seq_len)
            require(array.shape == expected, f"shape {array.shape} is not {expected}")
        check_offsets(self, examples, num_puzzle_identifiers, folder, set_name)


class Offsets(Protocol):
    """The index arrays of a `SplitArrays`, or of what has the same ones."""

    puzzle_identifiers: np.ndarray
    puzzle_indices: np.ndarray
    group_indices: np.ndarray


def check_offsets(
    stored: Offsets, examples: int, num_puzzle_identifiers: int, folder: str | Path, set_name: str
) -> None:
    """Check that the index arrays of a set agree.

    Raises:
        InputError: they do not; it names the file in ``folder``.
    """
    require = partial(_require, folder, set_name)
    for field in INDICES:
        array = getattr(stored, field)
        require(field, array.dtype.kind in "iu", f"holds {array.dtype}, not integers")
        require(field, array.ndim == 1, f"shape {array.shape} is not 1-D")
    puzzles, groups = len(stored.puzzle_identifiers), len(stored.group_indices) - 1
    for field, owners, end in (
        ("puzzle_indices", puzzles, examples),
        ("group_indices", max(groups, 1), puzzles),
    ):
        offsets = getattr(stored, field)
        length = len(offsets)
        require(field, length == owners + 1, f"has {length} offsets, not {owners + 1}")
        require(field, offsets[0] == 0, f"starts at {offsets[0]}, not 0")
        require(field, not (offsets[1:] < offsets[:-1]).any(), "offsets decrease")
        require(field, offsets[-1] == end, f"ends at {offsets[-1]}, not {end}")
    lowest, highest = stored.puzzle_identifiers.min(), stored.puzzle_identifiers.max()
    require(
        "puzzle_identifiers",
        lowest >= 0 and highest < num_puzzle_identifiers,
        f"identifiers {lowest} to {highest} do not fit 0 to {num_puzzle_identifiers - 1}",
    )


def _require(folder: str | Path, set_name: str, field: str, condition: bool, problem: str) -> None:
    if not condition:
        path = array_path(folder, set_name, field)
        raise InputError(f"{path}: {problem}; rebuild the dataset")


def open_array(path: Path, remedy: str = "rebuild the dataset") -> np.ndarray:
    """A .npy file, memory-mapped.

    Raises:
        InputError: it is absent or damaged.
    """
    try:
        open_regular(path).close()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of headers that Python 2 wrote, such as "1L"
            return np.lib.format.open_memmap(path, mode="r")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; {remedy}") from error
    except (ValueError, TypeError, OverflowError, SyntaxError, TokenError) as error:
        # Not .npy, cut short, pickled objects, or a header that NumPy cannot make sense of.
        raise InputError(f"{path} is damaged ({error}); {remedy}") from error


def array_path(folder: str | Path, set_name: str, field: str) -> Path:
    """Where a field of SplitArrays is stored; ``folder`` is DIR/{split}."""
    return Path(folder) / f"{set_name}__{field}.npy"


def check_tokens(tokens: np.ndarray, vocab_size: int, path: str | Path) -> None:
    """Check that every token lies in 0 .. vocab_size - 1.

    Raises:
        InputError: one does not; it names ``path``.
    """
    lowest, highest = tokens.min(), tokens.max()
    if lowest < 0 or highest >= vocab_size:
        token = lowest if lowest < 0 else highest
        raise InputError(
            f"{path}: token {token} is outside the vocabulary (0 to {vocab_size - 1}); "
            "rebuild the dataset or correct vocab_size"
        )


def mark_ignored(labels: np.ndarray, ignore_label_id: int | None) -> np.ndarray:
    """Labels as int64 with ``ignore_label_id``, if any, replaced by IGNORE_LABEL; same shape."""
    marked = labels.astype(np.int64)
    if ignore_label_id is not None:
        marked[marked == ignore_label_id] = IGNORE_LABEL
    return marked
