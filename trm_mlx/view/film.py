"""A puzzle's solution as frames: what stood in every cell after every step, and what it was."""

from enum import IntEnum
from typing import NamedTuple

import numpy as np

from trm_mlx.solve.schedule import Solution
from trm_mlx.tasks.base import Task


class Mark(IntEnum):
    """What a cell is in a frame; of several, the highest counts."""

    GIVEN = 0  # as in the question, a blank too
    KEPT = 1  # filled in earlier
    NEW = 2  # filled in by this step
    CHANGED = 3  # overwritten by this step
    WRONG = 4  # breaks a rule


class Frame(NamedTuple):
    """A board after a supervision step; step 0 is the question.

    values: cell values uint8 ``[S]``; marks: `Mark` ``[S]``; changes: cells that the step changed;
    cells: confidence of each cell ``[S]``; halting: the probability of being right.
    """

    step: int
    values: np.ndarray
    marks: np.ndarray
    changes: int
    cells: np.ndarray
    halting: float


class Film(NamedTuple):
    """The frames of one puzzle, the first of them the question, and how it ended."""

    task: Task
    frames: tuple[Frame, ...]
    halted: bool
    solved: bool | None  # None where no rule tells

    @property
    def ending(self) -> str:
        """``halted at step 4, rules satisfied``."""
        how = "halted" if self.halted else "stopped"
        rules = {True: ", rules satisfied", False: ", rules broken", None: ""}[self.solved]
        return f"{how} at step {self.frames[-1].step}{rules}"


def film_of(task: Task, question: np.ndarray, solution: Solution, solved: bool | None) -> Film:
    """The film of a solution that has its ``thoughts``.

    Args:
        question: cell values ``[S]``.
        solved: whether the answer obeys the rules, None where no rule tells.
    """
    blank = np.zeros(len(question))
    frames = [Frame(0, question, np.full(len(question), Mark.GIVEN), 0, blank, 0.0)]
    for step, thought in enumerate(solution.thoughts, start=1):
        before, values = frames[-1].values, task.decode(thought.answer)
        marks = _marks(task, question, before, values)
        changes = int((values != before).sum())
        frames.append(
            Frame(step, values, marks, changes, thought.cell_confidence, thought.confidence)
        )
    return Film(task, tuple(frames), solution.halted, solved)


def _marks(task: Task, question: np.ndarray, before: np.ndarray, values: np.ndarray) -> np.ndarray:
    marks = np.where(values == question, Mark.GIVEN, Mark.KEPT)
    changed = values != before
    marks[changed & (before == question)] = Mark.NEW
    marks[changed & (before != question)] = Mark.CHANGED
    marks[task.conflicts(question, values) & (values != question)] = Mark.WRONG
    return marks
