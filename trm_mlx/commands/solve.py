"""``single_inference.py`` and ``trm solve``: puzzles in, every step of their solution out.

With ``-o``, a CSV file in and a CSV file out.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from tqdm import tqdm

from trm_mlx import backend
from trm_mlx.commands.bundled import accepts, bundled_model
from trm_mlx.commands.search_options import add_search_arguments, build_solver
from trm_mlx.data.loader import PuzzleDataset
from trm_mlx.errors import InputError, located, shortened
from trm_mlx.models.weights import load
from trm_mlx.solve.schedule import Solution
from trm_mlx.solve.search import THOROUGH
from trm_mlx.solve.solver import Solver
from trm_mlx.solve.table import first_questions, solve_table
from trm_mlx.tasks import fitting
from trm_mlx.tasks.base import Task
from trm_mlx.view.film import Film, film_of
from trm_mlx.view.save import check_target, save
from trm_mlx.view.terminal import colourful, show


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "puzzle",
        nargs="?",
        help="a puzzle as text, such as 81 cells of a Sudoku, 0 or . for a blank; without it, "
        "--file, --data or stdin. With -o, a CSV file with a column question",
    )
    parser.add_argument(
        "--checkpoint",
        help="checkpoint or run folder, or a bundled model by its name (default: the bundled model "
        "for this kind of puzzle)",
    )
    parser.add_argument("-o", "--output", help="CSV file to write, for a CSV file of puzzles")
    parser.add_argument("--file", help="text file: one puzzle, or one a line")
    parser.add_argument("--data", help="dataset folder to take a puzzle from")
    parser.add_argument("--split", default="test", help="of --data (default: %(default)s)")
    parser.add_argument(
        "--index", type=int, nargs="+", default=[0], help="examples of --data (default: 0)"
    )
    parser.add_argument(
        "--batch-size", type=int, help="puzzles worked on at once (default: by the device)"
    )
    parser.add_argument(
        "--watch", action="store_true", help="play the steps of one puzzle, in colour on a terminal"
    )
    parser.add_argument(
        "--delay", type=float, default=0.4, help="seconds a frame of --watch (default: %(default)s)"
    )
    parser.add_argument(
        "--save", type=Path, metavar="FILE", help="draw one puzzle's steps: .png, .gif or .html"
    )
    add_search_arguments(parser, THOROUGH)


def run(arguments: argparse.Namespace) -> int:
    """Solve and print or write.

    The exit status is 1 if an answer shown breaks the rules, or a row of a CSV file is no puzzle.
    """
    if sum(given is not None for given in (arguments.puzzle, arguments.file, arguments.data)) > 1:
        raise InputError("name one source: a puzzle, --file or --data")
    if arguments.output is not None and arguments.puzzle is None:
        raise InputError("-o goes with a CSV file: trm solve IN.csv -o OUT.csv --checkpoint DIR")
    _check_views(arguments)
    source, text = _read_text(arguments)
    if arguments.checkpoint is None:
        arguments.checkpoint = _bundled_model(arguments, source, text)
    model, config = load(arguments.checkpoint)
    with located(arguments.checkpoint):
        task = fitting(config.vocab_size, config.seq_len)
    shows = arguments.output is None
    solver = build_solver(arguments, model, task, THOROUGH, intermediates=shows)
    if not shows:
        backend.announce(config.forward_dtype)
        return _solve_table(solver, task, Path(arguments.puzzle), Path(arguments.output))
    if arguments.data is not None:
        puzzles = _from_dataset(task, arguments)
    else:
        puzzles = [(question, None) for question in _questions(task, source, text)]
    if len(puzzles) > 1 and (arguments.watch or arguments.save):
        option = "--watch" if arguments.watch else "--save"
        raise InputError(f"{option} shows one puzzle, not {len(puzzles)}: name one of them")
    backend.announce(config.forward_dtype)
    solutions = solver.solve(task.encode(question) for question, _ in puzzles)
    solved = [
        _show(task, solver, arguments, question, label, solution)
        for (question, label), solution in zip(puzzles, solutions, strict=True)
    ]
    return 0 if all(solved) else 1


def _solve_table(solver: Solver, task: Task, source: Path, target: Path) -> int:
    with tqdm(total=_count_lines(source), unit="puzzle", disable=None) as bar:

        def complain(line: str) -> None:
            bar.write(line, file=sys.stderr)

        tally = solve_table(solver, task, source, target, complain, bar.update)
    attempted = max(tally.rows - tally.unreadable, 1)
    print(
        f"{target}: {tally.rows} rows, {tally.solved} solved, {tally.unreadable} unreadable; "
        f"{tally.trajectories / attempted:.2f} trajectories and "
        f"{tally.evaluations / attempted:.2f} network evaluations a puzzle, "
        f"chosen by {solver.search.select}"
    )
    return 1 if tally.unreadable else 0


def _count_lines(path: Path) -> int:
    """Rows after the header, for the progress bar."""
    try:
        with path.open("rb") as file:
            return max(
                sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(2**20), b"")) - 1, 0
            )
    except OSError as error:
        raise InputError(f"cannot read {shortened(path)}: {error.strerror}") from error


def _read_text(arguments: argparse.Namespace) -> tuple[str, str]:
    """Where the puzzles come from, for messages, and their text; none for tables and datasets."""
    if arguments.output is not None or arguments.data is not None:
        return arguments.data or arguments.puzzle, ""
    if arguments.puzzle is not None:
        return f"the puzzle of {len(arguments.puzzle.strip())} characters", arguments.puzzle
    if arguments.file is None and sys.stdin.isatty():
        raise InputError("no puzzle: write one after trm solve, or name --file or --data")
    source = arguments.file or "standard input"
    try:
        text = Path(arguments.file).read_text("utf-8") if arguments.file else sys.stdin.read()
    except OSError as error:
        raise InputError(f"cannot read {shortened(source)}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{source} is not a text file: {error}") from error
    if not text.strip():
        raise InputError(f"{source} is empty: write a puzzle")
    return source, text


def _bundled_model(arguments: argparse.Namespace, source: str, text: str) -> str:
    """The bundled model for what is to be solved."""
    if arguments.data is not None:
        sizes = PuzzleDataset([arguments.data], arguments.split).metadata
        wanted = (sizes.vocab_size, sizes.seq_len)
        return bundled_model(lambda task: (task.vocab_size, task.seq_len) == wanted, source)
    texts = [text, *text.splitlines()]
    if arguments.output is not None:
        texts = first_questions(Path(arguments.puzzle), 100)
    return bundled_model(lambda task: any(accepts(task, text) for text in texts), source)


def _questions(task: Task, source: str, text: str) -> list[np.ndarray]:
    """Questions as cell values: a board a line, or one board in rows."""
    lines = {n: line for n, line in enumerate(text.splitlines(), start=1) if line.strip()}
    if len(lines) == 1 or not any(accepts(task, line) for line in lines.values()):
        with located(source):
            return [task.parse(text)]
    questions = []
    for number, line in lines.items():
        with located(f"{source} line {number}"):
            questions.append(task.parse(line))
    return questions


def _from_dataset(task: Task, arguments: argparse.Namespace) -> list[tuple[np.ndarray, np.ndarray]]:
    """Questions and their labels, as cell values."""
    data = PuzzleDataset([arguments.data], arguments.split)
    examples = np.array(arguments.index)
    last = int(data.puzzle_indices[-1]) - 1
    for index in examples[(examples < 0) | (examples > last)]:
        raise InputError(f"--index {shortened(index)}: {arguments.data} has examples 0 to {last}")
    for name in ("seq_len", "vocab_size"):
        ours, theirs = getattr(task, name), getattr(data.metadata, name)
        if ours != theirs:
            raise InputError(
                f"{name} is {ours} in {arguments.checkpoint} but {theirs} in {arguments.data}: "
                f"name a {task.name} dataset"
            )
    owners = np.searchsorted(data.puzzle_indices, examples, side="right") - 1
    batch = data.batch(examples, owners, len(examples))
    return list(zip(task.decode(batch["inputs"]), task.decode(batch["labels"]), strict=True))


def _check_views(arguments: argparse.Namespace) -> None:
    """Refuse before any work what --watch and --save could not do."""
    if not 0 <= arguments.delay <= 60:
        raise InputError(f"--delay {arguments.delay}: must lie between 0 and 60 seconds")
    if arguments.output is not None and (arguments.watch or arguments.save):
        raise InputError("-o writes a CSV file of answers: leave out --watch and --save")
    if arguments.watch:
        colourful()
    if arguments.save is not None:
        check_target(arguments.save)


def _show(
    task: Task,
    solver: Solver,
    arguments: argparse.Namespace,
    question: np.ndarray,
    label: np.ndarray | None,
    solution: Solution,
) -> bool:
    """Print how one puzzle was solved, and its answer; whether the answer obeys the rules."""
    answer = task.decode(solution.answer)
    solved = bool(task.check(question, answer))
    film = film_of(task, question, solution, solved)
    if arguments.watch:
        show(film, arguments.delay)
    else:
        _print_steps(task, film)
    if arguments.save is not None:
        save(film, arguments.save)
    print(f"\n{task.render(answer, givens=question)}\n")
    print(
        f"rules {'satisfied' if solved else 'broken'}, "
        f"{'halted' if solution.halted else 'stopped'} at step {solution.steps} "
        f"with probability {solution.confidence:.3f}"
    )
    print(
        f"trajectories {solution.trajectories}, network evaluations {solution.evaluations}, "
        f"chosen by {solver.search.select}"
    )
    if label is not None:
        print(f"label {'matched' if (label == answer).all() else 'missed'}")
    print()
    return solved


def _print_steps(task: Task, film: Film) -> None:
    print(f"{task.render(film.frames[0].values)}\n")
    for frame in film.frames[1:]:
        print(
            f"step {frame.step:2}  {frame.changes:3} cells changed  "
            f"halting {frame.halting:.3f}  {task.line(frame.values)}"
        )
