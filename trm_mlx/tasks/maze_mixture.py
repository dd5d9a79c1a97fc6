"""The mixture of mazes that models are trained on: random walls, and what people draw.

Nearly half have random walls as of kind ``walls``, with a ladder of path lengths; the rest is
drawn (``maze_drawn.py``), with start and goal near or far, in corners or anywhere.
"""

import numpy as np

from trm_mlx.numba_jit import compiled, uninterrupted
from trm_mlx.tasks.maze_drawn import draw
from trm_mlx.tasks.maze_solver import far_goal, mark_path, scatter_walls, search

WALLS = 0.45  # share of mazes with random walls
VAIN = 500  # boards with random walls made for a long path, before any path is taken


@compiled
def _corner(passable, side, rng):
    """The open cell that comes first in one of the 4 reading orders from a corner; -1 if none."""
    mirrored, flipped = rng.random() < 0.5, rng.random() < 0.5
    for row in range(side):
        for column in range(side):
            cell = (side - 1 - row if flipped else row) * side
            cell += side - 1 - column if mirrored else column
            if passable[cell]:
                return cell
    return -1


@compiled
def _ends(passable, side, least, rng, distances, queue):
    """A start and a goal of a drawn maze; (-1, -1) where none are ``least`` steps apart.

    `distances` then holds those from the start.
    """
    cells = side * side
    in_corner = rng.random() < 0.3
    start = _corner(passable, side, rng) if in_corner else int(rng.random() * cells)
    if start < 0 or not passable[start]:
        return -1, -1
    reached = search(passable, start, side, distances, queue)
    if not in_corner and rng.random() < 0.4:
        start = queue[reached - 1]
        reached = search(passable, start, side, distances, queue)
    most = distances[queue[reached - 1]]
    if most < least or 5 * reached < passable.sum():
        return -1, -1
    if in_corner and rng.random() < 0.6:
        goal = _corner(passable, side, rng)
        if distances[goal] >= least:
            return start, goal
    low = max(least, int(0.8 * most)) if rng.random() < 0.4 else least
    steps = low + int(rng.random() * (most - low + 1))
    first = 0
    while distances[queue[first]] < steps:
        first += 1
    last = first
    while last + 1 < reached and distances[queue[last + 1]] == steps:
        last += 1
    return start, queue[first + int(rng.random() * (last - first + 1))]


@compiled
def _walls(passable, side, least, rng, distances, queue):
    """Random walls and their ends, as of kind ``walls``: paths of 1, 7/3 or 11/3 sides or more.

    Those are the 30, 70 and 110 steps of a 30x30 maze; half get the longest. (-1, -1) where there
    is no path.
    """
    rung = min(int(rng.random() * 4), 2)
    wanted = max(least, side * (3 + 4 * rung) // 3)
    for tried in range(2 * VAIN):
        if tried == VAIN:
            wanted = least
        scatter_walls(passable, rng)
        start = int(rng.random() * side * side)
        if passable[start]:
            start, goal = far_goal(passable, start, side, wanted, rng, distances, queue)
            if goal >= 0:
                return start, goal
    return -1, -1


@uninterrupted
@compiled(nogil=True)
def mixed_batch(count, side, least, tries, rng):
    """Up to `count` mazes of the mixture whose shortest path has at least `least` steps.

    Returns what `maze_solver.generate_batch` does.
    """
    cells = side * side
    passable = np.zeros((count, cells), np.bool_)
    paths = np.zeros((count, cells), np.bool_)
    starts = np.zeros(count, np.int64)
    goals = np.zeros(count, np.int64)
    steps = np.zeros(count, np.int64)
    distances = np.empty(cells, np.int64)
    queue = np.empty(cells, np.int64)
    made, failures = 0, 0
    while made < count and failures < tries:
        failures += 1
        if rng.random() < WALLS:
            start, goal = _walls(passable[made], side, least, rng, distances, queue)
        else:
            draw(passable[made], side, rng)
            start, goal = _ends(passable[made], side, least, rng, distances, queue)
        if goal < 0:
            continue
        mark_path(distances, goal, side, paths[made])
        starts[made], goals[made], steps[made] = start, goal, distances[goal]
        made, failures = made + 1, 0
    return passable[:made], starts[:made], goals[:made], paths[:made], steps[:made]
