"""How many puzzles of a CSV file a model solves, by source and rating: what a model card shows.

    python tools/accuracy.py checkpoints/sudoku --csv test.csv --json accuracy.json

The file has the columns ``source,question,answer,rating``. Every row of the table is a way of
solving; "rule" marks those in which a check against the rules of the task, not the model alone,
chose among answers. Shares come with their 95 % interval (Wilson).
"""

import argparse
import csv
import json
import math
import time
from pathlib import Path

import numpy as np

from trm_mlx import Search, Solver, backend, load
from trm_mlx.tasks import fitting

RATINGS = (0, 1, 5, 20, 50, 100, 200, 400)  # lower ends of the classes


def settings(steps: int, trajectories: int):
    """Name and options of every way of solving."""
    both = {"symmetries": True, "restarts": True}
    yield f"{steps} steps", {"max_steps": steps, "halt_threshold": None}
    yield f"until it halts, up to {steps}", {"max_steps": steps}
    for name, count, extra, select in (
        ("symmetries and restarts", steps, both, "rule"),
        ("symmetries and restarts", 4 * steps, both, "rule"),
        ("symmetries and restarts", 4 * steps, both, "q"),
        ("symmetries and restarts", steps, both, "q"),
        ("symmetries", steps, {"symmetries": True}, "rule"),
        ("restarts", steps, {"restarts": True}, "rule"),
    ):
        search = Search(trajectories=trajectories, select=select, **extra)
        label = f"up to {trajectories} trajectories of {count} steps, {name}, by {select}"
        yield label, {"max_steps": count, "search": search}
    yield f"{4 * steps} steps", {"max_steps": 4 * steps, "halt_threshold": None}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", help="checkpoint or run folder")
    parser.add_argument("--csv", required=True, type=Path)
    parser.add_argument("--trajectories", type=int, default=16)
    parser.add_argument("--only", nargs="+", type=int, help="numbers of the ways to try, from 0")
    parser.add_argument("--count", type=int, help="puzzles, drawn at random (default: all)")
    parser.add_argument("--batch-size", type=int, help="(default: by the device)")
    parser.add_argument("--json", type=Path, help="write the numbers to this file too")
    arguments = parser.parse_args()
    model, config = load(arguments.checkpoint)
    task = fitting(config.vocab_size, config.seq_len)
    backend.announce(config.forward_dtype)
    rows = read_rows(arguments.csv, arguments.count)
    questions = task.parse_batch([row["question"] for row in rows])
    answers = task.parse_batch([row["answer"] for row in rows])
    groups = groups_of(rows)
    results = []
    for number, (name, options) in enumerate(
        settings(config.halt_max_steps, arguments.trajectories)
    ):
        if arguments.only and number not in arguments.only:
            continue
        solver = Solver(model, task=task, batch_size=arguments.batch_size, **options)
        result = {"setting": name, **figures(solver, task, questions, answers, groups)}
        results.append(result)
        show(result)
        if arguments.json:
            arguments.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def read_rows(path: Path, count: int | None) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if count is None:
        return rows
    chosen = np.random.default_rng(0).choice(len(rows), min(count, len(rows)), replace=False)
    return [rows[place] for place in sorted(chosen)]


def groups_of(rows: list[dict[str, str]]) -> dict[str, np.ndarray]:
    """Which rows belong to which group: all, every source, every class of ratings."""
    sources = np.array([row["source"] for row in rows])
    ratings = np.array([int(row["rating"]) for row in rows])
    groups = {"all": np.ones(len(rows), bool)}
    groups |= {source: sources == source for source in np.unique(sources).tolist()}
    for low, high in zip(RATINGS, (*RATINGS[1:], math.inf), strict=True):
        groups[f"rating {low}+"] = (ratings >= low) & (ratings < high)
    return {name: chosen for name, chosen in groups.items() if chosen.any()}


def figures(solver: Solver, task, questions, answers, groups) -> dict:
    """Shares of right answers, and the means of what they cost."""
    start = time.perf_counter()
    solutions = list(solver.solve(task.encode(questions)))
    seconds = time.perf_counter() - start
    found = task.decode(np.array([solution.answer for solution in solutions]))
    right = (found == answers).all(axis=1)
    return {
        "accuracy": {
            name: share(int(right[chosen].sum()), int(chosen.sum()))
            for name, chosen in groups.items()
        },
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
    return {"right": right, "count": count, "share": p, "low": middle - half, "high": middle + half}


def show(result: dict) -> None:
    print(f"\n{result['setting']}" + (" (rule)" if result["rule"] else ""))
    print(
        f"  {result['trajectories']:.2f} trajectories, {result['evaluations']:.1f} evaluations of "
        f"the network a puzzle, {result['seconds']:.0f} s"
    )
    for name, value in result["accuracy"].items():
        low, high = 100 * value["low"], 100 * value["high"]
        print(
            f"  {name:20s} {value['right']:5d} of {value['count']:5d}  "
            f"{100 * value['share']:6.2f} %  [{low:.2f}, {high:.2f}]",
            flush=True,
        )


if __name__ == "__main__":
    main()
