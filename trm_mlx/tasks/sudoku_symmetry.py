"""The symmetries of Sudoku: what can be done to a board so that it stays a valid puzzle.

The group is that of the published Sudoku-Extreme builder (``dataset/build_sudoku_dataset.py`` of
HRM and TRM); here a million boards are changed in a few array operations.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Symmetry:
    """A batch of N Sudoku symmetries: each moves the cells and renames the digits of one board.

    cells: [N, seq_len], the new board's cell i shows the old board's cell ``cells[i]``.
    digits: [N, size + 1], the new name of each digit; blanks stay blank, ``digits[:, 0] == 0``.
    """

    cells: np.ndarray
    digits: np.ndarray

    @classmethod
    def sample(cls, rng, count, box_rows, box_columns):
        """Draw `count` independent symmetries of boards with boxes of these sizes.

        Digits are permuted; bands, and rows inside a band, are permuted; so are stacks and
        columns; the board is transposed with probability 1/2 where its boxes are square.
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
        return cls(cells.reshape(count, size**2), digits)

    def apply(self, boards):
        """Cell values [N, seq_len], or [seq_len] for N images of one board, to [N, seq_len]."""
        rows = np.arange(len(self.cells))[:, None]
        boards = np.broadcast_to(boards, self.cells.shape)
        return self.digits[rows, boards[rows, self.cells]]

    def inverse(self):
        """The symmetries that undo these: ``s.inverse().apply(s.apply(boards)) == boards``."""
        return Symmetry(
            np.argsort(self.cells, axis=1).astype(np.uint8),
            np.argsort(self.digits, axis=1).astype(np.uint8),
        )


def _permutations(rng, shape):
    """Random permutations of 0..n-1 along the last axis of `shape`, uint8."""
    return rng.random(shape).argsort(axis=-1).astype(np.uint8)


def _line_permutations(rng, count, bands, lines):
    """Permutations of `bands` bands of `lines` lines each, [count, bands * lines]."""
    band = _permutations(rng, (count, bands))[:, :, None]
    line = _permutations(rng, (count, bands, lines))
    return (band * np.uint8(lines) + line).reshape(count, bands * lines)
