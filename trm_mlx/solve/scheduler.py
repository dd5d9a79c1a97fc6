"""Which trajectory of which puzzle runs next, and when a puzzle is answered.

New puzzles come first, each with its plain trajectory; one whose selector is not satisfied gets
the next. Rows that would be idle, once no puzzle is new, run further trajectories of the unanswered
puzzles ahead of time. That changes no result: trajectories count in their order, and those after
the deciding one are dropped.
"""

import dataclasses
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from trm_mlx.solve.search import SELECTORS, SearchConfig, StepOutput, Trajectory
from trm_mlx.tasks.base import Symmetry, Task

NO_KEY = np.zeros(2, np.uint32)


@dataclass(frozen=True, kw_only=True, eq=False)
class Solution(Trajectory):
    """The chosen trajectory of a puzzle, every field of it, and the cost of the choice.

    trajectory: its number, from 0; trajectories: how many the choice rests on; evaluations: their
    supervision steps in all.
    """

    trajectory: int = 0
    trajectories: int = 1
    evaluations: int


class StepEvent(NamedTuple):
    """A supervision step of one puzzle, for ``on_step``.

    puzzle: its number, from 0; trajectory: from 0; step: of this trajectory, from 1.
    """

    puzzle: int
    trajectory: int
    step: int
    output: StepOutput


@dataclass(eq=False)
class _PuzzleState:
    """A puzzle that has been read."""

    number: int
    inputs: np.ndarray
    identifier: int
    launched: int = 0  # trajectories
    early: dict[int, tuple["Job", Trajectory]] = field(default_factory=dict)  # not yet counted
    counted: list[Trajectory] = field(default_factory=list)
    evaluations: int = 0
    solution: Solution | None = None


class Job(NamedTuple):
    """One trajectory to run."""

    puzzle: _PuzzleState
    trajectory: int
    inputs: np.ndarray  # tokens [S]
    limit: int  # supervision steps at most
    symmetry: Symmetry | None = None  # that ``inputs`` is an image by
    perturbed: bool = False
    key: np.ndarray = NO_KEY  # uint32 [2], the randomness of the job

    @property
    def needed(self) -> bool:
        """Whether its puzzle is unanswered."""
        return self.puzzle.solution is None


