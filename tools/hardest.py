"""Prints which held-out puzzles of a dataset take a model the most steps, of those that it solves.

    python tools/hardest.py checkpoints/demo data/sudoku4x4 --count 3

prints their places in the test split, as ``trm solve --data data/sudoku4x4 --index`` takes them.
"""

import argparse

import numpy as np

from trm_mlx import Solver, load
from trm_mlx.data.dataset import PuzzleDataset
from trm_mlx.files import path_text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=path_text, help="run folder, or a bundled model")
    parser.add_argument("data", type=path_text, help="dataset folder")
    parser.add_argument("--count", type=int, default=3, help="puzzles (default: %(default)s)")
    arguments = parser.parse_args()
    model, _ = load(arguments.checkpoint)
    puzzles = PuzzleDataset([arguments.data], "test").whole()
    solutions = list(Solver(model).solve(puzzles["inputs"], puzzles["puzzle_identifiers"]))
    answers = np.stack([solution.answer for solution in solutions])
    steps = np.array([solution.steps for solution in solutions])
    steps[(answers != puzzles["labels"]).any(axis=1)] = 0
    print(*np.argsort(-steps, kind="stable")[: arguments.count])


if __name__ == "__main__":
    main()
