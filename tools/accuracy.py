"""How many puzzles a model solves, by source and by rating, in every way of solving them.

    python tools/accuracy.py checkpoints/sudoku --csv test.csv --json accuracy.json
    python tools/accuracy.py checkpoints/maze --generate maze10x10 --count 2000

A CSV file has the columns ``source,question,answer,rating``; ``--generate`` makes held-out puzzles
of a task. A puzzle is solved where its answer obeys the rules: in a maze any shortest path does;
where answers differ from their labels all the same, the share that does not is given too. Ways by
"rule" let a check against those rules, not the model alone, choose among answers. Shares come with
their 95 % interval (Wilson).
"""

import argparse
import csv
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from trm_mlx import SearchConfig, Solver, device, load
from trm_mlx.solve.solver import HALT_THRESHOLD
from trm_mlx.tasks import get_generator, task_of
from trm_mlx.tasks.base import Task
from trm_mlx.tasks.holdout import draw_distinct

RATINGS = (0, 1, 5, 20, 50, 100, 200, 400)  # lower ends of the classes


class Questions(NamedTuple):
    """Puzzles to solve and their labels ``[N, S]``, and which rows belong to which group."""

    boards: np.ndarray
    labels: np.ndarray
    groups: dict[str, np.ndarray]


def ways(steps: int, trajectories: int):
    """Name and options of every way of solving."""
    both = {"symmetries": True, "restarts": True}
    yield f"{steps} steps", {"max_steps": steps, "halt_threshold": None}
    yield f"until it halts, up to {steps} steps", {"max_steps": steps}
    for name, count, extra, select in (
        ("symmetries and restarts", steps, both, "rule"),
        ("symmetries and restarts", 4 * steps, both, "rule"),
        ("symmetries and restarts", 4 * steps, both, "q"),
        ("symmetries and restarts", steps, both, "q"),
        ("symmetries", steps, {"symmetries": True}, "rule"),
        ("restarts", steps, {"restarts": True}, "rule"),
    ):
        search = SearchConfig(trajectories=trajectories, select=select, **extra)
        label = f"up to {trajectories} trajectories of {count} steps, {name}, by {select}"
        yield label, {"max_steps": count, "search": search}
    yield f"{4 * steps} steps", {"max_steps": 4 * steps, "halt_threshold": None}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", help="checkpoint or run folder")
    add_arguments(parser)
    parser.add_argument("--json", type=Path, help="write the numbers to this file too")
    arguments = parser.parse_args()
    results = []
    for result in measured(arguments.checkpoint, arguments):
        results.append(result)
        print(as_text(result), flush=True)
        if arguments.json:
            arguments.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--csv", type=Path)
    source.add_argument("--generate", metavar="TASK")
    parser.add_argument("--count", type=int, help="puzzles (default: all of a file, or 2000)")
    parser.add_argument("--trajectories", type=int, default=16)
    parser.add_argument(
        "--ratings", type=int, nargs="+", default=RATINGS, help="lower ends of their classes"
    )
    parser.add_argument("--only", nargs="+", type=int, help="numbers of the ways to try, from 0")
    parser.add_argument("--batch-size", type=int, help="(default: by the device)")
    parser.add_argument(
        "--halt-threshold", type=float, default=HALT_THRESHOLD, help="(default: %(default)s)"
    )


def measured(checkpoint: str | Path, arguments: argparse.Namespace):
    """The figures of every way that is asked for, as they come."""
    model, config = load(checkpoint)
    task = task_of(config)
    device.announce(config.forward_dtype)
    questions = read(task, arguments)
    for number, (name, options) in enumerate(ways(config.halt_max_steps, arguments.trajectories)):
        if arguments.only is None or number in arguments.only:
            options = {"halt_threshold": arguments.halt_threshold, **options}
            solver = Solver(model, task=task, batch_size=arguments.batch_size, **options)
            yield {"way": name, **figures(solver, task, questions)}


