"""What images of a maze need, compiled by numba: their labels, and the one that sorts first."""

import numpy as np

from trm_mlx.numba_jit import compiled, uninterrupted
from trm_mlx.tasks.maze_solver import mark_path, search


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
