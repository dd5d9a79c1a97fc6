"""A puzzle's solution as frames: what stood in every cell after every step, and what it was."""

from enum import IntEnum
from typing import NamedTuple

import numpy as np

from trm_mlx.solve.batcher import StepOutput
from trm_mlx.solve.scheduler import Solution, StepEvent
from trm_mlx.tasks.base import Task, has_rules


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
    if has_rules(task):
        right = bool(task.check(question, answer))
        return Verdict(right, f"rules {'satisfied' if right else 'broken'}")
    return None if label is None else matched(label, answer)


def matched(label: np.ndarray, answer: np.ndarray) -> Verdict:
    """Whether an answer is the label."""
    right = bool((label == answer).all())
    return Verdict(right, f"label {'matched' if right else 'missed'}")


def ending(steps: int, halted: bool, verdict: Verdict | None) -> str:
    """How a trajectory ended, in words."""
    words = f", {verdict.words}" if verdict else ""
    return f"{'halted' if halted else 'stopped'} at step {steps}{words}"


def recording_of(
    task: Task, question: np.ndarray, solution: Solution, verdict: Verdict | None = None
) -> Recording:
    """The film of a solution that has its ``thoughts``.

    Args:
        question: cell values ``[S]``.
        verdict: on the answer, see `judged`.
    """
    frames = [first_frame(question)]
    for thought in solution.thoughts:
        frames.append(next_frame(task, question, frames[-1], thought))
    return Recording(task, tuple(frames), solution.halted, verdict)


class FrameBuilder:
    """Makes the frames of one puzzle, its question as cell values, while it is being solved."""

    def __init__(self, task: Task, question: np.ndarray):
        self._task, self._question = task, question
        self._last: dict[int, Frame] = {}  # by trajectory: those of several may come in turns

    def next(self, glimpse: StepEvent) -> Frame:
        """The frame of a step that has just come."""
        before = self._last.get(glimpse.trajectory, first_frame(self._question))
        frame = next_frame(self._task, self._question, before, glimpse.thought)
        self._last[glimpse.trajectory] = frame
        return frame


def first_frame(question: np.ndarray) -> Frame:
    """The board before the first step."""
    marks = np.full(len(question), Mark.GIVEN)
    return Frame(0, question, marks, 0, np.zeros(len(question)), 0.0)


def next_frame(task: Task, question: np.ndarray, before: Frame, thought: StepOutput) -> Frame:
    """The board after the step that ended in ``thought``."""
    values = task.decode(thought.answer)
    return Frame(
        before.step + 1,
        values,
        _marks(task, question, before.values, values),
        int((values != before.values).sum()),
        thought.cell_confidence,
        thought.confidence,
    )


def _marks(task: Task, question: np.ndarray, before: np.ndarray, values: np.ndarray) -> np.ndarray:
    marks = np.where(values == question, Mark.GIVEN, Mark.KEPT)
    changed = values != before
    marks[changed & (before == question)] = Mark.NEW
    marks[changed & (before != question)] = Mark.CHANGED
    marks[task.conflicts(question, values) & (values != question)] = Mark.WRONG
    return marks
