"""Mazes as people draw them, compiled by numba: corridors, rooms, spirals, boxes, open fields.

Each function fills ``grid``, bool ``[side, side]``, True where one can go; `draw` picks one of
them, and turns, widens, frames and blurs what it drew.
"""

import numpy as np

from trm_mlx.numba_jit import compiled

STEPS = np.array([[0, 1], [1, 0], [0, -1], [-1, 0]])  # right, down, left, up: a turn to the right


@compiled
def _below(count, rng):
    """A random whole number from 0 up to, but not including, ``count``."""
    return int(rng.random() * count)


@compiled
def _scatter(grid, share, rng):
    """Walls at random cells."""
    for row in range(len(grid)):
        for column in range(len(grid)):
            grid[row, column] = rng.random() >= share


@compiled
def _corridors(grid, stickiness, rng):
    """One way between any two rooms, which are every other cell of every other row.

    It grows from its newest room, in long winding ways, or from any, in short bushy ones.
    """
    grid[:] = False
    rooms = (len(grid) + 1) // 2
    grown = np.empty((rooms * rooms, 2), np.int64)
    grown[0] = _below(rooms, rng), _below(rooms, rng)
    grid[2 * grown[0, 0], 2 * grown[0, 1]] = True
    length = 1
    while length > 0:
        place = length - 1 if rng.random() < stickiness else _below(length, rng)
        row, column = grown[place]
        found, to_row, to_column = 0, 0, 0
        for i in range(4):
            r, c = row + STEPS[i, 0], column + STEPS[i, 1]
            if 0 <= r < rooms and 0 <= c < rooms and not grid[2 * r, 2 * c]:
                found += 1
                if _below(found, rng) == 0:
                    to_row, to_column = r, c
        if found == 0:
            length -= 1
            grown[place] = grown[length]
            continue
        grid[row + to_row, column + to_column] = True
        grid[2 * to_row, 2 * to_column] = True
        grown[length] = to_row, to_column
        length += 1


@compiled
def _braid(grid, share, rng):
    """Opens a share of the walls between neighbouring rooms of `_corridors`: ways meet again."""
    side = len(grid) - 1 + len(grid) % 2
    for row in range(side):
        for column in range(side):
            if (row + column) % 2 and rng.random() < share:
                grid[row, column] = True


