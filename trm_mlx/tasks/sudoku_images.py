"""Which Sudoku are images of each other: a cheap invariant of all images, and an exact test.

An image permutes digits, bands, stacks, and the lines inside them, and may transpose the board. The
invariant is that of colour refinement: every line and digit has a number, which is made anew of the
numbers of the lines and digits it meets, a few times over. Lines with numbers of their own say how
one board would become the other, and where some share one, each way of telling them apart is tried.
"""

import numpy as np

ROUNDS = 4
CHUNK = 4096  # boards whose numbers fit the processor's cache
_FACTORS = np.array([0xBF58476D1CE4E5B9, 0x94D049BB133111EB], np.uint64)
_MARKS = np.random.default_rng(5).integers(2**63, size=5, dtype=np.uint64)

Numbers = tuple[np.ndarray, np.ndarray, np.ndarray]  # of rows, columns [N, n], digits [N, n + 1]


def _mixed(numbers: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64, which leaves no arithmetic relation between numbers."""
    for shift, factor in ((30, _FACTORS[0]), (27, _FACTORS[1])):
        numbers = (numbers ^ (numbers >> np.uint64(shift))) * factor
    return numbers ^ (numbers >> np.uint64(31))


def _refined(boards: np.ndarray, rows: np.ndarray, columns: np.ndarray, box: tuple) -> Numbers:
    """The numbers of boards ``[N, n, n]`` whose lines have first numbers ``[N, n]``."""
    count, size, _ = boards.shape
    given = boards > 0
    digits = np.zeros((count, size + 1), np.uint64)
    cells = (np.arange(count)[:, None] * (size + 1) + boards.reshape(count, -1)).ravel()
    for _ in range(ROUNDS):
        met = _mixed(rows[:, :, None] + columns[:, None, :])  # a transposed board has the same
        digit = digits.reshape(-1)[cells].reshape(boards.shape)
        shown = np.where(given, _mixed(met ^ (digit + _MARKS[0])), np.uint64(0))
        found = np.zeros(count * (size + 1), np.uint64)
        np.add.at(found, cells, np.where(given, met, np.uint64(0)).ravel())
        digits = _mixed(found.reshape(digits.shape) + digits * _MARKS[1])
        boxes = shown.reshape(count, size // box[0], box[0], size // box[1], box[1])
        boxes = _mixed(boxes.sum(axis=(2, 4)) + _MARKS[2])  # [N, bands, stacks]
        lines = []
        for old, own, group, lines_of in (
            (rows, shown.sum(axis=2), boxes.sum(axis=2), box[0]),
            (columns, shown.sum(axis=1), boxes.sum(axis=1), box[1]),
        ):
            new = _mixed(own + old * _MARKS[3])
            grouped = new.reshape(count, -1, lines_of).sum(axis=2) + group
            lines.append(_mixed(new + np.repeat(_mixed(grouped), lines_of, axis=1) * _MARKS[4]))
        rows, columns = lines
    return rows, columns, digits


def keys(boards: np.ndarray, size: int, box: tuple[int, int]) -> np.ndarray:
    """A number for each board ``[N, cells]`` that all of its images share, uint64 ``[N]``."""
    found = np.empty(len(boards), np.uint64)
    for start in range(0, len(boards), CHUNK):
        some = boards[start : start + CHUNK].reshape(-1, size, size)
        zeros = np.zeros((len(some), size), np.uint64)
        rows, columns, _ = _refined(some, zeros, zeros, box)
        sums = [_mixed(numbers.sum(axis=1)) for numbers in (rows, columns)]
        # Boards of square boxes may be transposed.
        found[start : start + CHUNK] = _mixed(
            sums[0] + sums[1] * (np.uint64(1) if box[0] == box[1] else _MARKS[0])
        )
    return found


def are_images(
    boards: np.ndarray, others: np.ndarray, size: int, box: tuple[int, int]
) -> np.ndarray:
    """Which boards ``[N, cells]`` are images of the others ``[N, cells]``, bool ``[N]``."""
    found = (boards == others).all(axis=1)
    for start in range(0, len(boards), CHUNK):
        rows = np.flatnonzero(~found[start : start + CHUNK]) + start
        first, second = (b[rows].reshape(-1, size, size) for b in (boards, others))
        found[rows] = _match(first, second, box)
        if box[0] == box[1]:
            rest = rows[~found[rows]]
            first, second = (b[rest].reshape(-1, size, size) for b in (boards, others))
            found[rest] = _match(first, second.swapaxes(1, 2), box)
    return found


def _match(boards: np.ndarray, others: np.ndarray, box: tuple[int, int]) -> np.ndarray:
    """`are_images` without transposing, ``[N, n, n]``."""
    found = np.zeros(len(boards), bool)
    if not len(boards):
        return found
    zeros = np.zeros(boards.shape[:2], np.uint64)
    ours, theirs = (_refined(b, zeros, zeros, box)[:2] for b in (boards, others))
    same, tied = _compared(ours, theirs)
    plain = np.flatnonzero(same & ~tied)
    found[plain] = _carries(boards[plain], others[plain], *_picked(ours, theirs, plain), box)
    for row in np.flatnonzero(same & tied):
        pair = boards[row : row + 1], others[row : row + 1]
        found[row] = _search(*pair, *_picked(ours, theirs, slice(row, row + 1)), box)
    return found


def _picked(ours: tuple, theirs: tuple, rows: np.ndarray | slice) -> tuple[tuple, tuple]:
    return tuple(numbers[rows] for numbers in ours), tuple(numbers[rows] for numbers in theirs)


def _compared(ours: tuple, theirs: tuple) -> tuple[np.ndarray, np.ndarray]:
    """Where two boards have the same numbers, and where a line shares its number; bool ``[N]``."""
    same, tied = True, False
    for mine, other in zip(ours, theirs, strict=True):
        mine, other = np.sort(mine, axis=1), np.sort(other, axis=1)
        same &= (mine == other).all(axis=1)
        tied |= (mine[:, 1:] == mine[:, :-1]).any(axis=1)
    return same, tied


def _search(
    board: np.ndarray, other: np.ndarray, ours: tuple, theirs: tuple, box: tuple[int, int]
) -> bool:
    """Whether one board, ``[1, n, n]``, is an image: tells apart lines that share a number."""
    same, tied = _compared(ours, theirs)
    if not same[0]:
        return False
    if not tied[0]:
        return bool(_carries(board, other, ours, theirs, box)[0])
    for side in (0, 1):
        values, counts = np.unique(ours[side][0], return_counts=True)
        if (counts > 1).any():
            shared = values[counts > 1][0]
            break
    mine = _told_apart(board, ours, side, np.flatnonzero(ours[side][0] == shared)[0], box)
    return any(
        _search(board, other, mine, _told_apart(other, theirs, side, line, box), box)
        for line in np.flatnonzero(theirs[side][0] == shared)
    )


def _told_apart(board: np.ndarray, lines: tuple, side: int, line: int, box: tuple) -> tuple:
    """The numbers of a board once one of its rows (side 0) or columns (1) has its own."""
    lines = [numbers.copy() for numbers in lines]
    lines[side][0, line] ^= _MARKS[0]
    return _refined(board, *lines, box)[:2]


def _carries(
    boards: np.ndarray, others: np.ndarray, ours: tuple, theirs: tuple, box: tuple[int, int]
) -> np.ndarray:
    """Where sending each line to the one of its number makes an image, bool ``[N]``."""
    if not len(boards):
        return np.zeros(0, bool)
    orders = [
        (np.argsort(mine), np.argsort(other)) for mine, other in zip(ours, theirs, strict=True)
    ]
    right = np.ones(len(boards), bool)
    for (mine, other), lines in zip(orders, box, strict=True):
        right &= _one_to_one(mine // lines, other // lines, mine.shape[1])
    moved = [
        np.take_along_axis(
            np.take_along_axis(board, orders[0][place][:, :, None], 1),
            orders[1][place][:, None, :],
            2,
        ).reshape(len(board), -1)
        for place, board in enumerate((boards, others))
    ]
    right &= ((moved[0] == 0) == (moved[1] == 0)).all(axis=1)
    return right & _one_to_one(*moved, boards.shape[1] + 1)


def _one_to_one(values: np.ndarray, others: np.ndarray, limit: int) -> np.ndarray:
    """Where values and others ``[N, M]``, below ``limit``, stand for each other one to one."""
    pairs = np.zeros((len(values), limit, limit), bool)
    pairs[np.arange(len(values))[:, None], values, others] = True
    return (pairs.sum(axis=1) <= 1).all(axis=1) & (pairs.sum(axis=2) <= 1).all(axis=1)
