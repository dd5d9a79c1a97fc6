"""Walls at random, corridors and rooms, compiled by numba: the half of what `maze_drawn` draws.

Each function fills ``grid``, bool ``[side, side]``, True where one can go.
"""

import numpy as np

from trm_mlx.numba_jit import compiled

STEPS = np.array([[0, 1], [1, 0], [0, -1], [-1, 0]])  # right, down, left, up: a turn to the right


@compiled
def below(count, rng):
    """A random whole number from 0 up to, but not including, ``count``."""
    return int(rng.random() * count)


@compiled
def scatter(grid, share, rng):
    """Walls at random cells."""
    for row in range(len(grid)):
        for column in range(len(grid)):
            grid[row, column] = rng.random() >= share


@compiled
def corridors(grid, stickiness, rng):
    """One way between any two rooms, which are every other cell of every other row.

    It grows from its newest room, in long winding ways, or from any, in short bushy ones.
    """
    grid[:] = False
    rooms = (len(grid) + 1) // 2
    grown = np.empty((rooms * rooms, 2), np.int64)
    grown[0] = below(rooms, rng), below(rooms, rng)
    grid[2 * grown[0, 0], 2 * grown[0, 1]] = True
    length = 1
    while length > 0:
        place = length - 1 if rng.random() < stickiness else below(length, rng)
        row, column = grown[place]
        found, to_row, to_column = 0, 0, 0
        for i in range(4):
            r, c = row + STEPS[i, 0], column + STEPS[i, 1]
            if 0 <= r < rooms and 0 <= c < rooms and not grid[2 * r, 2 * c]:
                found += 1
                if below(found, rng) == 0:
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
def braid(grid, share, rng):
    """Opens a share of the walls between neighbouring rooms of `corridors`: ways meet again."""
    side = len(grid) - 1 + len(grid) % 2
    for row in range(side):
        for column in range(side):
            if (row + column) % 2 and rng.random() < share:
                grid[row, column] = True


@compiled
def halls(grid, rng):
    """Rooms within rooms: walls at odd places, doors at even ones, until a room is small."""
    grid[:] = True
    last = len(grid) - 2 + len(grid) % 2  # even
    if last < len(grid) - 1:
        grid[-1] = False
        grid[:, -1] = False
    least = 2 + 2 * below(3, rng)
    waiting = [(0, 0, last, last)]
    while len(waiting) > 0:
        top, left, bottom, right = waiting.pop()
        height, width = bottom - top, right - left
        across = height > width or (height == width and rng.random() < 0.5)
        if max(height, width) <= least:
            continue
        if across:
            wall = top + 1 + 2 * below(height // 2, rng)
            grid[wall, left : right + 1] = False
            for _ in range(1 if rng.random() < 0.75 else 2):
                grid[wall, left + 2 * below(width // 2 + 1, rng)] = True
            waiting.append((top, left, wall - 1, right))
            waiting.append((wall + 1, left, bottom, right))
        else:
            wall = left + 1 + 2 * below(width // 2, rng)
            grid[top : bottom + 1, wall] = False
            for _ in range(1 if rng.random() < 0.75 else 2):
                grid[top + 2 * below(height // 2 + 1, rng), wall] = True
            waiting.append((top, left, bottom, wall - 1))
            waiting.append((top, wall + 1, bottom, right))


@compiled
def rooms(grid, rng):
    """Rooms of equal size in rows and columns, with doors between most neighbours."""
    grid[:] = True
    side = len(grid)
    high, wide = 3 + below(5, rng), 3 + below(5, rng)
    doors = 0.5 + 0.5 * rng.random()
    for wall in range(high - 1, side, high):
        grid[wall] = False
    for wall in range(wide - 1, side, wide):
        grid[:, wall] = False
    for top in range(0, side, high):
        for left in range(0, side, wide):
            row = min(top + below(high - 1, rng), side - 1)
            column = min(left + below(wide - 1, rng), side - 1)
            if left + wide - 1 < side and rng.random() < doors:
                grid[row, left + wide - 1] = True
            if top + high - 1 < side and rng.random() < doors:
                grid[top + high - 1, column] = True
