"""``single_inference.py`` and ``trm solve``: prints every step of the solution of a puzzle.

With ``-o`` it writes the answers into a CSV file.
"""

import argparse
import dataclasses
import sys
from collections.abc import Iterable
from contextlib import ExitStack, nullcontext
from pathlib import Path

import numpy as np

from trm_mlx import device
from trm_mlx.commands.options import (
    add_search_arguments,
    add_task_argument,
    build_solver,
    named_model,
)
from trm_mlx.data.dataset import PuzzleDataset
from trm_mlx.data.reader import split_asked
from trm_mlx.errors import InputError, located
from trm_mlx.files import check_target, is_any_of, path_text, path_type
from trm_mlx.models.checkpoint_files import load
from trm_mlx.progress import ProgressBar, StatusLine
from trm_mlx.solve.csv_files import solve_table
from trm_mlx.solve.questions import (
    Question,
    bundled_model,
    bundled_model_of,
    check_sizes,
    find_source,
    questions_of_dataset,
    read_questions,
)
from trm_mlx.solve.scheduler import Solution, StepEvent
from trm_mlx.solve.search import DEFAULT_SEARCH, SearchConfig
from trm_mlx.solve.solver import Solver
from trm_mlx.tasks import task_of
from trm_mlx.tasks.base import Task
from trm_mlx.view.recording import Recording, ending, judged, matched, percent, recording_of
from trm_mlx.view.save import check_picture, save
from trm_mlx.view.terminal import Screen, ScreenContext, colourful

WIDTH = 100  # characters of an answer that a step's line still shows


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "puzzle",
        nargs="?",
        help="puzzles: text in any common spelling, such as 81 cells of a Sudoku; a file of them, "
        "as text, CSV, JSON or parquet; or - for stdin, which is read where none is named",
    )
    parser.add_argument("--file", type=path_text, help="file of puzzles")
    parser.add_argument(
        "--question-column", metavar="NAME", help="of a table (default: question, puzzle, quizzes)"
    )
    parser.add_argument("--data", type=path_text, help="dataset folder to take a puzzle from")
    parser.add_argument(
        "--split", help='of --data (default: the one whose folder it names, or else "test")'
    )
    parser.add_argument("--name", help="a puzzle of --data, as its identifiers.json has it")
    parser.add_argument(
        "--index",
        type=int,
        nargs="+",
        default=[0],
        help="examples of --data, or of the puzzle that --name names (default: 0)",
    )
    parser.add_argument(
        "--checkpoint",
        type=path_text,
        help="checkpoint or run folder, a bundled model by its name, or owner/name on the Hugging "
        "Face hub (default: the bundled model for this kind of puzzle)",
    )
    add_task_argument(parser)
    parser.add_argument("-o", "--output", type=path_type, help="CSV file of answers to write")
    parser.add_argument(
        "--batch-size", type=int, help="puzzles worked on at once (default: by the device)"
    )
    parser.add_argument(
        "--watch",
        action="store_true",
        help="show the steps of one puzzle as they are computed, in colour on a terminal",
    )
    parser.add_argument(
        "--delay",
        type=float,
        default=0.4,
        help="seconds that a frame of --watch stays at least (default: %(default)s)",
    )
    parser.add_argument(
        "--save",
        type=path_type,
        metavar="FILE",
        help="draw one puzzle's steps: .png, .gif or .html",
    )
    add_search_arguments(parser, DEFAULT_SEARCH)


