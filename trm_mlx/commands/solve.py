"""``single_inference.py`` and ``trm solve``: puzzles in, every step of their refinement out."""

import argparse
import sys
from pathlib import Path

import numpy as np

from trm_mlx import backend
from trm_mlx.data.loader import PuzzleDataset
from trm_mlx.errors import InputError, located
from trm_mlx.models.weights import load
from trm_mlx.solve.solver import refine
from trm_mlx.tasks import fitting
from trm_mlx.tasks.sudoku import Sudoku, cells_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "puzzle",
        nargs="?",
        help="81, 36 or 16 cells, 0 or . for a blank; without it, --file, --data or stdin",
    )
    parser.add_argument("--checkpoint", required=True, help="checkpoint or run folder")
    parser.add_argument("--file", help="text file: one puzzle, or one a line")
    parser.add_argument("--data", help="dataset folder to take a puzzle from")
    parser.add_argument("--split", default="test", help="of --data (default: %(default)s)")
    parser.add_argument(
        "--index", type=int, nargs="+", default=[0], help="examples of --data (default: 0)"
    )
    parser.add_argument("--max-steps", type=int, help="supervision steps (default: the model's)")


def run(arguments: argparse.Namespace) -> int:
    """Solve and print; the exit status is 1 if an answer breaks the rules or changes a given."""
    if sum(given is not None for given in (arguments.puzzle, arguments.file, arguments.data)) > 1:
        raise InputError("name one source: a puzzle, --file or --data")
    if arguments.max_steps is not None and arguments.max_steps < 1:
        raise InputError(f"--max-steps {arguments.max_steps}: must be at least 1")
    model, config = load(arguments.checkpoint)
    with located(arguments.checkpoint):
        task = fitting(config.vocab_size, config.seq_len)
    if arguments.data is not None:
        puzzles = _from_dataset(task, arguments)
    else:
        puzzles = [(question, None) for question in _from_text(task, arguments)]
    backend.announce(config.forward_dtype)
    solved = [
        _show(task, model, question, arguments.max_steps, label) for question, label in puzzles
    ]
    return 0 if all(solved) else 1


def _from_text(task: Sudoku, arguments: argparse.Namespace) -> list[np.ndarray]:
    """Questions from the command line, a file or stdin: one board in rows, or one board a line."""
    if arguments.puzzle is not None:
        return [task.parse(arguments.puzzle)]
    source = arguments.file or "standard input"
    try:
        text = Path(arguments.file).read_text("utf-8") if arguments.file else sys.stdin.read()
    except OSError as error:
        raise InputError(f"cannot read {source}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{source} is not a text file: {error}") from error
    lines = {n: line for n, line in enumerate(text.splitlines(), start=1) if cells_of(line)}
    if not lines:
        raise InputError(f"{source} is empty: write a puzzle")
    if all(len(cells_of(line)) <= task.size for line in lines.values()):
        lines = {1: text}
    questions = []
    for number, line in lines.items():
        with located(source if line is text else f"{source} line {number}"):
            questions.append(task.parse(line))
    return questions


def _from_dataset(
    task: Sudoku, arguments: argparse.Namespace
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Questions and their labels, as cell values."""
    data = PuzzleDataset([arguments.data], arguments.split)
    examples = np.array(arguments.index)
    last = int(data.puzzle_indices[-1]) - 1
    for index in examples[(examples < 0) | (examples > last)]:
        raise InputError(f"--index {index}: {arguments.data} has examples 0 to {last}")
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


def _show(task: Sudoku, model, question: np.ndarray, max_steps: int | None, label) -> bool:
    """Print the refinement of one puzzle and its answer; whether the answer is right."""
    print(f"{task.render(question)}\n")
    answer, halt = question, None
    for refinement in refine(model, task.encode(question)[None], max_steps=max_steps):
        previous, answer = answer, task.decode(refinement.answers[0])
        probability = refinement.halt_probability[0]
        if halt is None and refinement.halts[0]:
            halt = refinement.step, probability
        print(
            f"step {refinement.step:2}  {(answer != previous).sum():3} cells changed  "
            f"{task.violations(answer).sum():3} in conflict  halting {probability:.3f}  "
            f"{''.join(map(str, answer))}"
        )
    print(f"\n{task.render(answer, givens=question)}\n")
    keeps = bool(((question == 0) | (question == answer)).all())
    valid = bool(task.check(np.zeros_like(answer), answer))
    print(
        f"rules {'satisfied' if valid else 'broken'}, givens {'kept' if keeps else 'changed'}, "
        f"would halt at step {halt[0]} with probability {halt[1]:.3f}"
    )
    if label is not None:
        print(f"label {'matched' if (label == answer).all() else 'missed'}")
    print()
    return valid and keeps
