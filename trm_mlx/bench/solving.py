"""Times solving a dataset: each puzzle until it halts, and all of them through all steps."""

import time
from typing import NamedTuple

import mlx.core as mx
import numpy as np

from trm_mlx.data.loader import PuzzleDataset
from trm_mlx.data.sampler import iterate_test
from trm_mlx.models.model import RecursiveReasoner
from trm_mlx.solve.solver import Solver


class Puzzles(NamedTuple):
    """All puzzles of a split: tokens ``[N, S]`` and identifiers ``[N]``."""

    inputs: np.ndarray
    labels: np.ndarray
    puzzle_identifiers: np.ndarray


def read_puzzles(data: PuzzleDataset) -> Puzzles:
    batches = [batch for _, batch, _ in iterate_test(data, int(data.puzzle_indices[-1]))]
    return Puzzles(*(np.concatenate([b[name] for b in batches]) for name in Puzzles._fields))


def solving_rates(
    model: RecursiveReasoner, puzzles: Puzzles, max_steps: int, batch_size: int, rounds: int
) -> dict[str, dict[str, float]]:
    """Puzzles a second and share solved, ``halting`` and with ``all steps``; medians of rounds."""
    results = {}
    for name, threshold in (("halting", 0.5), ("all steps", None)):
        solver = Solver(model, max_steps, threshold, batch_size)
        seconds = []
        for _ in range(rounds + 1):
            start = time.perf_counter()
            solutions = list(solver.solve(puzzles.inputs, puzzles.puzzle_identifiers))
            mx.synchronize()
            seconds.append(time.perf_counter() - start)
        answers = np.stack([solution.answer for solution in solutions])
        exact = ((answers == puzzles.labels) | (puzzles.labels < 0)).all(axis=1).mean()
        rate = len(answers) / float(np.median(seconds[1:]))
        results[name] = {"puzzles a second": rate, "solved": float(exact)}
    return results
