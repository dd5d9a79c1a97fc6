"""Questions to solve, from text and from tables, and the bundled model that solves their kind."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from trm_mlx.data.tables import read_rows
from trm_mlx.errors import InputError
from trm_mlx.models.checkpoint_files import bundled, read_config
from trm_mlx.tasks import task_of
from trm_mlx.tasks.base import Task
from trm_mlx.tasks.registry import read_puzzles


class Question(NamedTuple):
    """A puzzle to solve.

    place: where it stands, for messages; text: as it is written; values: cell values ``[S]``,
    unless error says why it is no puzzle; identifier: of the puzzle embedding; label: the cell
    values of its answer, where a dataset has one; task: the one whose puzzle it is, where read as
    text.
    """

    place: str
    text: str
    values: np.ndarray | None
    error: InputError | None = None
    identifier: int = 0
    label: np.ndarray | None = None
    task: Task | None = None


def questions_of_text(text: str, name: str, task: Task | None = None) -> list[Question]:
    """Read the questions of a text that messages call ``name``.

    Args:
        task: the one of the model; by default any.

    Raises:
        InputError: nothing in it looks like a puzzle.
    """
    found = read_puzzles(text, task)
    places = [f"{name} {puzzle.place}" for puzzle in found]
    if len(found) == 1 and found[0].place.endswith(" 1"):
        places = [name]
    return [
        Question(place, puzzle.text, puzzle.values, puzzle.error, task=puzzle.task)
        for place, puzzle in zip(places, found, strict=True)
    ]


def questions_of_table(
    path: Path, task: Task | None = None, column: str | None = None
) -> Iterator[Question]:
    """Read the questions of a table, as they are asked for; a row that holds none has an error.

    Args:
        column: the name of the column of questions; by default one of the known names.

    Raises:
        InputError: it is no table.
    """
    for row in read_rows(path, column):
        place, error, values, kind = f"{path} line {row.line}", None, None, None
        if row.problem:
            error = InputError(row.problem)
        else:
            try:
                found = read_puzzles(row.question, task)
                values, error, kind = found[0].values, found[0].error, found[0].task
                if len(found) > 1:
                    raise InputError(f"{len(found)} puzzles in one row: write one a row")
            except InputError as problem:
                values, error = None, problem
        yield Question(place, row.question, values, error, task=kind)


def model_for(questions: Iterable[Question], name: str) -> str:
    """Return the name of the bundled model for the first of some questions that is a puzzle.

    Raises:
        InputError: none of them is a puzzle, by the reason why the first is none; or no bundled
            model solves its kind.
    """
    known, first = {}, None
    for question in questions:
        first = first or question
        if question.values is None:
            continue
        for model, folder in bundled().items():
            known[model] = task = task_of(read_config(folder))
            if task.reads(question.task):
                return model
        kinds = ", ".join(f"{model} ({task.name})" for model, task in known.items()) or "none"
        raise InputError(
            f"{question.place}: no bundled model solves {question.task.name}. Models to choose "
            f"from: {kinds}, or yours with --checkpoint DIR"
        )
    if first is None:
        raise InputError(f"{name} has no puzzles after its header")
    raise InputError(f"{first.place}: {first.error}")
