"""What test-time compute buys: accuracy, network evaluations and speed of each method.

    python tools/bench_search.py checkpoints/demo --data data/sudoku4x4 --steps 16

A network evaluation is one supervision step of one puzzle. The first row is the published
evaluation, every puzzle through all steps; "rule" marks results in which a rule check, not the
model alone, chose the answer. Speed includes everything from tokens to answers, after one batch of
warm-up.
"""

import argparse
import json
import time

from trm_mlx import SearchConfig, Solver, device, load
from trm_mlx.data.dataset import PuzzleDataset
from trm_mlx.data.sampler import iterate_test
from trm_mlx.solve.solver import measure
from trm_mlx.tasks import task_of

METHODS = {
    "noise on z_L": {"noise_on": "z_L"},
    "noise on z_H": {"noise_on": "z_H"},
    "restarts": {"restarts": True},
    "symmetries": {"symmetries": True},
    "symmetries + restarts": {"symmetries": True, "restarts": True},
}
SELECTS = ("q", "first", "mode", "residual", "rule")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", help="checkpoint or run folder")
    parser.add_argument("--data", required=True, help="dataset folder")
    parser.add_argument("--split", default="test")
    parser.add_argument("--steps", type=int, help="supervision steps (default: the model's)")
    parser.add_argument("--trajectories", type=int, default=8)
    parser.add_argument("--noise", type=float, default=0.3)
    parser.add_argument("--select", nargs="+", choices=SELECTS, default=SELECTS)
    parser.add_argument("--methods", nargs="*", choices=METHODS, default=tuple(METHODS))
    parser.add_argument("--batch-size", type=int, help="(default: by the device)")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    model, config = load(arguments.checkpoint)
    data = PuzzleDataset([arguments.data], arguments.split)
    task = task_of(config)
    device.announce(config.forward_dtype)
    if not arguments.json:
        print("| method | select | exact % | evaluations | trajectories | puzzles/s | rule |")
        print("|---|---|---|---|---|---|---|")
    for name, options in solvers(arguments, config.halt_max_steps):
        solver = Solver(model, task=task, batch_size=arguments.batch_size, **options)
        show(name, solver.search.select, figures(solver, data), arguments.json)


def solvers(arguments, trained_steps: int):
    """Name and options of every solver to measure."""
    steps = arguments.steps or trained_steps
    for count in sorted({trained_steps, steps, 4 * steps}, key=lambda count: count != steps):
        yield f"{count} steps", {"max_steps": count, "halt_threshold": None}
    for count in (steps, 4 * steps):
        yield f"adaptive, up to {count} steps", {"max_steps": count}
    for name in arguments.methods:
        extra = METHODS[name]
        noise = arguments.noise if "noise_on" in extra else 0.0
        for select in arguments.select:
            search = SearchConfig(
                trajectories=arguments.trajectories, noise=noise, select=select, **extra
            )
            label = f"{arguments.trajectories} x {name}"
            yield label, {"max_steps": steps, "search": search}


def figures(solver: Solver, data: PuzzleDataset) -> dict[str, float]:
    """Means over all examples of a dataset, and the speed."""
    _, batch, rows = next(iterate_test(data, 256))
    list(solver.solve(batch["inputs"][:rows]))
    start = time.perf_counter()
    results = measure(solver, data)
    seconds = time.perf_counter() - start
    count = sum(metrics["count"] for metrics in results.values())

    def mean(name: str) -> float:
        return sum(m[name] * m["count"] for m in results.values()) / count

    names = ("exact_accuracy", "evaluations", "trajectories", "rule_checked")
    return {**{name: mean(name) for name in names}, "puzzles_per_second": count / seconds}


def show(name: str, select: str, values: dict[str, float], as_json: bool) -> None:
    if as_json:
        print(json.dumps({"method": name, "select": select, **values}), flush=True)
        return
    select = select if " x " in name else "-"
    print(
        f"| {name} | {select} | {100 * values['exact_accuracy']:.2f} | "
        f"{values['evaluations']:.2f} | {values['trajectories']:.2f} | "
        f"{values['puzzles_per_second']:.0f} | {'yes' if values['rule_checked'] else 'no'} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
