"""Which trajectory of which puzzle is worked on next, and when a puzzle is done.

New puzzles come first, each with its plain trajectory; one whose selector is not satisfied gets
the next. Rows that would be idle, once no puzzle is new, run further trajectories of the puzzles
still open ahead of time. That changes no result: attempts count in the order of their trajectories,
and those after the deciding one are dropped.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from trm_mlx.solve.desk import Finished, Job, Thought
from trm_mlx.solve.search import SELECTORS, Attempt, Search
from trm_mlx.tasks.base import Symmetry, Task


class Solution(NamedTuple):
    """The answer to one puzzle.

    answer: tokens ``[S]``; steps, confidence, halted: of the trajectory that gave it, the
    confidence being its last halting probability; trajectories, evaluations: how many trajectories
    the choice rests on, and their supervision steps in all; passes: whether the answer obeys the
    rules of the task, None where no rule check took part in the choice; thoughts: every step of
    the chosen trajectory, where the solver keeps intermediates; trajectory: its number, from 0.
    """

    answer: np.ndarray
    steps: int
    confidence: float
    halted: bool
    trajectories: int
    evaluations: int
    passes: bool | None
    thoughts: tuple[Thought, ...]
    trajectory: int = 0


class Glimpse(NamedTuple):
    """A supervision step of one puzzle, as it comes.

    puzzle: its number, from 0; trajectory: from 0; step: of this trajectory, from 1.
    """

    puzzle: int
    trajectory: int
    step: int
    thought: Thought


@dataclass(eq=False)
class _Case:
    """A puzzle on its way."""

    number: int
    inputs: np.ndarray
    identifier: int
    launched: int = 0
    finished: dict[int, Finished] = field(default_factory=dict)  # not yet counted, by trajectory
    attempts: list[Attempt] = field(default_factory=list)
    evaluations: int = 0
    solution: Solution | None = None


class _Tag(NamedTuple):
    case: _Case
    trajectory: int
    symmetry: Symmetry | None


class Schedule:
    """The state of one `Solver.solve`.

    Args:
        puzzles: pairs of tokens ``[S]`` and identifier.
        window: puzzles to have on the way at most, so that one that takes long, which holds back
            the solutions after it, cannot fill the memory.
    """

    def __init__(
        self, puzzles: Iterator, search: Search, task: Task | None, max_steps: int, window: int
    ):
        self._puzzles, self._search, self._task = puzzles, search, task
        self._max_steps, self._window = max_steps, window
        self._read = 0
        self._order: deque[_Case] = deque()  # not yet handed out
        self._waiting: deque[_Case] = deque()  # need another trajectory, and none is under way
        self._open: OrderedDict[int, _Case] = OrderedDict()  # may get another trajectory

    def jobs(self) -> Iterator[Job | None]:
        """What to work on next, for `Stream.run`; ends never, None where there is nothing."""
        while True:
            case = self._next_case()
            yield None if case is None else self._launch(case)

    def record(self, finished: Finished) -> None:
        """Take in what came of a job."""
        case, trajectory, _ = finished.job.tag
        if case.solution is not None:
            return
        case.finished[trajectory] = finished
        while case.solution is None and len(case.attempts) in case.finished:
            self._count(case, case.finished.pop(len(case.attempts)))
        if case.solution is None and len(case.attempts) == case.launched:
            self._waiting.append(case)

    def show(self, watch: Callable[[Glimpse], None], job: Job, step: int, thought: Thought) -> None:
        """Let ``watch`` see a thought, unless its puzzle is solved already."""
        case, trajectory, symmetry = job.tag
        if case.solution is None:
            watch(Glimpse(case.number, trajectory, step, self._upright(symmetry, thought)))

    def solutions(self) -> Iterator[Solution]:
        """What is known now, in the order of the puzzles."""
        while self._order and self._order[0].solution is not None:
            yield self._order.popleft().solution

    def _next_case(self) -> _Case | None:
        while self._waiting:
            case = self._waiting.popleft()
            if case.launched == len(case.attempts):
                return case
        if len(self._order) < self._window and (puzzle := next(self._puzzles, None)) is not None:
            case = _Case(self._read, *puzzle)
            self._read += 1
            self._order.append(case)
            return case
        if self._open:
            _, case = self._open.popitem(last=False)
            return case
        return None

    def _launch(self, case: _Case) -> Job:
        search, trajectory = self._search, case.launched
        case.launched += 1
        self._open.pop(case.number, None)
        if case.launched < search.trajectories:
            self._open[case.number] = case  # behind all others
        limit = search.steps_allowed(case.attempts, self._max_steps)
        if trajectory == 0:
            return Job(case.inputs, case.identifier, limit, tag=_Tag(case, trajectory, None))
        random = np.random.default_rng((search.seed, case.number, trajectory))
        key, inputs, symmetry = random.integers(2**32, size=2, dtype=np.uint32), case.inputs, None
        if search.symmetries:
            symmetry = self._task.sample_symmetry(random, 1)
            board = self._task.decode(inputs)[None]
            inputs = self._task.encode(symmetry.apply(board))[0]
        tag = _Tag(case, trajectory, symmetry)
        return Job(inputs, case.identifier, limit, perturbed=True, key=key, tag=tag)

    def _count(self, case: _Case, finished: Finished) -> None:
        """Count the next attempt of a puzzle, and close the puzzle if its selector is satisfied."""
        search, attempts = self._search, case.attempts
        case.evaluations += min(finished.steps, search.steps_allowed(attempts, self._max_steps))
        attempts.append(self._attempt(case, finished))
        if search.settled(attempts, self._max_steps):
            place = SELECTORS[search.select].choose(attempts)
            chosen = attempts[place]
            case.solution = Solution(
                chosen.answer,
                chosen.steps,
                chosen.confidence,
                chosen.halted,
                len(attempts),
                case.evaluations,
                chosen.passes,
                chosen.thoughts,
                place,
            )
            case.attempts = []
            self._open.pop(case.number, None)

    def _attempt(self, case: _Case, finished: Finished) -> Attempt:
        symmetry = finished.job.tag.symmetry
        answer, thoughts = finished.answer, finished.thoughts
        if symmetry is not None:
            answer = self._undo(symmetry, answer)
            thoughts = tuple(self._upright(symmetry, thought) for thought in thoughts)
        passes = None
        if self._search.select == "rule":
            values = self._task.decode(np.stack([case.inputs, answer]))
            passes = bool(self._task.check(*values))
        elif self._search.select == "mode" and self._task is not None:
            # Votes for different right answers are votes for the same.
            boards = self._task.decode(np.stack([case.inputs, answer]))[:, None]
            answer = self._task.encode(self._task.relabel(*boards))[0].astype(np.int32)
        return Attempt(
            answer,
            finished.steps,
            finished.confidence,
            finished.halted,
            finished.residual,
            passes,
            thoughts,
        )

    def _upright(self, symmetry: Symmetry | None, thought: Thought) -> Thought:
        """The thought about the puzzle itself, from that about its image."""
        if symmetry is None:
            return thought
        board = self._task.decode(thought.answer)[None]
        return thought._replace(
            answer=self._undo(symmetry, thought.answer),
            cell_confidence=symmetry.inverse().move(thought.cell_confidence[None], board)[0],
        )

    def _undo(self, symmetry: Symmetry, answer: np.ndarray) -> np.ndarray:
        board = self._task.decode(answer)[None]
        return self._task.encode(symmetry.inverse().apply(board))[0].astype(np.int32)
