"""Compares recipes by time to accuracy: timed runs, then a table and a picture of their curves.

    python tools/time_to_accuracy.py run --seconds 900 runs/paper experiment=sudoku_mlp
    python tools/time_to_accuracy.py run --seconds 900 runs/fast experiment=sudoku_fast
    python tools/time_to_accuracy.py compare runs/paper runs/fast -o comparison

The first trains as ``pretrain.py`` does, into a new folder, and logs there once a second
the step and the memory of the process (``clock.csv``). The second writes ``comparison.csv``, the
exact accuracy of every evaluated set by step, minutes and computed EFLOP, and ``comparison.png``.
The minutes are those since the start, evaluations included. With several test sets
(``data_paths=[a,b]``) every one has its curve.
"""

import argparse
import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import trm_mlx  # noqa: F401  isort: skip
import yaml

from trm_mlx import load
from trm_mlx.commands.plot import COLOURS
from trm_mlx.models.operations import flop
from trm_mlx.models.variants import recursion_at
from trm_mlx.run.log import METRICS_FILE, read_log

CLOCK = "clock.csv"
METRIC = "/exact_accuracy"
TAIL = 4096  # bytes of the log that hold its last line


class Point(NamedTuple):
    """The result of an evaluation."""

    run: str
    set: str
    step: int
    minutes: float
    eflop: float
    accuracy: float


def run(arguments: argparse.Namespace) -> None:
    """Train to the end or for ``--seconds``, and log the time of the steps."""
    folder = arguments.folder
    folder.mkdir(parents=True)
    log = folder / METRICS_FILE
    command = [sys.executable, "pretrain.py", *arguments.overrides, f"checkpoint_path={folder}"]
    start = time.monotonic()
    training = subprocess.Popen(command, cwd=Path(__file__).resolve().parents[1])
    with (folder / CLOCK).open("w", encoding="utf-8") as clock:

        def log_row() -> float:
            seconds = time.monotonic() - start
            row = f"{seconds:.1f}", last_step(log), resident_mebibytes(training.pid)
            print(*row, sep=",", file=clock, flush=True)
            return seconds

        print("seconds,step,resident_mebibytes", file=clock)
        while training.poll() is None:
            seconds = log_row()
            if arguments.seconds and seconds > arguments.seconds:
                training.send_signal(signal.SIGTERM)
                training.wait()
            time.sleep(1)
        log_row()
    if training.returncode not in (0, 128 + signal.SIGTERM):
        sys.exit(training.returncode)


def last_step(log: Path) -> int:
    """The step of the last whole line of a log, 0 where there is none."""
    if not log.exists():
        return 0
    with log.open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL))
        lines = file.read().split(b"\n")[:-1]
    return json.loads(lines[-1])["step"] if lines else 0