@compiled
def _halls(grid, rng):
    """Rooms within rooms: walls at odd places, doors at even ones, until a room is small."""
    grid[:] = True
    last = len(grid) - 2 + len(grid) % 2  # even
    if last < len(grid) - 1:
        grid[-1] = False
        grid[:, -1] = False
    least = 2 + 2 * _below(3, rng)
    waiting = [(0, 0, last, last)]
    while len(waiting) > 0:
        top, left, bottom, right = waiting.pop()
        height, width = bottom - top, right - left
        across = height > width or (height == width and rng.random() < 0.5)
        if max(height, width) <= least:
            continue
        if across:
            wall = top + 1 + 2 * _below(height // 2, rng)
            grid[wall, left : right + 1] = False
            for _ in range(1 if rng.random() < 0.75 else 2):
                grid[wall, left + 2 * _below(width // 2 + 1, rng)] = True
            waiting.append((top, left, wall - 1, right))
            waiting.append((wall + 1, left, bottom, right))
        else:
            wall = left + 1 + 2 * _below(width // 2, rng)
            grid[top : bottom + 1, wall] = False
            for _ in range(1 if rng.random() < 0.75 else 2):
                grid[top + 2 * _below(height // 2 + 1, rng), wall] = True
            waiting.append((top, left, bottom, wall - 1))
            waiting.append((top, wall + 1, bottom, right))


@compiled
def _rooms(grid, rng):
    """Rooms of equal size in rows and columns, with doors between most neighbours."""
    grid[:] = True
    side = len(grid)
    high, wide = 3 + _below(5, rng), 3 + _below(5, rng)
    doors = 0.5 + 0.5 * rng.random()
    for wall in range(high - 1, side, high):
        grid[wall] = False
    for wall in range(wide - 1, side, wide):
        grid[:, wall] = False
    for top in range(0, side, high):
        for left in range(0, side, wide):
            row = min(top + _below(high - 1, rng), side - 1)
            column = min(left + _below(wide - 1, rng), side - 1)
            if left + wide - 1 < side and rng.random() < doors:
                grid[row, left + wide - 1] = True
            if top + high - 1 < side and rng.random() < doors:
                grid[top + high - 1, column] = True


@compiled
def _serpentine(grid, rng):
    """Rows of corridors, each joined to the next at alternate ends, at one end, or anywhere."""
    grid[:] = True
    side, pitch = len(grid), 2 + _below(3, rng)
    alternates, elsewhere = rng.random() < 0.65, 0.3 * rng.random() ** 2
    for number, wall in enumerate(range(pitch - 1, side, pitch)):
        grid[wall] = False
        grid[wall, side - 1 if number % 2 == 0 or not alternates else 0] = True
        if rng.random() < elsewhere:
            grid[wall, _below(side, rng)] = True


@compiled
def _spiral(grid, rng):
    """A way, or a wall with room for a way beside it, that turns right before it meets itself."""
    side = len(grid)
    walls = rng.random() < 0.5
    gap = 1 + _below(3, rng) if walls else 1
    edge = gap if walls else 0
    grid[:] = walls
    row, column, turn, turns = edge, 0, 0, 0
    while turns < 2 and row < side:
        grid[row, column] = not walls
        r, c = row + STEPS[turn, 0], column + STEPS[turn, 1]
        free = 0 <= r + edge * STEPS[turn, 0] < side and 0 <= c + edge * STEPS[turn, 1] < side
        for ahead in range(1, gap + 2):
            y, x = row + ahead * STEPS[turn, 0], column + ahead * STEPS[turn, 1]
            if 0 <= y < side and 0 <= x < side and grid[y, x] != walls:
                free = False
        if free:
            row, column, turns = r, c, 0
        else:
            turn, turns = (turn + 1) % 4, turns + 1


@compiled
def _boxes(grid, rng):
    """Boxes in boxes, each with a door or two."""
    grid[:] = True
    side, pitch = len(grid), 2 + _below(3, rng)
    for low in range(_below(2, rng), side // 2 - 1, pitch):
        high = side - 1 - low
        grid[low, low : high + 1] = False
        grid[high, low : high + 1] = False
        grid[low : high + 1, low] = False
        grid[low : high + 1, high] = False
        for _ in range(1 + _below(2, rng)):
            place = low + 1 + _below(high - low - 1, rng)
            wall = low if rng.random() < 0.5 else high
            if rng.random() < 0.5:
                grid[wall, place] = True
            else:
                grid[place, wall] = True


@compiled
def _field(grid, rng):
    """An open field with some blocks and some straight or slanting walls, or with nothing."""
    grid[:] = True
    side = len(grid)
    for _ in range(_below(7, rng)):
        top, left = _below(side, rng), _below(side, rng)
        grid[top : top + 1 + _below(side // 3, rng), left : left + 1 + _below(side // 3, rng)] = (
            False
        )
    for _ in range(_below(9, rng)):
        row, column, length = _below(side, rng), _below(side, rng), 2 + _below(side, rng)
        down, across = _below(3, rng) - 1, _below(3, rng) - 1
        while length > 0 and 0 <= row < side and 0 <= column < side and (down or across):
            grid[row, column] = False
            row, column, length = row + down, column + across, length - 1


@compiled
def _draw(grid, rng):
    kind = rng.random()
    if kind < 0.16:
        _scatter(grid, 0.5 * rng.random(), rng)
    elif kind < 0.36:
        _corridors(grid, 1.0 if rng.random() < 0.6 else rng.random(), rng)
    elif kind < 0.50:
        _corridors(grid, 1.0 if rng.random() < 0.6 else rng.random(), rng)
        _braid(grid, 0.02 + 0.5 * rng.random() ** 2, rng)
    elif kind < 0.60:
        _halls(grid, rng)
    elif kind < 0.68:
        _rooms(grid, rng)
    elif kind < 0.76:
        _serpentine(grid, rng)
    elif kind < 0.84:
        _spiral(grid, rng)
    elif kind < 0.90:
        _boxes(grid, rng)
    else:
        _field(grid, rng)


@compiled
def draw(passable, side, rng):
    """Fills ``passable``, bool ``[side**2]``, with a maze of any kind, in any of its 8 images."""
    frame = 1 if rng.random() < 0.5 and side >= 7 else 0
    inner = side - 2 * frame
    wide = rng.random()
    width = 1 if wide < 0.75 or inner < 12 else 2 if wide < 0.92 or inner < 18 else 3
    grid = np.empty((-(-inner // width), -(-inner // width)), np.bool_)
    _draw(grid, rng)
    mirrored, flipped, turned = rng.random() < 0.5, rng.random() < 0.5, rng.random() < 0.5
    passable[:] = False
    for row in range(inner):
        for column in range(inner):
            r = (inner - 1 - row if flipped else row) // width
            c = (inner - 1 - column if mirrored else column) // width
            value = grid[c, r] if turned else grid[r, c]
            passable[(row + frame) * side + column + frame] = value
    if rng.random() < 0.3:
        share = 0.03 * rng.random()
        for cell in range(side * side):
            if rng.random() < share:
                passable[cell] = not passable[cell]
