"""``single_inference.py`` and ``trm solve``: prints every step of the solution of a puzzle.

With ``-o`` it solves a CSV file into a CSV file.
"""

import argparse
import dataclasses
import sys
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
from trm_mlx.tasks import fitting
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
        task = fitting(config.vocab_size, config.seq_len, rules=False)
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
    if arguments.watch:
        solved = [_watch(solver, arguments, questions[0])]
    else:
        solutions = solver.solve(
            (task.encode(question.values) for question in questions),
            (question.identifier for question in questions),
        )
        pairs = zip(questions, solutions, strict=True)
        solved = [_show(solver, arguments, *pair) for pair in pairs]
    return 0 if all(solved) else 1


def _default_search(task: Task, questions: list[Question]) -> SearchConfig:
    """`DEFAULT_SEARCH` as far as it applies: without rules nothing tells which trajectory is right,
    and the images of a puzzle with an embedding of its own have none."""
    if not has_rules(task):
        return SearchConfig()
    own = any(question.identifier for question in questions)
    return dataclasses.replace(DEFAULT_SEARCH, symmetries=DEFAULT_SEARCH.symmetries and not own)


def _solve_table(solver: Solver, task: Task, source: Path, target: Path) -> int:
    with tqdm(total=count_rows(source), unit="puzzle", disable=None) as bar:

        def complain(line: str) -> None:
            bar.write(line, file=sys.stderr)

        tally = solve_table(solver, task, source, target, complain, bar.update)
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


def _watch(solver: Solver, arguments: argparse.Namespace, question: Question) -> bool:
    """Print the steps of one puzzle as they come; returns what `_report` does."""
    task = solver.task
    context = ScreenContext(task, question.values, solver.max_steps, solver.search.trajectories)
    with Screen(context, arguments.delay) as screen:
        tokens = task.encode(question.values)
        (solution,) = solver.solve([tokens], [question.identifier], screen.on_step)
        recording = _record(task, question, solution)
        screen.finish(recording, solution.trajectory)
    return _report(solver, arguments, question, solution, recording)


def _show(
    solver: Solver, arguments: argparse.Namespace, question: Question, solution: Solution
) -> bool:
    """Print the steps of one solution; returns what `_report` does."""
    task, recording = solver.task, _record(solver.task, question, solution)
    print(f"{task.render(question.values)}\n")
    for frame in recording.frames[1:]:
        print(
            f"step {frame.step:2}  {frame.changes:3} cells changed  "
            f"halting {frame.halting:.3f}  {task.line(frame.values)}"
        )
    return _report(solver, arguments, question, solution, recording)


def _record(task: Task, question: Question, solution: Solution) -> Recording:
    answer = task.decode(solution.answer)
    verdict = judged(task, question.values, answer, question.label)
    return recording_of(task, question.values, solution, verdict)


def _report(
    solver: Solver,
    arguments: argparse.Namespace,
    question: Question,
    solution: Solution,
    recording: Recording,
) -> bool:
    """Save the recording, print the answer and its cost; returns whether the answer is right."""
    if arguments.save is not None:
        save(recording, arguments.save)
    answer = recording.task.decode(solution.answer)
    print(f"\n{recording.task.render(answer, givens=question.values)}\n")
    print(
        f"{recording.verdict.words}, "
        f"{'halted' if solution.halted else 'stopped'} at step {solution.steps} "
        f"with probability {solution.confidence:.3f}"
    )
    print(
        f"trajectories {solution.trajectories}, network evaluations {solution.evaluations}, "
        f"chosen by {solver.search.select}"
    )
    if question.label is not None and has_rules(recording.task):
        print(matched(question.label, answer).words)
    print()
    return recording.verdict.right
