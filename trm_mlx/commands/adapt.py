"""``trm adapt``: adapt a trained ARC model to tasks of yours, and answer their test inputs."""

import argparse
import signal
import sys
import time
from pathlib import Path

from trm_mlx import device
from trm_mlx.adaptation import (
    ANSWERS,
    LR,
    MINUTES,
    VERSIONS,
    Adapted,
    Moment,
    adapt,
    check_time,
    read_tasks,
    resume,
)
from trm_mlx.adaptation.prepare import DATA, check_adaptable
from trm_mlx.builders.arc_files import solutions_beside
from trm_mlx.data.format import read_json
from trm_mlx.errors import InputError
from trm_mlx.files import check_target, is_any_of, path_text, path_type, write_text
from trm_mlx.models.checkpoint_files import find_checkpoint
from trm_mlx.progress import ProgressBar
from trm_mlx.run.signals import stop_signal
from trm_mlx.tasks.arc import FILLS, FIRST_COLOUR, PUZZLES_FILE, pairs_of
from trm_mlx.view.save import check_picture

BUNDLED = "arc-agi-1"
FIXED = ("versions", "batch_size", "lr", "seed")  # options of an adaptation from its beginning
VERDICTS = {True: ", right", False: ", not found", None: ""}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model",
        nargs="?",
        type=path_text,
        help=f"checkpoint or run folder of an ARC model, or a bundled one (default: {BUNDLED})",
    )
    parser.add_argument(
        "task", nargs="?", type=path_text, help="JSON file of a task or of several, or a folder"
    )
    parser.add_argument(
        "-o", "--output", type=path_type, help="file for the answers, in Kaggle's form"
    )
    parser.add_argument(
        "--save", type=path_type, help="file for a picture of the tasks and answers, .png"
    )
    time_group = parser.add_mutually_exclusive_group()
    time_group.add_argument(
        "--minutes", type=float, help=f"to take in all, about (default: {MINUTES:g})"
    )
    time_group.add_argument("--steps", type=int, help="of training, instead of --minutes")
    parser.add_argument(
        "--versions",
        type=int,
        help=f"of each task, itself and augmented ones (default: {VERSIONS})",
    )
    parser.add_argument(
        "--batch-size", type=int, help="rows of a step (default: 32 on the CPU, 256 on a GPU)"
    )
    parser.add_argument("--lr", type=float, help=f"learning rate of the weights (default: {LR:g})")
    parser.add_argument("--seed", type=int, help="of every draw (default: 0)")
    parser.add_argument(
        "--run", type=path_text, help="folder to work in (default: adapted/TASK-TIME)"
    )
    parser.add_argument(
        "--resume", metavar="RUN", type=path_text, help="continue an earlier one; name no model"
    )


def run(arguments: argparse.Namespace) -> int:
    """Adapt and answer; 1 where a task of a folder was left out, 130 after Ctrl-C."""
    output, picture = arguments.output, arguments.save
    if output is not None:
        check_target(output)
    if picture is not None:
        check_picture(picture, [".png"])
    check_time(arguments.minutes, arguments.steps)
    problems = []
    with stop_signal((signal.SIGINT, signal.SIGTERM)) as stop, _Bar() as bar:
        options = {"should_stop": stop.should_stop, "on_progress": bar.update}
        options |= {"minutes": arguments.minutes, "steps": arguments.steps}
        given = {name: value for name in FIXED if (value := getattr(arguments, name)) is not None}
        if arguments.resume:
            if arguments.model:
                raise InputError("--resume names its model and tasks itself: leave out the others")
            if arguments.run or given:
                name = "run" if arguments.run else next(iter(given)).replace("_", "-")
                raise InputError(f"--resume goes on as it was begun: leave out --{name}")
            device.announce("auto")
            adapted = resume(arguments.resume, **options)
        else:
            if not arguments.model:
                raise InputError("name a task: trm adapt TASK.json")
            model, task = arguments.model, arguments.task
            if task is None:  # a single name is the task's
                model, task = BUNDLED, model
            check_adaptable(find_checkpoint(model))
            puzzles, problems = read_tasks(task)
            if output is not None:
                _check_apart(output, Path(task).expanduser())
            for problem in problems:
                print(f"left out: {problem}", file=sys.stderr)
            name = f"{Path(task).stem}-{time.strftime('%Y%m%d-%H%M%S')}"
            folder = Path(arguments.run or Path("adapted", name))
            device.announce("auto")
            adapted = adapt(model, puzzles, folder, **options, **given)
    _print(adapted)
    _write(adapted, output, picture)
    if adapted.interrupted:
        print(f"to go on: trm adapt --resume {adapted.folder}", file=sys.stderr)
        return 128 + (stop.signal or signal.SIGINT)
    return 1 if problems else 0


