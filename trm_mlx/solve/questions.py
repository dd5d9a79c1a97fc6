"""The questions of ``trm solve``: from text, tables and datasets; the bundled model for them."""

import itertools
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from trm_mlx.config import ModelConfig
from trm_mlx.data.dataset import PuzzleDataset, check_numbering, puzzle_names, saved_names, unnamed
from trm_mlx.data.tables import is_table, read_rows
from trm_mlx.data.text_files import decode, read_text
from trm_mlx.errors import InputError
from trm_mlx.models.checkpoint_files import bundled, find_checkpoint, read_config
from trm_mlx.tasks import task_of
from trm_mlx.tasks.base import Task
from trm_mlx.tasks.registry import Question, read_puzzles

_ROWS_OF_BOARD, _LARGEST_BOARD = 20, 2**20  # rows that show a table to be a text, and its bytes
FIRST = 100  # questions among which `bundled_model` looks for one that can be read


class Source(NamedTuple):
    """Where questions come from: a text, or a table.

    name: what messages call it; column: of the table, None for one of the known names; typed:
    whether the text may be the mistyped name of a file.
    """

    name: str
    text: str | None = None
    table: Path | None = None
    column: str | None = None
    typed: bool = False


def find_source(puzzle: str | None, file: str | None, column: str | None = None) -> Source:
    """Return the source that a command line names, read if it is text.

    Args:
        puzzle: a puzzle, the name of a file, or ``-`` for standard input.
        file: the name of a file, or ``-``.
        column: of the questions, if the file is a table.

    Raises:
        InputError: there is none, or it cannot be read.
    """
    if file is None and puzzle not in (None, "-"):
        path = Path(os.path.expandvars(puzzle)).expanduser()
        if puzzle.strip() and os.path.isdir(path):
            raise InputError(f"{puzzle} is a folder: name a file of puzzles, or --data DATASET")
        if not puzzle.strip() or not os.path.exists(path):
            return Source(f"the puzzle of {len(puzzle.strip())} characters", puzzle, typed=True)
        file = str(path)
    if file in (None, "-"):
        source = Source("standard input", _read_stdin(explicit=file or puzzle))
    elif column is not None or is_table(Path(file)):
        return Source(str(Path(file)), table=Path(file), column=column)
    else:
        source = Source(str(Path(file)), read_text(Path(file)))
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


def read_questions(source: Source, task: Task | None = None) -> Iterable[Question]:
    """Read the questions of a text or table, those of a table as they are asked for.

    Args:
        task: the one of the model; by default any.

    Raises:
        InputError: nothing in it looks like a puzzle.
    """
    if source.table is not None:
        return _of_table_or_text(source, task)
    if _is_arc(source.text):
        raise InputError(
            f"{source.name}: an ARC task is learnt from its examples first: trm adapt TASK.json"
        )
    try:
        found = read_puzzles(source.text, task)
        problem = found[0].error
    except InputError as error:
        found, problem = [], error
    if problem is not None and source.typed and _is_path(source.text):
        raise InputError(f"there is no file {source.text}: correct its name, or write a puzzle")
    if not found:
        raise problem
    alone = len(found) == 1 and found[0].place.endswith(" 1")
    place = "" if alone else " {}"
    return [q._replace(place=source.name + place.format(q.place)) for q in found]


def _is_arc(text: str) -> bool:
    """Whether a text is JSON of ARC tasks."""
    return bool(re.search(r'"train"\s*:', text) and re.search(r'"input"\s*:\s*\[\s*\[', text))


def _of_table_or_text(source: Source, task: Task | None) -> Iterable[Question]:
    """The questions of a table; or of a text whose heading, such as "Sudoku", looks like one."""
    rows = _of_table(source, task)
    first = list(itertools.islice(rows, _ROWS_OF_BOARD))
    if source.column is None and first and all(question.error for question in first):
        with suppress(InputError):
            if source.table.stat().st_size < _LARGEST_BOARD:
                found = read_puzzles(read_text(source.table), task)
                if not all(question.error for question in found):
                    return [q._replace(place=f"{source.name} {q.place}") for q in found]
    return itertools.chain(first, rows)


def _of_table(source: Source, task: Task | None) -> Iterator[Question]:
    """The questions of a table; a row that holds none, or several, has an error."""
    for row in read_rows(source.table, source.column):
        try:
            if row.problem:
                raise InputError(row.problem)
            question, *others = read_puzzles(row.question, task)
            if others:
                raise InputError(f"{len(others) + 1} puzzles in one row: write one a row")
        except InputError as error:
            question = Question("", "", None, None, error)
        yield question._replace(place=f"{source.table} line {row.line}", text=row.question)


