"""Permutations of cells and values, the form of all built-in symmetries but those of ARC."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Permutation:
    """N symmetries: each moves the cells of one board and, if it has values, replaces them.

    cells: integers ``[N, seq_len]``; the new board's cell i shows the old board's ``cells[i]``.
    values: ``[N, V]``, what replaces each of V cell values; None where they stay.
    """

    cells: np.ndarray
    values: np.ndarray | None = None

    def apply(self, boards: np.ndarray) -> np.ndarray:
        """Return the images ``[N, seq_len]`` of cell values ``[N, seq_len]`` or ``[seq_len]``."""
        boards = np.broadcast_to(boards, self.cells.shape)
        moved = _gather(boards, self.cells)
        return moved if self.values is None else _gather(self.values, moved)

    def move(self, numbers: np.ndarray, boards: np.ndarray) -> np.ndarray:
        """Move numbers ``[N, seq_len]`` or ``[seq_len]`` about the cells with those cells."""
        return _gather(np.broadcast_to(numbers, self.cells.shape), self.cells)

    def inverse(self) -> "Permutation":
        """Return the inverses: ``s.inverse().apply(s.apply(boards)) == boards``."""
        values = None if self.values is None else _inverse(self.values)
        return Permutation(_inverse(self.cells), values)


def _gather(tables: np.ndarray, places: np.ndarray) -> np.ndarray:
    """``tables[n, places[n, i]]`` for every n and i, several times faster than this indexing."""
    starts = np.arange(len(tables))[:, None] * tables.shape[1]
    return np.take(tables, starts + places)


def _inverse(permutations: np.ndarray) -> np.ndarray:
    return np.argsort(permutations, axis=1).astype(permutations.dtype)


def sample_box_symmetries(
    rng: np.random.Generator, count: int, box_rows: int, box_columns: int
) -> Permutation:
    """Draw ``count`` independent symmetries of boards with boxes of these sizes, uniformly.

    Digits are permuted, blanks stay; bands, and rows inside a band, are permuted; so are stacks
    and columns; the board is transposed with probability 1/2 where its boxes are square.
    """
    size = box_rows * box_columns
    digits = np.zeros((count, size + 1), np.uint8)
    digits[:, 1:] = _permutations(rng, (count, size)) + 1
    rows = _line_permutations(rng, count, box_columns, box_rows)[:, :, None]
    columns = _line_permutations(rng, count, box_rows, box_columns)[:, None, :]
    cells = rows * np.uint8(size) + columns
    if box_rows == box_columns:
        transposed = rng.random(count) < 0.5
        flipped = columns * np.uint8(size) + rows
        cells = np.where(transposed[:, None, None], flipped, cells)
    return Permutation(cells.reshape(count, size**2), digits)


def _permutations(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Random permutations of 0..n-1 along the last axis of ``shape``, uint8."""
    return rng.random(shape).argsort(axis=-1).astype(np.uint8)


def _line_permutations(rng: np.random.Generator, count: int, bands: int, lines: int) -> np.ndarray:
    """Permutations of ``bands`` bands of ``lines`` lines each, ``[count, bands * lines]``."""
    band = _permutations(rng, (count, bands))[:, :, None]
    line = _permutations(rng, (count, bands, lines))
    return (band * np.uint8(lines) + line).reshape(count, bands * lines)