def _check_apart(output: Path, task: Path) -> None:
    """Refuse to write the answers over what was read."""
    read = task.rglob("*.json") if task.is_dir() else [task, solutions_beside(task) or task]
    if is_any_of(output, read):
        raise InputError(f"{output} is read, as tasks: name another file for the answers")


class _Bar:
    """Shows how far an adaptation is: on a terminal with the time left, else a line a phase."""

    def __init__(self) -> None:
        layout = "{desc} {percentage:3.0f}% |{bar}| {elapsed}, {remaining} left"
        self._bar = ProgressBar(total=1.0, bar_format=layout, leave=False)
        self._phase = ""

    def __enter__(self) -> "_Bar":
        return self

    def __exit__(self, *details: object) -> None:
        self._bar.close()

    def update(self, moment: Moment) -> None:
        """Show a moment of `adapt`."""
        if moment.phase != self._phase:
            self._phase = moment.phase
            if self._bar.disable:
                print(moment.phase, file=sys.stderr)
            self._bar.set_description_str(moment.phase, refresh=False)
            if moment.phase == "voting":
                self._bar.reset(1.0)
        self._bar.update(moment.done - self._bar.n)


def _print(adapted: Adapted) -> None:
    for task, answers in adapted.answers.items():
        for number, answer in enumerate(answers, start=1):
            print(f"{task} test {number}{VERDICTS[answer.right]}")
            shown = []
            for grid, votes in zip(answer.attempts, answer.votes, strict=True):
                if any(grid.shape == g.shape and (grid == g).all() for g in shown):
                    continue
                shown.append(grid)
                print(f"  attempt {len(shown)}, {votes} of {answer.count} votes")
                for row in grid:
                    print("    " + " ".join(map(str, row)))
                if not grid.size:
                    print("    an empty grid")
    known = [answer.right for answers in adapted.answers.values() for answer in answers]
    judged = [right for right in known if right is not None]
    if judged:
        print(f"found {sum(judged)} of {len(judged)} known answers in two attempts")
    print(f"{adapted.folder / ANSWERS}")


def _write(adapted: Adapted, output: Path | None, picture: Path | None) -> None:
    if output is not None:
        write_text(output, adapted.submission())
        print(output)
    if picture is None:
        return
    from trm_mlx.view.image import save_sheet  # which imports Pillow

    rows = []
    puzzles = read_json(adapted.folder / DATA / PUZZLES_FILE, "adapt anew", "adapt anew")
    for task, answers in adapted.answers.items():
        pairs = []
        for number, (before, after) in enumerate(pairs_of(puzzles[task], "train"), start=1):
            pairs += [(f"{task} pair {number}", before), ("", after)]
        rows += [pairs[start : start + 6] for start in range(0, len(pairs), 6)]
        solutions = [after for _, after in pairs_of(puzzles[task], "test")]
        for number, answer in enumerate(answers, start=1):
            row = [(f"{task} test {number}{VERDICTS[answer.right]}", answer.question)]
            row += [
                (f"{votes} of {answer.count} votes", grid)
                for grid, votes in zip(answer.attempts, answer.votes, strict=True)
            ]
            if answer.right is False:
                row.append(("the answer", solutions[number - 1]))
            rows.append(row)
    save_sheet(rows, FILLS[FIRST_COLOUR:], picture)
    print(picture)
