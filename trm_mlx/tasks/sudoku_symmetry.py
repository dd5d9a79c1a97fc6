"""The symmetries of Sudoku: what can be done to a board so that it stays a valid puzzle.

The group is that of the published Sudoku-Extreme builder (``dataset/build_sudoku_dataset.py`` of
HRM and TRM); here a million boards are changed in a few array operations.
"""

import numpy as np

from trm_mlx.tasks.rearrangement import Rearrangement


def sample(rng: np.random.Generator, count: int, box_rows: int, box_columns: int) -> Rearrangement:
    """Draw `count` independent symmetries of boards with boxes of these sizes.

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
    return Rearrangement(cells.reshape(count, size**2), digits)


def _permutations(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Random permutations of 0..n-1 along the last axis of `shape`, uint8."""
    return rng.random(shape).argsort(axis=-1).astype(np.uint8)


def _line_permutations(rng: np.random.Generator, count: int, bands: int, lines: int) -> np.ndarray:
    """Permutations of `bands` bands of `lines` lines each, [count, bands * lines]."""
    band = _permutations(rng, (count, bands))[:, :, None]
    line = _permutations(rng, (count, bands, lines))
    return (band * np.uint8(lines) + line).reshape(count, bands * lines)
