"""The solution of a puzzle as frames: the value and the mark of every cell after every step.

The words here are those of the terminal, the pictures and the page alike.
"""

import math
from enum import IntEnum
from typing import NamedTuple

import numpy as np

from trm_mlx.solve.scheduler import Solution
from trm_mlx.solve.search import StepOutput
from trm_mlx.tasks.base import Task


class Mark(IntEnum):
    """The state of a cell in a frame; of several, the highest counts."""

    GIVEN = 0  # as in the question, a blank too
    KEPT = 1  # filled in earlier
    NEW = 2  # filled in by this step
    CHANGED = 3  # overwritten by this step
    WRONG = 4  # breaks a rule


class Frame(NamedTuple):
    """A board after a supervision step; step 0 is the question.

    values: cell values uint8 ``[S]``; marks: `Mark` ``[S]``; changes: cells that the step changed;
    cells: confidence of each cell ``[S]``, 1 being that of the surest cell that the question gives;
    halting: the probability of being right.
    """

    step: int
    values: np.ndarray
    marks: np.ndarray
    changes: int
    cells: np.ndarray
    halting: float


class Verdict(NamedTuple):
    """Whether an answer is right, and how that is known: by the rules of its task or, where it has
    none, by the label of a dataset."""

    right: bool
    words: str  # "rules satisfied"


class Recording(NamedTuple):
    """The frames of one puzzle, the first of them the question, and how it ended."""

    task: Task
    frames: tuple[Frame, ...]
    halted: bool
    verdict: Verdict | None = None

    @property
    def ending(self) -> str:
        """``halted at step 4, rules satisfied``."""
        return ending(self.frames[-1].step, self.halted, self.verdict)


def judged(
    task: Task, question: np.ndarray, answer: np.ndarray, label: np.ndarray | None = None
) -> Verdict | None:
    """The verdict on an answer, all as cell values ``[S]``; None where nothing tells."""
    if task.has_rules:
        right = bool(task.check(question, answer))
        return Verdict(right, f"rules {'satisfied' if right else 'broken'}")
    return None if label is None else matched(label, answer)


def matched(label: np.ndarray, answer: np.ndarray) -> Verdict:
    """Whether an answer is the label."""
    right = bool((label == answer).all())
    return Verdict(right, f"{'' if right else 'not '}the dataset's answer")


def percent(probability: float) -> str:
    """``99.3 %``, rounded down: 100.0 % is certainty, and a threshold shows as reached if it is."""
    return f"{math.floor(1000 * probability + 1e-6) / 10:.1f} %"


def ending(steps: int, halted: bool, verdict: Verdict | None) -> str:
    """How a trajectory ended, in words."""
    words = f", {verdict.words}" if verdict else ""
    return f"{'halted' if halted else 'stopped'} at step {steps}{words}"


class FrameBuilder:
    """Makes the frames of one puzzle, ``question`` in cell values ``[S]``, step by step."""

    def __init__(self, task: Task, question: np.ndarray):
        self._task, self._question = task, question
        self._last: dict[int, Frame] = {}  # by trajectory: those of several may come in turns

    def next(self, output: StepOutput, trajectory: int = 0) -> Frame:
        """The frame of the next step of a trajectory."""
        before = self._last.get(trajectory) or first_frame(self._question)
        values = self._task.decode(output.answer)
        self._last[trajectory] = frame = Frame(
            before.step + 1,
            values,
            _marks(self._task, self._question, before.values, values),
            int((values != before.values).sum()),
            _relative(output.cell_confidence, values == self._question),
            output.confidence,
        )
        return frame


def recording_of(
    task: Task, question: np.ndarray, solution: Solution, verdict: Verdict | None = None
) -> Recording:
    """The recording of a solution that has its ``outputs``.

    Args:
        question: cell values ``[S]``.
        verdict: on the answer, see `judged`.
    """
    builder = FrameBuilder(task, question)
    frames = (first_frame(question), *(builder.next(output) for output in solution.outputs))
    return Recording(task, frames, solution.halted, verdict)


def first_frame(question: np.ndarray) -> Frame:
    """The board before the first step."""
    marks = np.full(len(question), Mark.GIVEN)
    return Frame(0, question, marks, 0, np.zeros(len(question)), 0.0)


def _relative(confidence: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Measure confidence ``[S]`` by that in the ``given`` cells, where nothing is in doubt.

    A model trained on smoothed labels never says more than 0.82, say, which would read as doubt.
    """
    most = confidence.max(where=given, initial=0.0)
    return np.minimum(confidence / most, 1) if most else confidence


def _marks(task: Task, question: np.ndarray, before: np.ndarray, values: np.ndarray) -> np.ndarray:
    marks = np.where(values == question, Mark.GIVEN, Mark.KEPT)
    changed = values != before
    marks[changed & (before == question)] = Mark.NEW
    marks[changed & (before != question)] = Mark.CHANGED
    marks[task.conflicts(question, values) & (values != question)] = Mark.WRONG
    return marks
