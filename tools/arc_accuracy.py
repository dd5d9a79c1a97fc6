"""How many ARC tasks a model finds: known ones, and unseen ones by adapting to them.

    python tools/arc_accuracy.py arc-agi-1 --known data/arc1-known --max-steps 8 \\
        --unseen data/unseen/tasks --minutes 9 --json accuracy.json

``--known`` is a dataset whose tests belong to tasks that the model has embeddings of, as of
tools/arc_subset.py; ``--unseen`` are tasks as `trm adapt` takes them, of tools/arc_unseen.py, all
adapted to at once in so many minutes. A task counts as the share of its tests that are found. Per
cent come with the 95 % interval (Wilson) over tasks.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np

from trm_mlx import adapt, device, load  # isort: skip  # before MLX, to choose its BLAS
from accuracy import share

from trm_mlx.adaptation import read_tasks
from trm_mlx.cli import explained
from trm_mlx.data.dataset import PuzzleDataset
from trm_mlx.errors import InputError
from trm_mlx.evaluate.arc import ArcEvaluator
from trm_mlx.evaluate.evaluate import EvaluationStep, evaluate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="checkpoint or run folder, or a bundled model")
    parser.add_argument("--known", type=Path, help="dataset folder")
    parser.add_argument("--max-steps", type=int, help="of known tasks (default: the model's)")
    parser.add_argument("--unseen", type=Path, help="file or folder of tasks")
    parser.add_argument("--minutes", type=float, default=5, help="for all unseen tasks")
    parser.add_argument("--json", type=Path, help="write the numbers to this file too")
    arguments = parser.parse_args()
    if not (arguments.known or arguments.unseen):
        parser.error("name --known, --unseen, or both")
    results = {}
    if arguments.known:
        results["known tasks"] = known(arguments.model, arguments.known, arguments.max_steps)
    if arguments.unseen:
        results["unseen tasks"] = unseen(arguments.model, arguments.unseen, arguments.minutes)
    print(text := json.dumps(results, indent=1))
    if arguments.json:
        arguments.json.write_text(text + "\n", "utf-8")


def known(folder: str, dataset: Path, max_steps: int | None) -> dict:
    """The figures of a model on the tests of tasks that it was trained on."""
    model, config = load(folder)
    data = PuzzleDataset([dataset], "test")
    evaluator = ArcEvaluator.of(data)
    step = EvaluationStep(model, "softmax_cross_entropy", device.compiles())
    evaluate(step, data, evaluators=[evaluator], max_steps=max_steps)
    passed = evaluator.result().metrics
    votes = (sum(count for count, _ in answers.values()) for answers in evaluator.votes.values())
    return {
        "tasks": len(evaluator.tests),
        "versions": max(votes),
        "steps": max_steps or config.halt_max_steps,
        **figures({k: passed[f"pass@{k}"] for k in (1, 2, 10)}, len(evaluator.tests)),
    }


def unseen(folder: str, tasks: Path, minutes: float) -> dict:
    """The figures of a model that is adapted to tasks; their solutions must be known."""
    puzzles, problems = read_tasks(tasks)
    if problems:
        raise InputError(problems[0])
    with tempfile.TemporaryDirectory() as run:
        answers = adapt(folder, puzzles, run, minutes=minutes).answers
    found = {1: [], 2: []}
    outputs = 0
    for puzzle in puzzles:
        solved = [
            [np.array_equal(grid, solution) for grid in answer.attempts]
            for answer, (_, solution) in zip(answers[puzzle.name], puzzle.test, strict=True)
        ]
        outputs += sum(map(any, solved))
        for k, shares in found.items():
            shares.append(np.mean([any(attempts[:k]) for attempts in solved]))
    return {
        "tasks": len(puzzles),
        "minutes": minutes,
        "outputs": sum(len(puzzle.test) for puzzle in puzzles),
        "outputs found": outputs,
        **figures({k: float(np.mean(shares)) for k, shares in found.items()}, len(puzzles)),
    }


def figures(passed: dict[int, float], tasks: int) -> dict:
    """pass@k in per cent, pass@2 with its interval."""
    chance = share(passed[2] * tasks, tasks)
    interval = [round(100 * chance[end], 1) for end in ("low", "high")]
    rounded = {f"pass@{k}": round(100 * value, 2) for k, value in passed.items()}
    return rounded | {"pass@2 interval": interval}


if __name__ == "__main__":
    sys.exit(explained(main))
