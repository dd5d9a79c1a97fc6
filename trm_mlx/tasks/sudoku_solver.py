"""Sudoku search, compiled by numba: solve and rate puzzles, fill random grids, dig new puzzles.

One search serves all of them. A board holds, for every cell, the set of digits it may still take,
as a bit mask (digit d is bit d - 1). ``_propagate`` applies the two rules of singles until nothing
changes; ``_search`` guesses in a cell with the fewest digits left and keeps the untried boards on
a stack. The method is Peter Norvig's (https://norvig.com/sudoku.html), made iterative.

A puzzle's *rating* is the number of guesses that singles alone refute: the dead ends of the search
that finds the solution and proves it the only one. 0 means that singles solve the puzzle. The
whole tree is visited, so the rating does not depend on the order in which digits are tried; it
does depend on the cell guessed in, which is the first in reading order among those with the fewest
digits left. Where a puzzle has several solutions the search stops early and the rating counts the
dead ends until then.

Nothing here knows the size of the board: `units` and `peers` (see ``Sudoku``) describe it.
"""

import numpy as np

from trm_mlx.numba_jit import compiled, uninterrupted


@compiled
def _propagate(board, placed, waiting, units, peers):
    """Place the first `waiting` cells of `placed` and every single that follows from them.

    A naked single is a cell with one digit left, a hidden single the only cell of a unit that can
    still take some digit. `placed` is work space for a queue; each cell enters it at most once.
    Changes `board`; returns False when it has come to a contradiction.
    """
    size = units.shape[1]
    every_digit = (1 << size) - 1
    done = 0
    while done < waiting:
        while done < waiting:
            cell = placed[done]
            done += 1
            digit = board[cell]
            for peer in peers[cell]:
                before = board[peer]
                if before & digit:
                    after = before ^ digit
                    if after == 0:
                        return False
                    board[peer] = after
                    if after & (after - 1) == 0:
                        placed[waiting] = peer
                        waiting += 1
        for unit in units:
            once, repeated, settled = 0, 0, 0
            for cell in unit:
                digits = board[cell]
                repeated |= once & digits
                once |= digits
                if digits & (digits - 1) == 0:
                    settled |= digits
            if once != every_digit:
                return False
            hidden = once & ~repeated & ~settled
            if hidden == 0:
                continue
            for cell in unit:
                digit = board[cell] & hidden
                if digit == 0:
                    continue
                if digit & (digit - 1):  # two digits have only this cell
                    return False
                board[cell] = digit
                placed[waiting] = cell
                waiting += 1
    return True


@compiled
def _cell_to_guess(board):
    """The first cell with the fewest digits left, but more than one; -1 when all are settled."""
    best, fewest = -1, 99
    for cell in range(len(board)):
        count, digits = 0, board[cell]
        while digits:
            digits &= digits - 1
            count += 1
        if 1 < count < fewest:
            best, fewest = cell, count
            if count == 2:
                break
    return best


UNLIMITED = 2**62  # dead ends


@compiled
def _search(question, solutions, rng, units, peers, patience=UNLIMITED):
    """Fill the rows of `solutions` with solutions of `question`, until rows or solutions run out.

    Digits are guessed in random order, so that a search on an empty board gives a random grid.
    Returns (solutions found, dead ends met); -1 found if these are more than ``patience``.
    """
    cells, size = len(question), units.shape[1]
    # Every level of the search leaves at most size boards behind, and has one more cell settled.
    boards = np.empty((cells * size, cells), np.int16)
    guessed = np.empty(cells * size, np.int16)
    placed = np.empty(cells, np.int16)

    board = np.full(cells, (1 << size) - 1, np.int16)
    waiting = 0
    for cell in range(cells):
        if question[cell]:
            board[cell] = 1 << (question[cell] - 1)
            placed[waiting] = cell
            waiting += 1
    # A blank board has nothing to propagate, which _propagate takes as success.
    if not _propagate(board, placed, waiting, units, peers):
        return 0, 0

    found, dead_ends, height = 0, 0, 0
    while True:
        cell = _cell_to_guess(board)
        if cell < 0:
            for index in range(cells):
                digit = 1
                while board[index] >> digit:
                    digit += 1
                solutions[found, index] = digit
            found += 1
            if found == len(solutions):
                return found, dead_ends
        else:
            first = height
            for digit in range(size):
                if board[cell] >> digit & 1:
                    # Insert at a random place among this cell's guesses (inside-out shuffle).
                    other = first + int(rng.random() * (height - first + 1))
                    boards[height] = board
                    boards[height, cell] = boards[other, cell]
                    boards[other, cell] = 1 << digit
                    guessed[height] = cell
                    height += 1
        while True:
            if height == 0:
                return found, dead_ends
            height -= 1
            board[:] = boards[height]
            placed[0] = guessed[height]
            if _propagate(board, placed, 1, units, peers):
                break
            dead_ends += 1
            if dead_ends > patience:
                return -1, dead_ends