def run(arguments: argparse.Namespace) -> int:
    """Solve puzzles, and print or write the answers.

    The exit status is 1 if an answer shown breaks the rules or, where there are none, is not the
    label; or if one of several puzzles cannot be read.
    """
    _check_views(arguments)
    source, data = None, _open_dataset(arguments)
    if data is None:
        source = find_source(arguments.puzzle, arguments.file, arguments.question_column)
    name = arguments.data or source.name
    if arguments.output is not None:
        check_target(arguments.output)
        if is_any_of(arguments.output, [name]):
            raise InputError(f"{arguments.output} is the input itself: name another file to write")
    checkpoint = named_model(arguments)
    if checkpoint is None:
        checkpoint = bundled_model(source) if source else bundled_model_of(data, name)
    model, config = load(checkpoint)
    with located(checkpoint):
        task = task_of(config, rules=False)
    if data is not None:
        check_sizes(config, checkpoint, data, name)
        questions = questions_of_dataset(task, data, name, arguments.name, arguments.index)
    elif task.has_rules:
        questions = read_questions(source, task)
    else:
        raise InputError(
            f"{checkpoint} solves the puzzles of the dataset it was trained on: name one with "
            f"--data DIR --name PUZZLE, or let it learn yours: trm adapt {checkpoint} TASK.json"
        )
    unreadable = 0
    if arguments.output is None:
        questions, unreadable = _readable(questions)
        if len(questions) > 1 and (arguments.watch or arguments.save):
            option = "--watch" if arguments.watch else "--save"
            raise InputError(f"{option} shows one puzzle, not {len(questions)}: name one of them")
    own = data is not None and any(question.identifier for question in questions)
    default = _default_search(task, own)
    solver = build_solver(arguments, model, task, default, intermediates=arguments.output is None)
    device.announce(config.forward_dtype)
    if config.smaller_canvases:
        print(
            "note: solved on a 30x30 canvas; the model knows smaller ones, on which 'trm eval' and "
            "'trm adapt' are better",
            file=sys.stderr,
        )
    if arguments.output is not None:
        return _solve_table(solver, task, questions, name, arguments.output)
    right = _solve_shown(solver, task, questions, arguments)
    return 0 if right and not unreadable else 1


def _open_dataset(arguments: argparse.Namespace) -> PuzzleDataset | None:
    """The dataset of --data, if that is the one source that is named."""
    if sum(given is not None for given in (arguments.puzzle, arguments.file, arguments.data)) > 1:
        raise InputError("name one source: a puzzle, --file or --data")
    if arguments.data is not None:
        return PuzzleDataset([arguments.data], split_asked(arguments.data, arguments.split))
    if arguments.name is not None:
        raise InputError("--name is that of a puzzle of a dataset: add --data DIR")
    return None


def _readable(questions: Iterable[Question]) -> tuple[list[Question], int]:
    """The questions that are puzzles, and how many are none, which are reported.

    Raises:
        InputError: all of them, the last one's.
    """
    found = list(questions)
    puzzles = [question for question in found if question.values is not None]
    broken = [question for question in found if question.values is None]
    last = None if puzzles else broken.pop()
    for question in broken:
        print(f"error: {question.place}: {question.error}", file=sys.stderr)
    if last is not None:
        raise InputError(f"{last.place}: {last.error}")
    return puzzles, len(broken)


def _default_search(task: Task, own: bool) -> SearchConfig:
    """`DEFAULT_SEARCH` as far as it applies: without rules nothing tells which trajectory is right,
    and the images of a puzzle with an embedding of its ``own`` have none."""
    if not task.has_rules:
        return SearchConfig()
    return dataclasses.replace(DEFAULT_SEARCH, symmetries=DEFAULT_SEARCH.symmetries and not own)


def _solve_shown(
    solver: Solver, task: Task, puzzles: list[Question], arguments: argparse.Namespace
) -> bool:
    """Solve puzzles and print every step; returns whether all answers are right."""
    inputs = (task.encode(question.values) for question in puzzles)
    identifiers = (question.identifier for question in puzzles)
    right = True
    steps, trajectories = solver.max_steps, solver.search.trajectories
    with ExitStack() as stack:
        screen = progress = None
        if arguments.watch:
            context = ScreenContext(puzzles[0].task, puzzles[0].values, steps, trajectories)
            screen = stack.enter_context(Screen(context, arguments.delay))
            on_step = screen.on_step
        else:
            limits = f"up to {trajectories} attempts of {steps} steps a puzzle"
            progress = stack.enter_context(StatusLine(f"solving: {limits}"))

            def on_step(event: StepEvent) -> None:
                progress.update(
                    f"solving puzzle {event.puzzle + 1} of {len(puzzles)}: attempt "
                    f"{event.trajectory + 1}, step {event.step}; {limits}"
                )

        solutions = solver.solve(inputs, identifiers, on_step)
        for question, solution in zip(puzzles, solutions, strict=True):
            answer = task.decode(solution.answer)
            verdict = judged(task, question.values, answer, question.label)
            recording = recording_of(question.task, question.values, solution, verdict)
            if screen is None:
                progress.clear()
                _print_steps(recording)
            else:
                screen.finish(recording, solution.trajectory)
            _print_answer(recording, question, solution, solver.search.select)
            if arguments.save is not None:
                save(recording, arguments.save)
                print(arguments.save)
            right &= verdict.right
    return right


