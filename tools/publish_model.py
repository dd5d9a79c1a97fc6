"""Makes a bundled model of a run: weights in bfloat16, their measured accuracy, log and model card.

    python tools/publish_model.py RUN sudoku-4x4 --generate sudoku4x4 --count 5000 \\
        --notes notes.md --command "python pretrain.py experiment=sudoku4x4_pretrained"

writes ``trm_mlx/pretrained/sudoku-4x4``. The newest checkpoint is taken, with averaged weights; the
numbers are those of the weights as written, measured now, or on a faster machine before:
``--accuracy FILE``, which ``tools/accuracy.py --json`` wrote, and ``--measured-on``. ``--notes`` is
the part of the card that no program can write: data, choices, what the model fails on.
"""

import argparse
import csv
import json
import platform
import subprocess
import sys
from pathlib import Path

from trm_mlx import device, load  # isort: skip  # before MLX, to choose its BLAS
import mlx.core as mx
from accuracy import RATINGS, add_arguments, measured
from mlx.utils import tree_flatten

from trm_mlx.files import atomic_folder
from trm_mlx.models.checkpoint_files import PRETRAINED, save_model
from trm_mlx.run.log import METRICS_FILE, read_log
from trm_mlx.solve.solver import HALT_THRESHOLD

LOGGED = ("loss", "exact accuracy", "steps to halt", "learning rate")
KEYS = ("train/lm_loss", "train/exact_accuracy", "train/steps", "train/lr")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("name", help="of the bundled model")
    parser.add_argument("--notes", type=Path, required=True, help="Markdown for the card")
    parser.add_argument("--command", required=True, help="that trained the run")
    parser.add_argument("--accuracy", type=Path, help="figures measured before (default: now)")
    parser.add_argument("--measured-on", help="commit and machine of --accuracy, for the card")
    add_arguments(parser)
    arguments = parser.parse_args()
    if (arguments.accuracy is None) != (arguments.measured_on is None):
        parser.error("--accuracy and --measured-on go together")
    model, config = load(arguments.run)
    parameters = sum(array.size for _, array in tree_flatten(model.parameters()))
    with atomic_folder(PRETRAINED / arguments.name) as folder:
        save_model(folder, model, mx.bfloat16)
        write_log(arguments.run / METRICS_FILE, folder / "training.csv")
        if arguments.accuracy is None:
            results, where = list(measured(folder, arguments)), this_machine(config.forward_dtype)
        else:
            results = json.loads(arguments.accuracy.read_text("utf-8"))
            where = arguments.measured_on
        (folder / "accuracy.json").write_text(json.dumps(results, indent=1) + "\n", "utf-8")
        (folder / "README.md").write_text(as_card(arguments, parameters, results, where), "utf-8")
    print(PRETRAINED / arguments.name)


def write_log(source: Path, target: Path) -> None:
    """The run's log as a table: means over about 200 stretches of steps, and every evaluation."""
    lines = [values for _, values in read_log(source)]
    steps = [line for line in lines if "train/lm_loss" in line]
    stretch = max(1, len(steps) // 200)
    with target.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["step", *LOGGED, "evaluated exact accuracy"])
        for start in range(0, len(steps), stretch):
            part = steps[start : start + stretch]
            writer.writerow([part[-1]["step"], *(mean(part, key) for key in KEYS), ""])
        for line in lines:
            if "all/exact_accuracy" in line:
                exact = f"{line['all/exact_accuracy']:.5f}"
                writer.writerow([line["step"], *[""] * len(LOGGED), exact])


def mean(lines: list[dict], key: str) -> str:
    values = [line[key] for line in lines if key in line]
    return f"{sum(values) / len(values):.6g}" if values else ""


def this_machine(dtype: str) -> str:
    """The commit, the device and the versions that figures measured now stand for."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    machine = f"{device.device_kind()}, {dtype}, MLX {mx.__version__}"
    return f"commit {commit} ({machine}, Python {platform.python_version()})"


def as_card(arguments, parameters: int, results: list[dict], where: str) -> str:
    """The model card."""
    source = f"--csv {arguments.csv.name}" if arguments.csv else f"--generate {arguments.generate}"
    count = f" --count {arguments.count}" if arguments.count else ""
    if arguments.only:
        count += f" --only {' '.join(map(str, arguments.only))}"
    if arguments.halt_threshold != HALT_THRESHOLD:
        count += f" --halt-threshold {arguments.halt_threshold}"
    if arguments.ratings != RATINGS:
        count += f" --ratings {' '.join(map(str, arguments.ratings))}"
    groups = list(results[0]["solved"])
    kinds = [group for group in groups if not group.startswith("rating")]
    titles = [*kinds, *(["all, the labelled answer"] if any("exact" in r for r in results) else [])]
    rows = [f"| way of solving | {' | '.join(titles)} | steps | trajectories | evaluations |"]
    rows.append("|---" * (len(titles) + 4) + "|")
    for result in results:
        shares = [result["solved"][kind] for kind in kinds]
        if len(titles) > len(kinds):
            shares.append(result.get("exact", result["solved"])["all"])
        cells = " | ".join(map(percent, shares))
        rule = ", **with rule check**" if result["rule"] else ""
        rows.append(
            f"| {result['way']}{rule} | {cells} | {result['steps']:.2f} | "
            f"{result['trajectories']:.2f} | {result['evaluations']:.2f} |"
        )
    ratings = [group for group in groups if group.startswith("rating")]
    by_rating = [f"| {results[0]['way']} | puzzles | solved |", "|---|---|---|"]
    by_rating += [
        f"| {group} | {results[0]['solved'][group]['count']} | "
        f"{percent(results[0]['solved'][group])} |"
        for group in ratings
    ]
    return "\n".join(
        [
            f"# {arguments.name}",
            "",
            arguments.notes.read_text(encoding="utf-8").strip(),
            "",
            f"{parameters:,} parameters, stored in bfloat16. `config.json` holds the architecture, "
            "`training.csv` the log of the run.",
            "",
            "Trained by",
            "",
            f"```bash\n{arguments.command}\n```",
            "",
            "## Accuracy",
            "",
            f"Measured at {where} by",
            "",
            f"```bash\npython tools/accuracy.py {arguments.name} {source}{count}\n```",
            "",
            "Per cent of puzzles solved, with the 95 % interval; steps of the trajectory chosen; "
            "evaluations of the network a puzzle, over all its trajectories.",
            "",
            *rows,
            "",
            *by_rating,
            "",
        ]
    )


def percent(value: dict) -> str:
    low, high = 100 * value["low"], 100 * value["high"]
    return f"{100 * value['share']:.2f} [{low:.2f}, {high:.2f}]"


if __name__ == "__main__":
    sys.exit(main())
