"""Prints the held-out puzzles of a dataset on which a model corrects itself longest, and is right.

    python tools/hardest.py checkpoints/demo data/sudoku4x4 --count 3

prints their places in the test split, as ``trm solve --data data/sudoku4x4 --index`` takes them;
one at least, and no more than there are that it does not solve at once.
"""

import argparse

import numpy as np

from trm_mlx import Solver, load
from trm_mlx.data.dataset import PuzzleDataset
from trm_mlx.files import path_text
from trm_mlx.solve.scheduler import Solution


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=path_text, help="run folder, or a bundled model")
    parser.add_argument("data", type=path_text, help="dataset folder")
    parser.add_argument("--count", type=int, default=3, help="at most (default: %(default)s)")
    arguments = parser.parse_args()
    model, _ = load(arguments.checkpoint)
    puzzles = PuzzleDataset([arguments.data], "test").whole()
    solver = Solver(model, intermediates=True, states=False)
    solutions = solver.solve(puzzles["inputs"], puzzles["puzzle_identifiers"])
    pairs = zip(solutions, puzzles["labels"], strict=True)
    steps = np.array([wrong_steps(solution, label) for solution, label in pairs])
    found = min(arguments.count, max(int((steps > 0).sum()), 1))
    print(*np.argsort(-steps, kind="stable")[:found])


def wrong_steps(solution: Solution, label: np.ndarray) -> int:
    """Return the last step with a wrong answer, 0 where none had one; -1 if the last step has."""
    wrong = [n for n, step in enumerate(solution.outputs, 1) if (step.answer != label).any()]
    last = max(wrong, default=0)
    return -1 if last == len(solution.outputs) else last


if __name__ == "__main__":
    main()
