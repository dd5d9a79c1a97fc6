"""The accuracy of a solver on a dataset, and its cost."""

from collections import deque
from collections.abc import Callable, Iterator

import numpy as np

from trm_mlx.data.arrays import IGNORE_LABEL
from trm_mlx.data.dataset import PuzzleDataset
from trm_mlx.data.sampler import iterate_test
from trm_mlx.solve.solver import Solver

CHUNK = 256  # examples read at once


def measure(
    solver: Solver, dataset: PuzzleDataset, tick: Callable[[int], object] = lambda rows: None
) -> dict[str, dict[str, float]]:
    """Means over the examples of each set of a dataset.

    Returns:
        ``{set: {metric: mean}}``: count; accuracy (of the labelled tokens) and exact_accuracy;
        steps of the chosen trajectory; trajectories and evaluations, the supervision steps of all
        of them; rule_checked, 1 where a rule check took part in choosing the answer.
    """
    waiting: deque[tuple[str, np.ndarray]] = deque()

    def inputs() -> Iterator[np.ndarray]:
        for set_name, batch, rows in iterate_test(dataset, CHUNK):
            for tokens, labels in zip(batch["inputs"][:rows], batch["labels"], strict=False):
                waiting.append((set_name, labels))
                yield tokens

    identifiers = np.repeat(dataset.puzzle_identifiers, np.diff(dataset.puzzle_indices))
    sums: dict[str, dict[str, float]] = {}
    for solution in solver.solve(inputs(), identifiers):
        set_name, labels = waiting.popleft()
        labelled = labels != IGNORE_LABEL
        right = (solution.answer == labels)[labelled]
        values = {
            "count": 1,
            "accuracy": right.mean() if right.size else 1.0,
            "exact_accuracy": right.all(),
            "steps": solution.steps,
            "trajectories": solution.trajectories,
            "evaluations": solution.evaluations,
            "rule_checked": solution.passes is not None,
        }
        totals = sums.setdefault(set_name, dict.fromkeys(values, 0.0))
        for name, value in values.items():
            totals[name] += float(value)
        tick(1)
    return {
        set_name: {
            name: total if name == "count" else total / totals["count"]
            for name, total in totals.items()
        }
        for set_name, totals in sums.items()
    }
