"""``single_inference.py`` and ``trm solve``: prints every step of the solution of a puzzle.

With ``-o`` it solves a CSV file into a CSV file.
"""

import argparse
import dataclasses
import sys
from contextlib import ExitStack
from pathlib import Path

from tqdm import tqdm

from trm_mlx import device
from trm_mlx.commands.puzzle_sources import (
    Question,
    add_source_arguments,
    find_source,
    model_for,
    read_questions,
)
from trm_mlx.commands.search_options import add_search_arguments, build_solver
from trm_mlx.errors import InputError, located
from trm_mlx.models.checkpoint_files import load
from trm_mlx.solve.csv_files import count_rows, solve_table
from trm_mlx.solve.scheduler import Solution
from trm_mlx.solve.search import DEFAULT_SEARCH, SearchConfig
from trm_mlx.solve.solver import Solver
from trm_mlx.tasks import task_of
from trm_mlx.tasks.base import Task, has_rules
from trm_mlx.view.recording import Recording, judged, matched, recording_of
from trm_mlx.view.save import check_target, save
from trm_mlx.view.terminal import Screen, ScreenContext, colourful


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_source_arguments(parser)
    parser.add_argument(
        "--checkpoint",
        help="checkpoint or run folder, or a bundled model by its name (default: the bundled model "
        "for this kind of puzzle)",
    )
    parser.add_argument("-o", "--output", help="CSV file to write, for a CSV file of puzzles")
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
        "--save", type=Path, metavar="FILE", help="draw one puzzle's steps: .png, .gif or .html"
    )
    add_search_arguments(parser, DEFAULT_SEARCH)


def run(arguments: argparse.Namespace) -> int:
    """Solve puzzles, and print or write the answers.

    The exit status is 1 if an answer shown breaks the rules or, where there are none, is not the
    label; or if a row of a CSV file is no puzzle.
    """
    _check_views(arguments)
    source = find_source(arguments)
    if arguments.checkpoint is None:
        arguments.checkpoint = model_for(arguments, source)
    model, config = load(arguments.checkpoint)
    with located(arguments.checkpoint):
        task = task_of(config, rules=False)
    if not has_rules(task) and arguments.data is None:
        raise InputError(
            f"{arguments.checkpoint} solves the puzzles of the dataset it was trained on: name one "
            "with --data DIR --name PUZZLE"
        )
    if arguments.output is not None:
        solver = build_solver(arguments, model, task, DEFAULT_SEARCH)
        device.announce(config.forward_dtype)
        return _solve_table(solver, task, Path(arguments.puzzle), Path(arguments.output))
    questions = read_questions(task, config, arguments, source)
    if len(questions) > 1 and (arguments.watch or arguments.save):
        option = "--watch" if arguments.watch else "--save"
        raise InputError(f"{option} shows one puzzle, not {len(questions)}: name one of them")
    default = _default_search(task, questions)
    solver = build_solver(arguments, model, task, default, intermediates=True)
    device.announce(config.forward_dtype)
    inputs = (task.encode(question.values) for question in questions)
    identifiers = (question.identifier for question in questions)
    with ExitStack() as stack:
        screen = on_step = None
        if arguments.watch:
            steps, trajectories = solver.max_steps, solver.search.trajectories
            context = ScreenContext(task, questions[0].values, steps, trajectories)
            screen = stack.enter_context(Screen(context, arguments.delay))
            on_step = screen.on_step
        solutions = solver.solve(inputs, identifiers, on_step)
        right = []
        for question, solution in zip(questions, solutions, strict=True):
            answer = task.decode(solution.answer)
            verdict = judged(task, question.values, answer, question.label)
            recording = recording_of(task, question.values, solution, verdict)
            if screen is None:
                _print_steps(recording)
            else:
                screen.finish(recording, solution.trajectory)
            if arguments.save is not None:
                save(recording, arguments.save)
            _print_answer(recording, question, solution, solver.search.select)
            right.append(verdict.right)
    return 0 if all(right) else 1


def _default_search(task: Task, questions: list[Question]) -> SearchConfig:
    """`DEFAULT_SEARCH` as far as it applies: without rules nothing tells which trajectory is right,
    and the images of a puzzle with an embedding of its own have none."""
    if not has_rules(task):
        return SearchConfig()
    own = any(question.identifier for question in questions)
    return dataclasses.replace(DEFAULT_SEARCH, symmetries=DEFAULT_SEARCH.symmetries and not own)


def _solve_table(solver: Solver, task: Task, source: Path, target: Path) -> int:
    with tqdm(total=count_rows(source), unit="puzzle", disable=None) as bar:

        def warn(line: str) -> None:
            bar.write(line, file=sys.stderr)

        tally = solve_table(solver, task, source, target, warn, bar.update)
    puzzles = max(tally.rows - tally.unreadable, 1)
    print(
        f"{target}: {tally.rows} rows, {tally.solved} solved, {tally.unreadable} unreadable; "
        f"{tally.trajectories / puzzles:.2f} trajectories and "
        f"{tally.evaluations / puzzles:.2f} network evaluations a puzzle, "
        f"chosen by {solver.search.select}"
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
        check_target(arguments.save)


def _print_steps(recording: Recording) -> None:
    task, (first, *frames) = recording.task, recording.frames
    print(f"{task.render(first.values)}\n")
    for frame in frames:
        print(
            f"step {frame.step:2}  {frame.changes:3} cells changed  "
            f"halting {frame.halting:.3f}  {task.line(frame.values)}"
        )


def _print_answer(
    recording: Recording, question: Question, solution: Solution, select: str
) -> None:
    """Print the answer, the verdict and the cost."""
    task, verdict = recording.task, recording.verdict
    answer = task.decode(solution.answer)
    print(f"\n{task.render(answer, givens=question.values)}\n")
    print(
        f"{verdict.words}, {'halted' if solution.halted else 'stopped'} at step {solution.steps} "
        f"with probability {solution.confidence:.3f}"
    )
    print(
        f"trajectories {solution.trajectories}, network evaluations {solution.evaluations}, "
        f"chosen by {select}"
    )
    if question.label is not None and has_rules(task):
        print(matched(question.label, answer).words)
    print()
