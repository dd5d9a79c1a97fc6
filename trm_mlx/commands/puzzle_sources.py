"""Where the puzzles of ``trm solve`` come from: an argument, a file, stdin, or a dataset."""

import argparse
import itertools
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from trm_mlx.config import ModelConfig
from trm_mlx.config_io import path_text
from trm_mlx.data.dataset import PuzzleDataset, check_numbering, puzzle_names, saved_names
from trm_mlx.data.reader import split_asked
from trm_mlx.data.tables import decode, is_table, read_text
from trm_mlx.errors import InputError
from trm_mlx.models.checkpoint_files import bundled, find_checkpoint, read_config
from trm_mlx.solve.questions import Question, model_for, questions_of_table, questions_of_text
from trm_mlx.tasks.base import Task


class Source(NamedTuple):
    """Where the puzzles come from: text, a table, or neither for a dataset.

    name: what messages call it.
    """

    name: str
    text: str | None = None
    table: Path | None = None


def add_source_arguments(parser: argparse.ArgumentParser) -> None:
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


def find_source(arguments: argparse.Namespace) -> Source:
    """Return the one source that is named, read if it is text.

    Raises:
        InputError: there is none, or several, or it cannot be read.
    """
    if sum(given is not None for given in (arguments.puzzle, arguments.file, arguments.data)) > 1:
        raise InputError("name one source: a puzzle, --file or --data")
    if arguments.name is not None and arguments.data is None:
        raise InputError("--name is that of a puzzle of a dataset: add --data DIR")
    if arguments.data is not None:
        arguments.split = split_asked(arguments.data, arguments.split)
        return Source(arguments.data)
    puzzle, file = arguments.puzzle, arguments.file
    if file is None and puzzle not in (None, "-"):
        path = Path(os.path.expandvars(puzzle)).expanduser()
        if puzzle.strip() and os.path.isdir(path):
            raise InputError(f"{puzzle} is a folder: name a file of puzzles, or --data DATASET")
        if not puzzle.strip() or not os.path.exists(path):
            return Source(f"the puzzle of {len(puzzle.strip())} characters", puzzle)
        file = str(path)
    if file in (None, "-"):
        source = Source("standard input", _read_stdin(explicit=file or puzzle))
    else:
        path = Path(file)
        if arguments.question_column is not None or is_table(path):
            return Source(str(path), table=path)
        source = Source(str(path), read_text(path))
    if not source.text.strip():
        raise InputError(f"{source.name} is empty: write a puzzle")
    return source


def _read_stdin(explicit: str | None) -> str:
    if sys.stdin is None or (explicit is None and sys.stdin.isatty()):
        raise InputError("no puzzle: write one after trm solve, or name --file or --data")
    try:
        if hasattr(sys.stdin, "buffer"):
            return decode(sys.stdin.buffer.read(), "standard input")
        return sys.stdin.read()
    except OSError as error:
        raise InputError(f"cannot read standard input: {error.strerror}") from error


def choose_model(arguments: argparse.Namespace, source: Source) -> str:
    """Return the name of the bundled model for what is to be solved.

    Raises:
        InputError: there is none, or nothing to solve.
    """
    if arguments.data is None:
        return model_for(itertools.islice(read_questions(source, arguments), 100), source.name)
    sizes = PuzzleDataset([arguments.data], arguments.split).metadata
    known = {name: read_config(folder) for name, folder in bundled().items()}
    for name, config in known.items():
        if (config.vocab_size, config.seq_len) == (sizes.vocab_size, sizes.seq_len):
            return name
    raise InputError(
        f"{source.name}: no bundled model takes it. Models to choose from: "
        f"{', '.join(known) or 'none'}, or yours with --checkpoint DIR"
    )


def read_questions(
    source: Source, arguments: argparse.Namespace, task: Task | None = None
) -> Iterable[Question]:
    """Read the puzzles of a text or table, those of a table as they are asked for.

    Args:
        task: the one of the model; by default any.
    """
    if source.table is not None:
        return questions_of_table(source.table, task, arguments.question_column)
    try:
        questions = questions_of_text(source.text, source.name, task)
    except InputError as error:
        questions, problem = [], error
    else:
        problem = questions[0].error
    if problem is not None and source.text == arguments.puzzle and _is_path(source.text):
        raise InputError(f"there is no file {source.text}: correct its name, or write a puzzle")
    if not questions:
        raise problem
    return questions


def _is_path(text: str) -> bool:
    """Whether a text that is no puzzle was meant as the name of a file."""
    named = re.fullmatch(r"\S*[/\\]\S*|\S*\.[A-Za-z]\w+|~\S*", text)
    return bool(named) and "..." not in text and any(map(str.isalpha, text))


def questions_of_dataset(
    task: Task, config: ModelConfig, arguments: argparse.Namespace
) -> list[Question]:
    """Read the puzzles of --data that the options name."""
    data = PuzzleDataset([arguments.data], arguments.split)
    check_sizes(config, arguments.checkpoint, data, arguments.data)
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
    return [
        Question(f"{place} example {index}", task.line(values), values, None, identifier, label)
        for index, values, identifier, label in zip(indices, *columns, strict=True)
    ]


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


def check_sizes(config: ModelConfig, checkpoint: str, data: PuzzleDataset, folder: str) -> None:
    """Refuse tokens that the model does not read, and puzzles that it has no embedding of.

    Args:
        config, checkpoint: of the model.
        folder: what messages call the data.
    """
    for name in ("seq_len", "vocab_size", "num_puzzle_identifiers"):
        ours, theirs = getattr(config, name), getattr(data.metadata, name)
        if theirs != ours and (name != "num_puzzle_identifiers" or theirs > ours):
            raise InputError(
                f"{name} is {ours} in {checkpoint} but {theirs} in {folder}: "
                "name a dataset like the one it was trained on, --data DIR"
            )
    checkpoint = find_checkpoint(checkpoint)
    remedy = (
        "name the dataset it was trained on, --data DIR, or train on this one with "
        f"load_checkpoint={checkpoint}, which keeps the puzzles it knows"
    )
    check_numbering(saved_names(checkpoint), checkpoint, data, remedy)
