"""Which puzzles are held out for testing: a function of the puzzle alone, so no list is kept.

The hash of a puzzle's split key decides. Files and puzzles generated while training, on any
machine, are divided alike.
"""

from collections.abc import Callable
from hashlib import blake2b

import numpy as np

from trm_mlx.errors import InputError
from trm_mlx.tasks.base import Puzzles, Task

HELD_OUT_ONE_IN = 8
PATIENCE = 20_000  # useless puzzles in a row before `draw` and `draw_distinct` give up
ROUND = 1000  # puzzles generated at once


def fingerprints(task: Task, questions: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Return the hash of every puzzle's split key, uint64 ``[N]``, the same on every machine."""
    keys = task.split_keys(questions, answers)
    hashes = b"".join(blake2b(key, digest_size=8).digest() for key in keys)
    return np.frombuffer(hashes, "<u8")


def held_out(task: Task, questions: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Return which puzzles ``[N, seq_len]`` are for testing only, bool ``[N]``, one in eight."""
    return fingerprints(task, questions, answers) % HELD_OUT_ONE_IN == 0


def draw(
    task: Task, count: int, rng: np.random.Generator, testing: bool = False, **options: object
) -> Puzzles:
    """Generate ``count`` >= 1 puzzles for training, or held-out ones for testing; may repeat.

    Args:
        options: passed on to the task's `generate`.

    Raises:
        InputError: 20,000 puzzles in a row are all of the other side.
    """
    kept_fraction = 1 / HELD_OUT_ONE_IN if testing else 1 - 1 / HELD_OUT_ONE_IN
    rounds: list[Puzzles] = []
    missing, useless = count, 0
    while missing > 0:
        wanted = min(int(missing / kept_fraction) + 1, ROUND)
        puzzles = task.generate(wanted, rng, **options)
        kept = held_out(task, puzzles.questions, puzzles.answers) == testing
        rounds.append(puzzles.take(kept).take(slice(missing)))
        missing -= len(rounds[-1].ratings)
        useless = 0 if kept.any() else useless + wanted
        if useless > PATIENCE:
            side = "held-out" if testing else "training"
            raise InputError(
                f"{task.name}: none of {useless} puzzles is a {side} one: it has too few puzzles"
            )
    return Puzzles(*map(np.concatenate, zip(*rounds, strict=True)))


def draw_distinct(
    task: Task,
    count: int,
    rng: np.random.Generator,
    testing: bool = False,
    tick: Callable[[int], object] = lambda puzzles: None,
    **options: object,
) -> Puzzles:
    """Like `draw`, but with distinct questions: fewer than ``count`` where there are no more.

    Args:
        tick: called with the number of new puzzles after each round.

    Raises:
        InputError: as `draw`, or the task cannot generate with these options.
    """
    found: dict[bytes, tuple] = {}
    useless = 0  # puzzles drawn in a row that were all known
    while len(found) < count and useless <= PATIENCE:
        before = len(found)
        wanted = min(max(count - before, useless), ROUND)
        for puzzle in zip(*draw(task, wanted, rng, testing, **options), strict=True):
            found.setdefault(puzzle[0].tobytes(), puzzle)
        tick(min(len(found), count) - before)
        useless = useless + wanted if len(found) == before else 0
    columns = zip(*list(found.values())[:count], strict=True)
    return Puzzles(*map(np.stack, columns))