def resident_mebibytes(process: int) -> str:
    """The resident memory of a process in MiB, empty once it has ended."""
    found = subprocess.run(
        ["ps", "-o", "rss=", "-p", str(process)], check=False, stdout=subprocess.PIPE, text=True
    )
    return str(int(found.stdout) // 1024) if found.stdout.strip() else ""


def compare(arguments: argparse.Namespace) -> None:
    """Write table and picture of the runs, and print when each first reached each accuracy."""
    titles = dict(arguments.name)
    points = [point for folder in arguments.runs for point in points_of(folder, titles)]
    with arguments.output.with_suffix(".csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Point._fields)
        writer.writerows(
            (*p[:3], f"{p.minutes:.2f}", f"{p.eflop:.4f}", f"{p.accuracy:.4f}") for p in points
        )
    draw(points, titles, arguments.output.with_suffix(".png"))
    for name in dict.fromkeys(point.set for point in points):
        for recipe in dict.fromkeys(point.run for point in points):
            curve = [point for point in points if (point.run, point.set) == (recipe, name)]
            for share in arguments.share:
                reached = next((point for point in curve if point.accuracy >= share), None)
                place = (
                    f"{reached.minutes:.1f} minutes, {reached.eflop:.3f} EFLOP, step {reached.step}"
                    if reached
                    else f"not within {curve[-1].minutes:.1f} minutes, {curve[-1].eflop:.3f} EFLOP"
                )
                print(f"{name}, {100 * share:g} %: {recipe} {place}")


def points_of(folder: Path, titles: dict[str, str]) -> Iterator[Point]:
    """The evaluations of a run."""
    log = [values for _, values in read_log(folder / METRICS_FILE)]
    computed = operations(folder, log)
    with (folder / CLOCK).open(encoding="utf-8") as file:
        clock = [(int(row["step"]), float(row["seconds"])) for row in csv.DictReader(file)]
    for values in log:
        step = values["step"]
        seconds = next((s for at, s in clock if at >= step), clock[-1][1])
        for name, value in values.items():
            if is_evaluated(name):
                prefix = name.removesuffix(METRIC)
                place = titles.get(prefix, prefix), step, seconds / 60, computed[step] / 1e18
                yield Point(folder.name, *place, value)


def is_evaluated(name: str) -> bool:
    """Whether a value of the log is a test set's accuracy."""
    return name.endswith(METRIC) and not name.startswith("train/")


def operations(folder: Path, log: list[dict[str, float]]) -> list[int]:
    """The operations computed before each step of a run, and at its end."""
    model, config = load(folder)
    settings = yaml.safe_load((folder / "all_config.yaml").read_text("utf-8"))
    steps = max(values["step"] for values in log)
    recursions = [model.recursion] * steps
    if settings.get("depth_curriculum"):
        total = planned_steps(settings, log)
        recursions = [recursion_at(config, step, total) for step in range(steps)]
    of_row = {recursion: flop(model, recursion) for recursion in set(recursions)}
    of_steps = (settings["global_batch_size"] * of_row[recursion] for recursion in recursions)
    return list(accumulate(of_steps, initial=0))


def planned_steps(settings: dict, log: list[dict[str, float]]) -> int:
    """The planned steps of a run, from its first evaluation: exact to about a batch."""
    first = next(values["step"] for values in log if any(is_evaluated(name) for name in values))
    epochs = (settings["min_eval_interval"] + 1) * (settings["eval_interval"] or settings["epochs"])
    return round(first * settings["epochs"] / epochs)


def draw(points: list[Point], titles: dict[str, str], target: Path) -> None:
    """Accuracy by minutes and by EFLOP, a row of panels for every set."""
    from matplotlib.figure import Figure

    sets = list(dict.fromkeys(point.set for point in points))
    runs = list(dict.fromkeys(point.run for point in points))
    figure = Figure(figsize=(10, 3.6 * len(sets)), layout="constrained")
    for row, name in zip(figure.subplots(len(sets), 2, squeeze=False), sets, strict=True):
        for axes, field, label in zip(
            row, ("minutes", "eflop"), ("minutes", "EFLOP (10¹⁸ operations), computed"), strict=True
        ):
            for number, recipe in enumerate(runs):
                curve = [p for p in points if (p.run, p.set) == (recipe, name)]
                axes.plot(
                    [getattr(point, field) for point in curve],
                    [100 * point.accuracy for point in curve],
                    marker="o",
                    markersize=3,
                    color=COLOURS[number % len(COLOURS)],
                    linewidth=3 - 2 * number / len(runs),  # so that all show where they coincide
                    label=titles.get(recipe, recipe),
                )
            axes.set(xlabel=label, ylabel="solved, %", title=name, ylim=(-2, 102))
            axes.grid(alpha=0.25)
            axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    figure.savefig(target, dpi=110)


def set_title(text: str) -> tuple[str, str]:
    name, separator, title = text.rpartition("=")  # a run's name may be an option and its value
    if not separator:
        raise argparse.ArgumentTypeError(f"{text}: write NAME=TITLE")
    return name, title


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    running = commands.add_parser("run", help="train and log the time")
    running.add_argument("folder", type=Path, help="of the run, new")
    running.add_argument("overrides", nargs="*", metavar="key=value", help="as for pretrain.py")
    running.add_argument("--seconds", type=float, help="stop then (default: at the run's end)")
    running.set_defaults(action=run)
    comparing = commands.add_parser("compare", help="table and picture of runs")
    comparing.add_argument("runs", type=Path, nargs="+")
    comparing.add_argument("-o", "--output", type=Path, required=True, help="without suffix")
    comparing.add_argument(
        "--share", type=float, nargs="+", default=[0.1, 0.2, 0.4, 0.5, 0.9, 0.98]
    )
    comparing.add_argument(
        "--name",
        type=set_title,
        nargs="+",
        default=[],
        metavar="NAME=TITLE",
        help="titles of sets, and in the picture of runs",
    )
    comparing.set_defaults(action=compare)
    arguments = parser.parse_args()
    arguments.action(arguments)


if __name__ == "__main__":
    main()
