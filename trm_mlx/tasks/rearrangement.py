"""The one form that every built-in symmetry has: cells change places, values change names."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Rearrangement:
    """N symmetries: each moves the cells of one board and, if it has values, renames them.

    cells: integers [N, seq_len]; the new board's cell i shows the old board's cell ``cells[i]``.
    values: [N, V], the new name of each of V cell values; None where they keep their names.
    """

    cells: np.ndarray
    values: np.ndarray | None = None

    def apply(self, boards: np.ndarray) -> np.ndarray:
        """Cell values [N, seq_len], or [seq_len] for N images of one board, to [N, seq_len]."""
        boards = np.broadcast_to(boards, self.cells.shape)
        moved = _look_up(boards, self.cells)
        return moved if self.values is None else _look_up(self.values, moved)

    def move(self, numbers: np.ndarray, boards: np.ndarray) -> np.ndarray:
        """Numbers about the cells, [N, seq_len] or [seq_len], to the places of those cells."""
        return _look_up(np.broadcast_to(numbers, self.cells.shape), self.cells)

    def inverse(self) -> "Rearrangement":
        """The symmetries that undo these: ``s.inverse().apply(s.apply(boards)) == boards``."""
        values = None if self.values is None else _inverse(self.values)
        return Rearrangement(_inverse(self.cells), values)


def _look_up(tables: np.ndarray, places: np.ndarray) -> np.ndarray:
    """``tables[n, places[n, i]]`` for every n and i; several times faster than indexing so."""
    starts = np.arange(len(tables))[:, None] * tables.shape[1]
    return np.take(tables, starts + places)


def _inverse(permutations: np.ndarray) -> np.ndarray:
    return np.argsort(permutations, axis=1).astype(permutations.dtype)
