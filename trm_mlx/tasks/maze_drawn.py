"""Mazes as people draw them, compiled by numba: corridors, rooms, spirals, boxes, open fields.

Each function fills ``grid``, bool ``[side, side]``, True where one can go; `draw` picks one of
them, and turns, widens, frames and blurs what it drew.
"""

import numpy as np

from trm_mlx.numba_jit import compiled
from trm_mlx.tasks.maze_rooms import STEPS, below, braid, corridors, halls, rooms, scatter


@compiled
def serpentine(grid, rng):
    """Rows of corridors, each joined to the next at alternate ends, at one end, or anywhere."""
    grid[:] = True
    side, pitch = len(grid), 2 + below(3, rng)
    alternates, elsewhere = rng.random() < 0.65, 0.3 * rng.random() ** 2
    for number, wall in enumerate(range(pitch - 1, side, pitch)):
        grid[wall] = False
        grid[wall, side - 1 if number % 2 == 0 or not alternates else 0] = True
        if rng.random() < elsewhere:
            grid[wall, below(side, rng)] = True


@compiled
def spiral(grid, rng):
    """A way, or a wall with room for a way beside it, that turns right before it meets itself."""
    side = len(grid)
    walls = rng.random() < 0.5
    gap = 1 + below(3, rng) if walls else 1
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
def boxes(grid, rng):
    """Boxes in boxes, each with a door or two."""
    grid[:] = True
    side, pitch = len(grid), 2 + below(3, rng)
    for low in range(below(2, rng), side // 2 - 1, pitch):
        high = side - 1 - low
        grid[low, low : high + 1] = False
        grid[high, low : high + 1] = False
        grid[low : high + 1, low] = False
        grid[low : high + 1, high] = False
        for _ in range(1 + below(2, rng)):
            place = low + 1 + below(high - low - 1, rng)
            wall = low if rng.random() < 0.5 else high
            if rng.random() < 0.5:
                grid[wall, place] = True
            else:
                grid[place, wall] = True


@compiled
def field(grid, rng):
    """An open field with some blocks and some straight or slanting walls, or with nothing."""
    grid[:] = True
    side = len(grid)
    for _ in range(below(7, rng)):
        top, left = below(side, rng), below(side, rng)
        grid[top : top + 1 + below(side // 3, rng), left : left + 1 + below(side // 3, rng)] = False
    for _ in range(below(9, rng)):
        row, column, length = below(side, rng), below(side, rng), 2 + below(side, rng)
        down, across = below(3, rng) - 1, below(3, rng) - 1
        while length > 0 and 0 <= row < side and 0 <= column < side and (down or across):
            grid[row, column] = False
            row, column, length = row + down, column + across, length - 1


@compiled
def _draw(grid, rng):
    kind = rng.random()
    if kind < 0.16:
        scatter(grid, 0.5 * rng.random(), rng)
    elif kind < 0.36:
        corridors(grid, 1.0 if rng.random() < 0.6 else rng.random(), rng)
    elif kind < 0.50:
        corridors(grid, 1.0 if rng.random() < 0.6 else rng.random(), rng)
        braid(grid, 0.02 + 0.5 * rng.random() ** 2, rng)
    elif kind < 0.60:
        halls(grid, rng)
    elif kind < 0.68:
        rooms(grid, rng)
    elif kind < 0.76:
        serpentine(grid, rng)
    elif kind < 0.84:
        spiral(grid, rng)
    elif kind < 0.90:
        boxes(grid, rng)
    else:
        field(grid, rng)


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