def _is_path(text: str) -> bool:
    """Whether a text that is no puzzle was meant as the name of a file."""
    named = re.fullmatch(r"\S*[/\\]\S*|\S*\.[A-Za-z]\w+|~\S*", text)
    return bool(named) and "..." not in text and any(map(str.isalpha, text))


def bundled_solvers() -> dict[str, ModelConfig]:
    """The bundled models that solve a puzzle as it comes; those of ARC are adapted to it first."""
    return {name: config for name, config in _bundled() if task_of(config, rules=False).has_rules}


def _bundled() -> Iterator[tuple[str, ModelConfig]]:
    """The bundled models, each read when it is asked for."""
    for name, folder in bundled().items():
        yield name, read_config(folder)


def bundled_model(source: Source) -> str:
    """Return the name of the bundled model for questions, or for the first that can be read.

    Raises:
        InputError: none of them can, by the reason of the first; or no bundled model solves it.
    """
    questions = list(itertools.islice(read_questions(source), FIRST))
    if not questions:
        raise InputError(f"{source.name} has no puzzles after its header")
    readable = [question for question in questions if question.values is not None]
    if not readable:
        raise InputError(f"{questions[0].place}: {questions[0].error}")
    names, configs = {question.task.name for question in readable}, {}
    for name, config in _bundled():
        if {config.task} == names:
            return name
        configs[name] = config
    tasks = {name: task_of(config, rules=False) for name, config in configs.items()}
    tasks = {name: task for name, task in tasks.items() if task.has_rules}
    for wanted in (readable, readable[:1]):
        for name, task in tasks.items():
            if all(task.reads(question.task) for question in wanted):
                return name
    known = ", ".join(f"{name} ({task.name})" for name, task in tasks.items()) or "none"
    raise InputError(
        f"{readable[0].place}: no bundled model solves {readable[0].task.name}. Models to choose "
        f"from: {known}, or yours with --checkpoint DIR"
    )


# Datasets


def bundled_model_of(data: PuzzleDataset, folder: str) -> str:
    """Return the name of the bundled model with the sizes of a dataset in a folder.

    Raises:
        InputError: there is none.
    """
    sizes = data.metadata
    for name, config in _bundled():
        if (config.vocab_size, config.seq_len) == (sizes.vocab_size, sizes.seq_len):
            return name
    raise InputError(
        f"{folder}: no bundled model takes it. Models to choose from: "
        f"{', '.join(bundled()) or 'none'}, or yours with --checkpoint DIR"
    )


def questions_of_dataset(
    task: Task, data: PuzzleDataset, folder: str, name: str | None, indices: Sequence[int]
) -> list[Question]:
    """Read some examples of a dataset, or of the puzzle in it that is called ``name``.

    Args:
        folder: what messages call the dataset.
    """
    examples, place = np.arange(len(data)), folder
    if name is not None:
        examples, place = _examples_named(data, folder, name), name
    indices = np.array(indices)
    for index in indices[(indices < 0) | (indices >= len(examples))]:
        raise InputError(f"--index {index}: {place} has examples 0 to {len(examples) - 1}")
    chosen = examples[indices]
    batch = data.batch(chosen, data.owners(chosen), len(chosen))
    columns = (
        task.decode(batch["inputs"]),
        batch["puzzle_identifiers"].tolist(),
        task.decode(batch["labels"]),
    )
    return [
        Question(f"{place} example {index}", task.line(values), task, values, None, *known)
        for index, values, *known in zip(indices, *columns, strict=True)
    ]


def _examples_named(data: PuzzleDataset, folder: str, name: str) -> np.ndarray:
    """The examples of the puzzle of a name."""
    names = puzzle_names(data)
    owned = data.puzzle_identifiers
    if name not in names:
        raise InputError(
            f"--name {name}: no puzzle of {folder} is called that; "
            f"the first of its split {data.split} is {names[owned[0]]}"
        )
    owners = np.flatnonzero(owned == names.index(name))
    ends = zip(data.puzzle_indices[owners], data.puzzle_indices[owners + 1], strict=True)
    examples = [np.arange(*pair) for pair in ends]
    if not examples:
        raise InputError(
            f"--name {name} has no examples in the split {data.split} of {folder}: "
            "name another with --split"
        )
    return np.concatenate(examples)


def check_sizes(config: ModelConfig, checkpoint: str, data: PuzzleDataset, folder: str) -> None:
    """Refuse tokens that the model does not read, and puzzles that it has no embedding of.

    Where nothing says which puzzles it knows, standard error gets a warning.

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
    names = saved_names(checkpoint)
    check_numbering(names, checkpoint, data, remedy)
    warning = unnamed(names, checkpoint, data) if config.puzzle_dims else None
    if warning:
        print(f"warning: {warning}", file=sys.stderr)
