"""Where the puzzles of ``trm solve`` come from: an argument, a text file, stdin, or a dataset."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from trm_mlx.config import ModelConfig
from trm_mlx.data.dataset import PuzzleDataset, puzzle_names
from trm_mlx.data.format import DatasetMetadata
from trm_mlx.errors import InputError, located
from trm_mlx.models.checkpoint_files import bundled, read_config
from trm_mlx.solve.csv_files import first_questions
from trm_mlx.tasks import task_of
from trm_mlx.tasks.base import Task


class Question(NamedTuple):
    """A puzzle as cell values ``[S]``; the label is its answer, where a dataset has one."""

    values: np.ndarray
    identifier: int = 0  # of the puzzle embedding
    label: np.ndarray | None = None


class Source(NamedTuple):
    """Where the puzzles come from, for messages, and their text; none for tables and datasets."""

    name: str
    text: str


def add_source_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "puzzle",
        nargs="?",
        help="a puzzle as text, such as 81 cells of a Sudoku, 0 or . for a blank; without it, "
        "--file, --data or stdin. With -o, a CSV file with a column question",
    )
    parser.add_argument("--file", help="text file: one puzzle, or one a line")
    parser.add_argument("--data", help="dataset folder to take a puzzle from")
    parser.add_argument("--split", default="test", help="of --data (default: %(default)s)")
    parser.add_argument("--name", help="a puzzle of --data, as its identifiers.json has it")
    parser.add_argument(
        "--index",
        type=int,
        nargs="+",
        default=[0],
        help="examples of --data, or of the puzzle that --name names (default: 0)",
    )


def find_source(arguments: argparse.Namespace) -> Source:
    """The one source that is named, read if it is text."""
    if sum(given is not None for given in (arguments.puzzle, arguments.file, arguments.data)) > 1:
        raise InputError("name one source: a puzzle, --file or --data")
    if arguments.name is not None and arguments.data is None:
        raise InputError("--name is that of a puzzle of a dataset: add --data DIR")
    if arguments.output is not None and arguments.puzzle is None:
        raise InputError("-o goes with a CSV file: trm solve IN.csv -o OUT.csv --checkpoint DIR")
    if arguments.output is not None or arguments.data is not None:
        return Source(arguments.data or arguments.puzzle, "")
    if arguments.puzzle is not None and os.path.isfile(arguments.puzzle):
        raise InputError(
            f"{arguments.puzzle} is a file: read puzzles from it with --file, or a CSV file with "
            "-o OUT.csv"
        )
    if arguments.puzzle is not None:
        return Source(f"the puzzle of {len(arguments.puzzle.strip())} characters", arguments.puzzle)
    if arguments.file is None and sys.stdin.isatty():
        raise InputError("no puzzle: write one after trm solve, or name --file or --data")
    name = arguments.file or "standard input"
    try:
        text = Path(arguments.file).read_text("utf-8") if arguments.file else sys.stdin.read()
    except OSError as error:
        raise InputError(f"cannot read {name}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{name} is not a text file: {error}") from error
    if not text.strip():
        raise InputError(f"{name} is empty: write a puzzle")
    return Source(name, text)


def model_for(arguments: argparse.Namespace, source: Source) -> str:
    """The bundled model for what is to be solved."""
    if arguments.data is not None:
        sizes = PuzzleDataset([arguments.data], arguments.split).metadata
        wanted = (sizes.vocab_size, sizes.seq_len)
        return bundled_model(lambda task: (task.vocab_size, task.seq_len) == wanted, source.name)
    texts = [source.text, *source.text.splitlines()]
    if arguments.output is not None:
        texts = first_questions(Path(arguments.puzzle), 100)
        if not texts:
            raise InputError(f"{arguments.puzzle} has no puzzles: write them below the header")

    def reads_one(task: Task) -> bool:
        return any(refusal(task, text) is None for text in texts)

    return bundled_model(reads_one, source.name, texts)


def read_questions(
    task: Task, config: ModelConfig, arguments: argparse.Namespace, source: Source
) -> list[Question]:
    """The puzzles, as the task of the model reads them."""
    if arguments.data is not None:
        return _of_dataset(task, config, arguments)
    lines = {n: line for n, line in enumerate(source.text.splitlines(), start=1) if line.strip()}
    if len(lines) == 1 or all(refusal(task, line) for line in lines.values()):
        with located(source.name):  # a board in rows
            return [Question(task.parse(source.text))]
    questions = []
    for number, line in lines.items():
        with located(f"{source.name} line {number}"):
            questions.append(Question(task.parse(line)))
    return questions


def _of_dataset(task: Task, config: ModelConfig, arguments: argparse.Namespace) -> list[Question]:
    data = PuzzleDataset([arguments.data], arguments.split)
    check_sizes(config, arguments.checkpoint, data.metadata, arguments.data)
    examples, place = np.arange(data.puzzle_indices[-1]), arguments.data
    if arguments.name is not None:
        examples, place = _examples_named(data, arguments), arguments.name
    indices = np.array(arguments.index)
    for index in indices[(indices < 0) | (indices >= len(examples))]:
        raise InputError(f"--index {index}: {place} has examples 0 to {len(examples) - 1}")
    chosen = examples[indices]
    owners = np.searchsorted(data.puzzle_indices, chosen, side="right") - 1
    batch = data.batch(chosen, owners, len(chosen))
    columns = (
        task.decode(batch["inputs"]),
        batch["puzzle_identifiers"].tolist(),
        task.decode(batch["labels"]),
    )
    return [Question(*row) for row in zip(*columns, strict=True)]


def _examples_named(data: PuzzleDataset, arguments: argparse.Namespace) -> np.ndarray:
    """The examples of the puzzle of a name."""
    names = puzzle_names(data)
    owned = data.puzzle_identifiers
    if arguments.name not in names:
        raise InputError(
            f"--name {arguments.name}: no puzzle of {arguments.data} is called that; "
            f"the first of its split {arguments.split} is {names[owned[0]]}"
        )
    owners = np.flatnonzero(owned == names.index(arguments.name))
    ends = zip(data.puzzle_indices[owners], data.puzzle_indices[owners + 1], strict=True)
    examples = [np.arange(*pair) for pair in ends]
    if not examples:
        raise InputError(
            f"--name {arguments.name} has no examples in the split {arguments.split} of "
            f"{arguments.data}: name another with --split"
        )
    return np.concatenate(examples)


def bundled_model(suits: Callable[[Task], bool], source: str, texts: Sequence[str] = ()) -> str:
    """The name of the first bundled model whose task suits.

    Raises:
        InputError: there is none, by ``source``, what was to be solved; with the reason why the
            task whose puzzles are nearest in length cannot read the first of ``texts``.
    """
    tasks = {}
    for name, folder in bundled().items():
        tasks[name] = task_of(read_config(folder))
        if suits(tasks[name]):
            return name
    known = ", ".join(f"{name} ({task.name})" for name, task in tasks.items()) or "none"
    reason = "no bundled model takes it"
    if tasks and texts:
        cells = len("".join(texts[0].split()))
        nearest = min(tasks.values(), key=lambda task: abs(task.seq_len - cells))
        reason = refusal(nearest, texts[0]) or reason
    raise InputError(
        f"{source}: {reason}. Models to choose from: {known}, or yours with --checkpoint DIR"
    )


def refusal(task: Task, text: str) -> str | None:
    """Why ``text`` is no puzzle of this task, if it is none."""
    try:
        task.parse(text)
    except InputError as error:
        return str(error)
    return None


def check_sizes(
    config: ModelConfig, checkpoint: object, sizes: DatasetMetadata, data: object
) -> None:
    """Refuse tokens that the model does not read, and puzzles that it has no embedding of.

    ``checkpoint`` and ``data`` say for messages where the two are from.
    """
    for name in ("seq_len", "vocab_size", "num_puzzle_identifiers"):
        ours, theirs = getattr(config, name), getattr(sizes, name)
        if theirs != ours and (name != "num_puzzle_identifiers" or theirs > ours):
            raise InputError(
                f"{name} is {ours} in {checkpoint} but {theirs} in {data}: "
                "name a dataset like the one it was trained on, --data DIR"
            )
