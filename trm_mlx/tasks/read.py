"""Puzzles of any kind, or of one task, from text."""

from typing import NamedTuple

import numpy as np

from trm_mlx.errors import InputError
from trm_mlx.tasks.base import Task, WrongCells
from trm_mlx.tasks.puzzle_text import find_puzzles
from trm_mlx.tasks.registry import get


class PuzzleText(NamedTuple):
    """A puzzle of a text.

    place: where it stands, such as ``line 3``; text: as it is written there; task: the one whose
    puzzle it is; values: its cell values, uint8 ``[seq_len]``, unless error says why it is none.
    """

    place: str
    text: str
    task: Task | None
    values: np.ndarray | None
    error: InputError | None = None


def read_puzzles(text: str, task: Task | None = None) -> list[PuzzleText]:
    """Read the puzzles of a text, in their order; those that cannot be read have an error.

    Args:
        task: the task expected; by default the kind and size of each puzzle are detected. A task
            that is not of this package uses its own ``parse``.

    Raises:
        InputError: nothing in it looks like a puzzle.
    """
    if task is not None and getattr(task, "from_cells", None) is None:
        return _read_by_task(text, task)
    puzzles = []
    for found in find_puzzles(text, task and task.name):
        its_task, values, error = None, None, found.error
        try:
            if error is None:
                its_task = task or get(found.name)
                values = its_task.from_cells(found.cells)
        except InputError as problem:
            error = problem
        if error is not None and task is None:
            message = f"looks like {found.looks}; {error}"
            cells = isinstance(error, WrongCells)
            error = WrongCells(message, error.cells) if cells else InputError(message)
        puzzles.append(PuzzleText(found.place, found.text, its_task, values, error))
    return puzzles


def _read_by_task(text: str, task: Task) -> list[PuzzleText]:
    """Read one puzzle a line, if any line is one, or else the whole text as one."""
    lines = {n: line for n, line in enumerate(text.splitlines(), start=1) if line.strip()}
    found = [_parsed(f"line {number}", line, task) for number, line in lines.items()]
    if len(found) > 1 and any(puzzle.error is None for puzzle in found):
        return found
    return [_parsed(f"line {min(lines, default=1)}", text, task)]


def _parsed(place: str, text: str, task: Task) -> PuzzleText:
    try:
        return PuzzleText(place, text, task, task.parse(text))
    except InputError as error:
        return PuzzleText(place, text, task, None, error)