@uninterrupted
@compiled
def solve_batch(questions, rng, units, peers):
    """Solve and rate `questions`, uint8 [N, cells] with 0 for a blank.

    Returns (solution counts [N]: 0, 1 or 2 for "more than one"; solutions uint8 [N, cells]: the
    first one found, 0 where there is none; ratings [N]).
    """
    counts = np.empty(len(questions), np.int64)
    ratings = np.empty(len(questions), np.int64)
    answers = np.zeros(questions.shape, np.uint8)
    pair = np.zeros((2, questions.shape[1]), np.uint8)
    for row in range(len(questions)):
        counts[row], ratings[row] = _search(questions[row], pair, rng, units, peers)
        if counts[row] > 0:
            answers[row] = pair[0]
    return counts, answers, ratings


@uninterrupted
@compiled
def count_batch(questions, patience, rng, units, peers):
    """The solutions of questions [N, cells], int64 [N]: 0, 1, 2 for more; -1 after ``patience``
    dead ends."""
    counts = np.empty(len(questions), np.int64)
    pair = np.empty((2, questions.shape[1]), np.uint8)
    for row in range(len(questions)):
        counts[row], _ = _search(questions[row], pair, rng, units, peers, patience)
    return counts


@uninterrupted
@compiled
def solutions_of(question, limit, rng, units, peers):
    """Up to `limit` solutions of one question, uint8 [found, cells], in random order."""
    solutions = np.empty((limit, len(question)), np.uint8)
    found, _ = _search(question, solutions, rng, units, peers)
    return solutions[:found]


@compiled
def _random_order(count, rng):
    """0..count-1 in random order; numba takes seconds to compile ``rng.permutation``."""
    order = np.arange(count)
    for last in range(count - 1, 0, -1):
        other = int(rng.random() * (last + 1))
        order[last], order[other] = order[other], order[last]
    return order


@uninterrupted
@compiled
def dig_batch(count, grids, min_rating, extra_givens, tries, rng, units, peers):
    """Dig up to `count` puzzles with one solution each out of solved `grids`, uint8 [M, cells].

    Cells are emptied in random order wherever the solution stays the only one; one pass makes a
    minimal puzzle, since a cell needed once is needed ever after. Then 0 to `extra_givens` random
    cells are filled in again. A puzzle rated below `min_rating` is thrown away. The grids take
    turns, in random order, one try each. Gives up after `tries` failures in a row.

    Returns (questions, answers, ratings) of the puzzles made, which may be fewer than `count`.
    """
    cells = grids.shape[1]
    questions = np.empty((count, cells), np.uint8)
    answers = np.empty((count, cells), np.uint8)
    ratings = np.empty(count, np.int64)
    pair = np.empty((2, cells), np.uint8)
    turns = _random_order(len(grids), rng)
    made, tried, failures = 0, 0, 0
    while made < count and failures < tries:
        grid = grids[turns[tried % len(grids)]]
        tried += 1
        question = grid.copy()
        rating = 0
        for cell in _random_order(cells, rng):
            question[cell] = 0
            found, dead_ends = _search(question, pair, rng, units, peers)
            if found == 1:
                rating = dead_ends
            else:
                question[cell] = grid[cell]
        extra = int(rng.random() * (extra_givens + 1))
        if extra > 0:
            for cell in _random_order(cells, rng):
                if extra > 0 and question[cell] == 0:
                    question[cell] = grid[cell]
                    extra -= 1
            _, rating = _search(question, pair, rng, units, peers)
        if rating < min_rating:
            failures += 1
            continue
        questions[made], answers[made], ratings[made] = question, grid, rating
        made, failures = made + 1, 0
    return questions[:made], answers[:made], ratings[:made]