def _solve_table(
    solver: Solver, task: Task, questions: Iterable[Question], name: str, target: Path
) -> int:
    """Solve puzzles into a CSV file; returns the exit status."""
    total = len(questions) if isinstance(questions, list) else None
    words = f"solving {name} into {target}"
    with (
        ProgressBar(total=total, unit="puzzle") as bar,
        StatusLine(words) if bar.disable else nullcontext(),
    ):

        def warn(line: str) -> None:
            bar.write(line, file=sys.stderr)

        tally = solve_table(solver, task, questions, target, name, warn, bar.update)
    puzzles = max(tally.rows - tally.unreadable, 1)
    print(
        f"{target}: {tally.rows} rows, {tally.solved} solved, {tally.unreadable} unreadable; "
        f"{tally.trajectories / puzzles:.2f} attempts and "
        f"{tally.evaluations / puzzles:.2f} network runs a puzzle, "
        f"answer chosen by {solver.search.select}"
    )
    return 1 if tally.unreadable else 0


def _check_views(arguments: argparse.Namespace) -> None:
    """Check the options of views before any work."""
    if not 0 <= arguments.delay <= 60:
        raise InputError(f"--delay {arguments.delay}: must lie between 0 and 60 seconds")
    if arguments.output is not None and (arguments.watch or arguments.save):
        raise InputError("-o writes a CSV file of answers: leave out --watch and --save")
    if arguments.watch:
        colourful()
    if arguments.save is not None:
        check_picture(arguments.save)


def known_of(task: Task, question: np.ndarray) -> str | None:
    """Say what an exact solver knows of a puzzle that the model has not solved, where there is one.

    It never solves for the model.
    """
    return {
        0: "the puzzle has no solution, as the exact solver finds: check its givens",
        2: "the puzzle has several solutions, as the exact solver finds; this is none of them",
    }.get(task.count_solutions(question[None])[0])


def _print_steps(recording: Recording) -> None:
    task, (first, *frames) = recording.task, recording.frames
    print(f"{task.render(first.values)}\n")
    for frame in frames:
        line = task.line(frame.values)
        cells = "cell changed " if frame.changes == 1 else "cells changed"
        words = f"step {frame.step:2}  {frame.changes:3} {cells}  "
        words += f"sure it is done {percent(frame.halting):>7}"
        print(f"{words}  {line}" if len(line) <= WIDTH else words)


def _print_answer(
    recording: Recording, question: Question, solution: Solution, select: str
) -> None:
    """Print the answer, the verdict and the cost."""
    task, verdict = recording.task, recording.verdict
    answer = task.decode(solution.answer)
    print(f"\n{task.render(answer, givens=question.values)}\n")
    solved = "Solved" if verdict.right else "Not solved"
    how = ending(solution.steps, solution.halted, verdict)
    print(f"{solved}: {how}, sure it is done {percent(solution.confidence)}")
    print(
        f"attempts {solution.trajectories}, network runs {solution.evaluations}, "
        f"answer chosen by {select}"
    )
    if question.label is not None and task.has_rules:
        words = matched(question.label, answer).words
        several = verdict.right and (question.label != answer).any()
        print(f"{words}, but as right: the puzzle has several" if several else words)
    if not verdict.right and (known := known_of(task, question.values)):
        print(known)
    print()
