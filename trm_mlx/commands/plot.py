"""``trm plot``: the curves of one or several runs, from their logs, in one picture."""

import argparse
import importlib.util
import math
from pathlib import Path

from trm_mlx.errors import InputError
from trm_mlx.files import check_target, output_file, path_type
from trm_mlx.run.log import METRICS_FILE, read_log

# The metric of each panel, its title, and whether its axis is logarithmic.
PANELS = (
    ("lm_loss", "loss", True),
    ("exact_accuracy", "exact accuracy", False),
    ("steps", "steps to halt", False),
    ("lr", "learning rate", False),
)
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#333333")
LINES = ("-", "--", ":")  # once the colours are used up
SUFFIXES = (".png", ".svg")
# Of evaluations, the later ones larger and hollow, so that all show where they coincide.
MARKS = (
    {"marker": "o", "markersize": 5},
    {"marker": "s", "markersize": 9, "markerfacecolor": "none"},
    {"marker": "D", "markersize": 13, "markerfacecolor": "none"},
)
POINTS = 300  # of a training curve, each the mean of the steps it stands for

Curves = dict[tuple[str, str], list[tuple[int, float]]]  # (set, metric) -> (step, value)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", type=path_type, metavar="RUN", help="a run's folder")
    parser.add_argument(
        "-o",
        "--output",
        type=path_type,
        default=Path("curves.png"),
        help=".png or .svg (default: %(default)s)",
    )


def run(arguments: argparse.Namespace) -> None:
    """Draw loss, exact accuracy, steps to halt and learning rate, in training and evaluation."""
    target = arguments.output
    if target.suffix.lower() not in SUFFIXES:
        raise InputError(f"-o {target}: no such picture; end the name in .png or .svg")
    check_target(target)
    if importlib.util.find_spec("matplotlib") is None:
        raise InputError("trm plot needs Matplotlib: pip install 'trm-mlx[plot]'")
    logs = {run: curves_of(run) for run in arguments.runs}
    with output_file(target) as unfinished:
        _figure(logs).savefig(unfinished, dpi=140, format=target.suffix.lower()[1:])
    print(target)


def curves_of(run: Path) -> Curves:
    """The numbers of a run's log, by set and metric.

    Raises:
        InputError: there is no log, it cannot be read, is damaged, or holds no numbers.
    """
    path = run / METRICS_FILE if run.is_dir() else run
    curves: Curves = {}
    for _, values in read_log(path):
        step = values.pop("step")
        for name, value in values.items():
            group, _, metric = name.rpartition("/")
            curves.setdefault((group, metric), []).append((step, value))
    if not any(metric == known for _, metric in curves for known, _, _ in PANELS):
        raise InputError(f"{path} has no numbers yet: train for a few steps first")
    return curves


def thinned(points: list[tuple[int, float]]) -> list[tuple[float, float]]:
    """At most `POINTS` points: means of neighbours, without what is no number."""
    points = [point for point in points if math.isfinite(point[1])]
    width = max(math.ceil(len(points) / POINTS), 1)
    chunks = [points[start : start + width] for start in range(0, len(points), width)]
    return [
        tuple(sum(column) / len(chunk) for column in zip(*chunk, strict=True)) for chunk in chunks
    ]


def _figure(logs: dict[Path, Curves]):
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    figure = Figure(figsize=(11, 7), layout="constrained")
    names = [run.name for run in logs]
    for axes, (metric, title, logarithmic) in zip(figure.subplots(2, 2).flat, PANELS, strict=True):
        for number, (run, curves) in enumerate(logs.items()):
            turn, place = divmod(number, len(COLOURS))
            style = {"color": COLOURS[place], "linestyle": LINES[turn % len(LINES)]}
            label = run.name if run.name and names.count(run.name) == 1 else str(run)
            _draw(axes, label, curves, metric, style, number)
        axes.set(xlabel="training step", ylabel=title)
        if logarithmic:
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter(NullFormatter())
        if metric == "exact_accuracy":
            axes.set_ylim(-0.02, 1.02)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        if axes.lines:
            axes.legend(frameon=False, fontsize="small")
    return figure


def _draw(axes, run: str, curves: Curves, metric: str, style: dict[str, str], number: int) -> None:
    """A thin line for training, one with marks for every evaluated set."""
    sets = sorted({group for group, _ in curves} - {"train"})
    for (group, name), points in curves.items():
        if name != metric:
            continue
        kept = thinned(points) if group == "train" else points
        label = f"{run} · {'train' if group == 'train' else f'evaluation ({group})'}"
        weight = {"alpha": 0.45}
        if group != "train":
            weight = {"linewidth": 2, **MARKS[(number + sets.index(group)) % len(MARKS)]}
        if kept:
            axes.plot(*zip(*kept, strict=True), label=label, **style, **weight)
