"""Maze search, compiled by numba: shortest paths, random mazes, and images of mazes.

Breadth-first search on a square grid of cells in reading order, neighbours in the order up, left,
right, down. Every puzzle that is made here was solved by it.
"""

import numpy as np

from trm_mlx.numba_jit import compiled, uninterrupted


@compiled
def _neighbours(cell, side, found):
    """Writes the cells next to one into `found`; returns how many there are."""
    row, column = divmod(cell, side)
    count = 0
    if row > 0:
        found[count] = cell - side
        count += 1
    if column > 0:
        found[count] = cell - 1
        count += 1
    if column < side - 1:
        found[count] = cell + 1
        count += 1
    if row < side - 1:
        found[count] = cell + side
        count += 1
    return count


@compiled
def search(passable, start, side, distances, queue):
    """Fills `distances` with the steps from `start`, -1 where no path leads.

    `queue` receives the reachable cells, nearest first; returns how many there are.
    """
    near = np.empty(4, np.int64)
    distances[:] = -1
    distances[start] = 0
    queue[0] = start
    done, waiting = 0, 1
    while done < waiting:
        cell = queue[done]
        done += 1
        for i in range(_neighbours(cell, side, near)):
            if passable[near[i]] and distances[near[i]] < 0:
                distances[near[i]] = distances[cell] + 1
                queue[waiting] = near[i]
                waiting += 1
    return waiting


@uninterrupted
@compiled
def distances_batch(passable, starts, goals, side):
    """Steps of a shortest path in each grid, bool [N, cells], from start to goal; -1 for none."""
    found = np.empty(len(passable), np.int64)
    distances = np.empty(side * side, np.int64)
    queue = np.empty(side * side, np.int64)
    for row in range(len(passable)):
        search(passable[row], starts[row], side, distances, queue)
        found[row] = distances[goals[row]]
    return found


@uninterrupted
@compiled
def count_paths_batch(passable, starts, goals, side):
    """Shortest paths in each grid, bool [N, cells], from start to goal; 2 for more than one."""
    found = np.zeros(len(passable), np.int64)
    distances = np.empty(side * side, np.int64)
    queue = np.empty(side * side, np.int64)
    near = np.empty(4, np.int64)
    for row in range(len(passable)):
        reached = search(passable[row], starts[row], side, distances, queue)
        paths = np.zeros(side * side, np.int64)  # to each cell, at most 2
        paths[starts[row]] = 1
        for cell in queue[:reached]:
            for i in range(_neighbours(cell, side, near)):
                if distances[near[i]] == distances[cell] + 1:
                    paths[near[i]] = min(2, paths[near[i]] + paths[cell])
        found[row] = paths[goals[row]]
    return found


@compiled
def mark_path(distances, goal, side, path):
    """Sets `path` at the cells strictly between the start and `goal`, of one shortest path."""
    near = np.empty(4, np.int64)
    cell = goal
    while distances[cell] > 1:
        for i in range(_neighbours(cell, side, near)):
            if distances[near[i]] == distances[cell] - 1:
                cell = near[i]
                break
        path[cell] = True


@compiled
def scatter_walls(passable, rng):
    """Walls at random cells, 30 to 45 of a hundred: where shortest paths are longest."""
    share = 0.30 + 0.15 * rng.random()
    for cell in range(len(passable)):
        passable[cell] = rng.random() >= share


@compiled
def _carve_tree(passable, side, rng):
    """A maze with one path between any two cells: a random walk that turns back at dead ends.

    Rooms are every other cell of every other row; a board of even side keeps a wall at the bottom
    and the right.
    """
    passable[:] = False
    rooms = (side + 1) // 2
    trail = np.empty(rooms * rooms, np.int64)
    near = np.empty(4, np.int64)
    room = int(rng.random() * rooms * rooms)
    passable[(room // rooms) * 2 * side + (room % rooms) * 2] = True
    trail[0] = room
    length = 1
    while length > 0:
        room = trail[length - 1]
        cell = (room // rooms) * 2 * side + (room % rooms) * 2
        fresh = 0
        for i in range(_neighbours(room, rooms, near)):
            other = (near[i] // rooms) * 2 * side + (near[i] % rooms) * 2
            if not passable[other]:
                near[fresh] = near[i]
                fresh += 1
        if fresh == 0:
            length -= 1
            continue
        room = near[int(rng.random() * fresh)]
        other = (room // rooms) * 2 * side + (room % rooms) * 2
        passable[(cell + other) // 2] = True
        passable[other] = True
        trail[length] = room
        length += 1


@compiled
def far_goal(passable, start, side, least, rng, distances, queue):
    """``(start, goal)`` at least `least` steps apart, (-1, -1) where there are none.

    The start or, if nothing is far enough from there, the cell farthest from it; and a random one
    that is far enough from that. `distances` then holds those from the start returned.
    """
    reached = search(passable, start, side, distances, queue)
    if distances[queue[reached - 1]] < least:
        start = queue[reached - 1]
        reached = search(passable, start, side, distances, queue)
        if distances[queue[reached - 1]] < least:
            return -1, -1
    first = reached - 1
    while distances[queue[first - 1]] >= least:
        first -= 1
    return start, queue[first + int(rng.random() * (reached - first))]


@uninterrupted
@compiled(nogil=True)
def generate_batch(count, side, tree, least, tries, rng):
    """Up to `count` mazes whose shortest path has at least `least` steps.

    Gives up after `tries` failures in a row.

    Returns (passable bool [made, cells], starts, goals, paths bool [made, cells], steps [made]).
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
        if tree:
            _carve_tree(passable[made], side, rng)
        else:
            scatter_walls(passable[made], rng)
        start = int(rng.random() * cells)
        if not passable[made, start]:
            continue
        start, goal = far_goal(passable[made], start, side, least, rng, distances, queue)
        if goal < 0:
            continue
        mark_path(distances, goal, side, paths[made])
        starts[made], goals[made], steps[made] = start, goal, distances[goal]
        made, failures = made + 1, 0
    return passable[:made], starts[:made], goals[:made], paths[:made], steps[:made]


@uninterrupted
@compiled(nogil=True)
def label_batch(passable, starts, goals, side):
    """One shortest path of each grid, bool [N, cells], as `generate_batch` marks it."""
    paths = np.zeros(passable.shape, np.bool_)
    distances = np.empty(side * side, np.int64)
    queue = np.empty(side * side, np.int64)
    for row in range(len(passable)):
        search(passable[row], starts[row], side, distances, queue)
        if distances[goals[row]] > 0:
            mark_path(distances, goals[row], side, paths[row])
    return paths


@uninterrupted
@compiled(nogil=True)
def first_images(boards, images):
    """Of each board, bool [N, cells], the image that sorts first; images [M, cells] of places."""
    firsts = np.empty(boards.shape, np.bool_)
    for row in range(len(boards)):
        board, best = boards[row], 0
        for image in range(1, len(images)):
            for cell in range(len(board)):
                ours, theirs = board[images[image, cell]], board[images[best, cell]]
                if ours != theirs:
                    if not ours:
                        best = image
                    break
        for cell in range(len(board)):
            firsts[row, cell] = board[images[best, cell]]
    return firsts