def read(task: Task, arguments: argparse.Namespace) -> Questions:
    """The puzzles of a CSV file, or held-out ones."""
    if arguments.generate is not None:
        rng = np.random.default_rng(0)
        made, options = get_generator(arguments.generate)
        puzzles = draw_distinct(made, arguments.count or 2000, rng, testing=True, **options)
        sources = np.full(len(puzzles.ratings), "generated")
        groups = groups_of(sources, puzzles.ratings, arguments.ratings)
        return Questions(puzzles.questions, puzzles.answers, groups)
    with arguments.csv.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if arguments.count is not None:
        chosen = np.random.default_rng(0).choice(len(rows), arguments.count, replace=False)
        rows = [rows[place] for place in sorted(chosen)]
    sources = np.array([row["source"] for row in rows])
    ratings = np.array([int(row["rating"]) for row in rows])
    boards = np.stack([task.parse(row["question"]) for row in rows])
    parse_answer = getattr(task, "parse_board", task.parse)  # a maze's question has no path
    labels = np.stack([parse_answer(row["answer"]) for row in rows])
    return Questions(boards, labels, groups_of(sources, ratings, arguments.ratings))


def groups_of(
    sources: np.ndarray, ratings: np.ndarray, classes: Sequence[int]
) -> dict[str, np.ndarray]:
    """All rows, those of every source, and those of every class of ratings."""
    groups = {"all": np.ones(len(sources), bool)}
    groups |= {source: sources == source for source in np.unique(sources).tolist()}
    for low, high in zip(classes, (*classes[1:], math.inf), strict=True):
        name = f"rating {low} to {high - 1}" if high < math.inf else f"rating {low} or more"
        groups[name] = (ratings >= low) & (ratings < high)
    return {name: chosen for name, chosen in groups.items() if chosen.any()}


def figures(solver: Solver, task: Task, questions: Questions) -> dict:
    """Shares of puzzles solved, and the means of what they cost."""
    start = time.perf_counter()
    solutions = list(solver.solve(task.encode(questions.boards)))
    seconds = time.perf_counter() - start
    found = task.decode(np.array([solution.answer for solution in solutions]))
    solved = task.check(questions.boards, found)
    exact = (found == questions.labels).all(axis=1)
    shares = {
        title: {
            name: share(int(right[rows].sum()), int(rows.sum()))
            for name, rows in questions.groups.items()
        }
        for title, right in (("solved", solved), ("exact", exact))
    }
    if not (solved & ~exact).any():
        del shares["exact"]
    return {
        **shares,
        "steps": float(np.mean([solution.steps for solution in solutions])),
        "trajectories": float(np.mean([solution.trajectories for solution in solutions])),
        "evaluations": float(np.mean([solution.evaluations for solution in solutions])),
        "rule": solver.search.select == "rule",
        "seconds": seconds,
    }


def share(right: int, count: int) -> dict[str, float]:
    """A share and its 95 % Wilson interval."""
    z, p = 1.959964, right / count
    middle = (p + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(p * (1 - p) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    low, high = max(0.0, middle - half), min(1.0, middle + half)
    return {"solved": right, "count": count, "share": p, "low": low, "high": high}


def as_text(result: dict) -> str:
    lines = [
        "",
        result["way"] + (" (rule)" if result["rule"] else ""),
        f"  {result['trajectories']:.2f} trajectories, {result['evaluations']:.1f} network "
        f"evaluations a puzzle, {result['seconds']:.0f} s",
    ]
    for title in ("solved", "exact"):
        for name, value in result.get(title, {}).items():
            low, high = 100 * value["low"], 100 * value["high"]
            lines.append(
                f"  {title:6s} {name:20s} {value['solved']:5d} of {value['count']:5d}  "
                f"{100 * value['share']:6.2f} %  [{low:.2f}, {high:.2f}]"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
