"""Smaller canvases for ARC puzzles: the one a puzzle needs, and moving boards onto it and back.

Datasets store 30x30 canvases, of which most grids cover little. To positions that know rows and
columns a smaller canvas is the same picture, at a fraction of the cost.
"""

from collections.abc import Sequence

import numpy as np

from trm_mlx.tasks.arc import END, FIRST_COLOUR, PAD, SIZE

Shape = tuple[int, int]


def smallest_side(extent: int, sides: Sequence[int]) -> int:
    """Return the smallest side that holds grids of ``extent`` cells and their end marks.

    At 30 the marks may not fit, as published.
    """
    return min((side for side in sides if extent < side), default=SIZE)


def known_extent(pairs: Sequence[tuple[Shape, Shape]], questions: Sequence[Shape]) -> int:
    """Return the rows or columns that a puzzle's grids will have at most, by what is known of them.

    The answers are taken to be larger than their questions by the largest factor of the pairs.

    Args:
        pairs: rows and columns of the input and of the output of each training pair.
        questions: of the test inputs.
    """
    shapes, asked = np.array(pairs), np.array(questions)
    factor = (shapes[:, 1] / shapes[:, 0]).max()
    expected = np.ceil(asked.max() * factor)
    return int(min(SIZE, max(shapes.max(), asked.max(), expected)))


def largest_extent(canvases: np.ndarray) -> int:
    """Return the largest number of rows or columns of the grids on canvases ``[N, 900]``."""
    _, sizes = _places(canvases)
    return int(sizes.max())


def fit_to(
    inputs: np.ndarray, labels: np.ndarray, side: int, ignored: int
) -> tuple[np.ndarray, np.ndarray]:
    """Move pairs from stored canvases ``[N, 900]`` onto canvases ``[N, side * side]``.

    A grid that was moved along its canvas by a share of the room there is moved by the same share
    of the room that is left. What does not fit is cut off.

    Args:
        ignored: the label of cells outside a grid.
    """
    places, sizes = _places(inputs)
    label_places, label_sizes = _places(labels)
    largest = np.maximum(sizes, label_sizes)
    moved = places * (np.maximum(side - largest, 0) + 1) // (SIZE - largest + 1)
    return (
        _moved(inputs, places, sizes, moved, side, PAD),
        _moved(labels, label_places, label_sizes, moved, side, ignored),
    )


def restore(values: np.ndarray, side: int, empty: int = 0) -> np.ndarray:
    """Put values ``[N, side * side, ...]`` at the top left of empty canvases ``[N, 900, ...]``."""
    count, _, *rest = values.shape
    canvases = np.full((count, SIZE, SIZE, *rest), empty, values.dtype)
    canvases[:, :side, :side] = values.reshape(count, side, side, *rest)
    return canvases.reshape(count, SIZE**2, *rest)


def _places(canvases: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first row and column of each canvas's colours, and how many: two ``[N, 2]``."""
    coloured = canvases.reshape(-1, SIZE, SIZE) >= FIRST_COLOUR
    lines = np.stack([coloured.any(axis=2), coloured.any(axis=1)], axis=1)
    return lines.argmax(axis=2), lines.sum(axis=2)


def _moved(
    canvases: np.ndarray,
    places: np.ndarray,
    sizes: np.ndarray,
    moved: np.ndarray,
    side: int,
    empty: int,
) -> np.ndarray:
    """The grids at ``places`` on canvases of ``side``, at ``moved``, with their end marks."""
    count = len(canvases)
    # By axis, canvas and line of the new canvas: its line of the grid, whether within or the end.
    lines = np.arange(side) - moved.T[:, :, None]
    within = (lines >= 0) & (lines < sizes.T[:, :, None])
    ends = (lines == sizes.T[:, :, None]) & (sizes.T[:, :, None] > 0)
    rows, columns = np.where(within, lines + places.T[:, :, None], 0)
    cells = canvases.reshape(count, SIZE, SIZE)
    grids = cells[np.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]
    inside = within[0][:, :, None] & within[1][:, None, :]
    marks = (ends[0][:, :, None] & within[1][:, None, :]) | (
        within[0][:, :, None] & ends[1][:, None, :]
    )
    board = np.where(inside, grids, np.where(marks, END, empty))
    return board.reshape(count, side**2).astype(canvases.dtype)