class Scheduler:
    """The puzzles of one `Solver.solve`.

    Args:
        puzzles: pairs of tokens ``[S]`` and identifier.
        window: puzzles held at most, so that one that takes long, which holds back the solutions
            after it, cannot fill the memory.
        on_step: called with every step of an unanswered puzzle.
    """

    def __init__(
        self,
        puzzles: Iterator,
        search: SearchConfig,
        task: Task | None,
        max_steps: int,
        window: int,
        on_step: Callable[[StepEvent], None] | None = None,
    ):
        self._puzzles, self._search, self._task = puzzles, search, task
        self._max_steps, self._window, self._on_step = max_steps, window, on_step
        self.unanswered = 0  # puzzles read
        self.all_read = False
        self._read = 0
        self._order: deque[_PuzzleState] = deque()  # not yet handed out
        self._waiting: deque[_PuzzleState] = deque()  # need another trajectory, none is running
        self._open: OrderedDict[int, _PuzzleState] = OrderedDict()  # may get another trajectory

    def next_job(self) -> Job | None:
        """What to run next; None where nothing is to be done before further results."""
        puzzle = self._next_puzzle()
        return None if puzzle is None else self._launch(puzzle)

    def record(self, job: Job, trajectory: Trajectory) -> None:
        """Take the result of a job, whose answer and outputs are those of the image."""
        puzzle = job.puzzle
        if puzzle.solution is not None:
            return
        puzzle.early[job.trajectory] = job, trajectory
        while puzzle.solution is None and len(puzzle.counted) in puzzle.early:
            self._count(*puzzle.early.pop(len(puzzle.counted)))
        if puzzle.solution is None and len(puzzle.counted) == puzzle.launched:
            self._waiting.append(puzzle)

    def emit_step(self, job: Job, step: int, output: StepOutput) -> None:
        """Call ``on_step`` for a step of a job, unless its puzzle is answered."""
        if self._on_step is not None and job.needed:
            output = self._undo_symmetry(job, output)
            self._on_step(StepEvent(job.puzzle.number, job.trajectory, step, output))

    def solutions(self) -> Iterator[Solution]:
        """The solutions known so far, in the order of the puzzles."""
        while self._order and self._order[0].solution is not None:
            yield self._order.popleft().solution

    def _next_puzzle(self) -> _PuzzleState | None:
        while self._waiting:
            puzzle = self._waiting.popleft()
            if puzzle.launched == len(puzzle.counted):
                return puzzle
        if len(self._order) < self._window:
            tokens = next(self._puzzles, None)
            if tokens is not None:
                puzzle = _PuzzleState(self._read, *tokens)
                self._read += 1
                self.unanswered += 1
                self._order.append(puzzle)
                return puzzle
            self.all_read = True
        return self._open.popitem(last=False)[1] if self._open else None

    def _launch(self, puzzle: _PuzzleState) -> Job:
        search, number, inputs = self._search, puzzle.launched, puzzle.inputs
        puzzle.launched += 1
        self._open.pop(puzzle.number, None)
        if puzzle.launched < search.trajectories:
            self._open[puzzle.number] = puzzle  # behind all others
        limit = search.steps_allowed(puzzle.counted, self._max_steps)
        if number == 0:
            return Job(puzzle, number, inputs, limit)
        random = np.random.default_rng((search.seed, puzzle.number, number))
        key, symmetry = random.integers(2**32, size=2, dtype=np.uint32), None
        if search.symmetries:
            symmetry = self._task.sample_symmetry(random, 1)
            board = self._task.decode(inputs)[None]
            inputs = self._task.encode(symmetry.apply(board))[0]
        return Job(puzzle, number, inputs, limit, symmetry, perturbed=True, key=key)

    def _judge(self, job: Job, trajectory: Trajectory) -> Trajectory:
        """A trajectory on the puzzle itself, and whether it obeys the rules if a selector asks."""
        answer = self._undo_answer(job, trajectory.answer)
        outputs = tuple(self._undo_symmetry(job, output) for output in trajectory.outputs)
        passes = None
        if self._search.select == "rule":
            values = self._task.decode(np.stack([job.puzzle.inputs, answer]))
            passes = bool(self._task.check(*values))
        elif self._search.select == "mode" and self._task is not None:
            # Votes for different right answers are votes for the same.
            boards = self._task.decode(np.stack([job.puzzle.inputs, answer]))[:, None]
            answer = self._task.encode(self._task.relabel(*boards))[0].astype(np.int32)
        return dataclasses.replace(trajectory, answer=answer, passes=passes, outputs=outputs)

    def _count(self, job: Job, trajectory: Trajectory) -> None:
        """Count the next trajectory, and answer its puzzle if the selector is satisfied."""
        search, puzzle, counted = self._search, job.puzzle, job.puzzle.counted
        puzzle.evaluations += min(trajectory.steps, search.steps_allowed(counted, self._max_steps))
        counted.append(self._judge(job, trajectory))
        if search.settled(counted, self._max_steps):
            chosen = SELECTORS[search.select].choose(counted)
            puzzle.solution = Solution(
                **vars(counted[chosen]),
                trajectory=chosen,
                trajectories=len(counted),
                evaluations=puzzle.evaluations,
            )
            self.unanswered -= 1
            puzzle.counted, puzzle.early = [], {}
            self._open.pop(puzzle.number, None)

    def _undo_symmetry(self, job: Job, output: StepOutput) -> StepOutput:
        answer, cells = self._undo_answer(job, output.answer), output.cell_confidence
        if job.symmetry is not None:
            board = self._task.decode(self._on_board(job, output.answer))[None]
            cells = job.symmetry.inverse().move(cells[None], board)[0]
        return output._replace(answer=answer, cell_confidence=cells)

    def _undo_answer(self, job: Job, answer: np.ndarray) -> np.ndarray:
        answer = self._on_board(job, answer)
        if job.symmetry is None:
            return answer
        board = self._task.decode(answer)[None]
        return self._task.encode(job.symmetry.inverse().apply(board))[0].astype(np.int32)

    def _on_board(self, job: Job, answer: np.ndarray) -> np.ndarray:
        """The answer with what is no cell as in the puzzle."""
        if self._task is None:
            return answer
        return np.where(self._task.outside(job.inputs), job.inputs, answer)
