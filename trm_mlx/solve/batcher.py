"""Many jobs through a batch of few rows: a row that halts takes the next job with its next step.

Which row takes which job is decided on the device, by the carry that also serves training
(``models/act.py``): the batch brings a pool of waiting jobs, and the n-th halted row takes the n-th
of them. So the host dispatches step t + 1 before it has read which rows halted in step t, and the
device never waits. Rows without a job hold job number -1.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np

from trm_mlx.models import kernels_cpu
from trm_mlx.models.act import Carry, halting_logit
from trm_mlx.models.model import Batch, RecursiveReasoner
from trm_mlx.solve.refine import cell_confidence

NO_KEY = np.zeros(2, np.uint32)


class Job(NamedTuple):
    """One puzzle to work on once. ``tag`` is the caller's and comes back with the result."""

    inputs: np.ndarray  # tokens [S]
    identifier: int  # of the puzzle embedding
    limit: int  # supervision steps at most
    perturbed: bool = False
    key: np.ndarray = NO_KEY  # uint32 [2], the job's own randomness
    tag: Any = None


class StepOutput(NamedTuple):
    """A puzzle after one supervision step.

    answer: tokens ``[S]``; confidence: probability that the model gives to being right;
    cell_confidence: probability of each token, float32 ``[S]``; states: every state, float32
    ``[L, D]``, by name, where they are kept.
    """

    answer: np.ndarray
    confidence: float
    cell_confidence: np.ndarray
    states: dict[str, np.ndarray]


class Finished(NamedTuple):
    """What came of a job.

    answer: tokens ``[S]``; steps: supervision steps taken; confidence: as in `StepOutput`; halted:
    whether the model stopped by itself, not at the limit; residual: root mean square change of
    the states in the last step; thoughts: every step, where they were asked for.
    """

    job: Job
    answer: np.ndarray
    steps: int
    confidence: float
    halted: bool
    residual: float
    thoughts: tuple[StepOutput, ...]


class Reading(NamedTuple):
    """What the host may want to know of a step, one entry a row."""

    vacant: mx.array  # takes a job with the next step
    number: mx.array  # of the job, -1 for none
    answer: mx.array
    steps: mx.array
    confidence: mx.array
    halted: mx.array
    residual: mx.array
    cells: Batch  # "confidence" of each token [B, S]; empty unless thoughts are kept
    states: Batch  # likewise, unless states are


Watch = Callable[[Job, int, StepOutput], None]  # with the step's number, from 1


class Desk:
    """Hands jobs to the rows of a batch and takes in their results.

    ``watch`` is told every thought that is kept, as it comes.
    """

    def __init__(self, jobs: Iterator[Job | None], rows: int, seq_len: int, watch: Watch | None):
        self._jobs, self._rows, self._seq_len, self._watch = jobs, rows, seq_len, watch
        self._count = self._steps = 0
        self._waiting: deque[int] = deque()  # job numbers, at most as many as there are rows
        self._last: dict[int, int] = {}  # the last step that a job under way can take
        self._known: dict[int, Job] = {}
        self._thoughts: dict[int, list[StepOutput]] = {}
        self._pool: Batch | None = None

    def fill(self) -> None:
        """Let jobs wait, as many as the rows could take at once."""
        while len(self._waiting) < self._rows and (job := next(self._jobs, None)) is not None:
            self._known[self._count] = job
            self._waiting.append(self._count)
            self._count += 1
            self._pool = None

    def goes_on(self) -> bool:
        """Whether there may be anything to do after the step under way."""
        return bool(self._waiting) or any(last > self._steps for last in self._last.values())

    def pool(self) -> Batch:
        """The waiting jobs, padded to the number of rows."""
        if self._pool is None:
            jobs = [self._known[number] for number in self._waiting]
            inputs = np.zeros((self._rows, self._seq_len), np.int32)
            identifiers, limits = np.zeros((2, self._rows), np.int32)
            numbers = np.full(self._rows, -1, np.int32)
            keys = np.zeros((self._rows, 2), np.uint32)
            perturbed = np.zeros(self._rows, bool)
            if jobs:
                here = slice(len(jobs))
                inputs[here] = np.stack([job.inputs for job in jobs])
                identifiers[here] = [job.identifier for job in jobs]
                limits[here] = [job.limit for job in jobs]
                numbers[here] = self._waiting
                keys[here] = np.stack([job.key for job in jobs])
                perturbed[here] = [job.perturbed for job in jobs]
            self._pool = {
                "inputs": mx.array(inputs),
                "puzzle_identifiers": mx.array(identifiers),
                "limit": mx.array(limits),
                "number": mx.array(numbers),
                "key": mx.array(keys),
                "perturbed": mx.array(perturbed),
            }
        return self._pool

    def start(self, vacant: int) -> None:
        """Note that the step just dispatched has given ``vacant`` rows a job, while they lasted."""
        for _ in range(min(vacant, len(self._waiting))):
            number = self._waiting.popleft()
            self._last[number] = self._steps + self._known[number].limit
            self._pool = None
        self._steps += 1

    def read(self, reading: Reading, keep_thoughts: bool) -> tuple[int, list[Finished]]:
        """How many rows take a new job with the step after this one, and what finished in it."""
        numbers, vacant = np.asarray(reading.number), np.asarray(reading.vacant)
        if keep_thoughts:
            self._keep(reading, numbers)
        ended = np.flatnonzero(vacant & (numbers >= 0))
        if not ended.size:
            return int(vacant.sum()), []
        answers = np.asarray(reading.answer)[ended].astype(np.int32)
        columns = (reading.steps, reading.confidence, reading.halted, reading.residual)
        columns = (np.asarray(column)[ended].tolist() for column in columns)
        finished = []
        for number, answer, steps, confidence, halted, residual in zip(
            numbers[ended].tolist(), answers, *columns, strict=True
        ):
            del self._last[number]
            thoughts = tuple(self._thoughts.pop(number, ()))
            job = self._known.pop(number)
            finished.append(Finished(job, answer, steps, confidence, halted, residual, thoughts))
        return int(vacant.sum()), finished

    def _keep(self, reading: Reading, numbers: np.ndarray) -> None:
        answers, confidence = np.asarray(reading.answer), np.asarray(reading.confidence)
        cells = np.asarray(reading.cells["confidence"])
        states = {name: np.asarray(state) for name, state in reading.states.items()}
        for row in np.flatnonzero(numbers >= 0):
            thought = StepOutput(
                answers[row].astype(np.int32),
                float(confidence[row]),
                cells[row].copy(),
                {name: state[row].copy() for name, state in states.items()},
            )
            number = int(numbers[row])
            thoughts = self._thoughts.setdefault(number, [])
            thoughts.append(thought)
            if self._watch is not None:
                self._watch(self._known[number], len(thoughts), thought)


class Stream:
    """Runs jobs through the rows of one batch.

    Args:
        model: put into evaluation mode by `run`.
        threshold: the confidence above which a row halts; None: every row runs to its limit.
        perturb: ``(carry, fresh [B]) -> states`` before every step, as in `search.Perturbation`.
        keep_thoughts: record every step of every job; then all of it comes to the host.
        keep_states: the states of every step among it.
        compiled: whether to `mx.compile` the step.
    """

    def __init__(
        self,
        model: RecursiveReasoner,
        threshold: float | None,
        perturb: Callable[[Carry, mx.array], Batch],
        keep_thoughts: bool,
        keep_states: bool,
        compiled: bool,
    ):
        self.model, self.perturb = model, perturb
        self.keep_thoughts, self.keep_states = keep_thoughts, keep_states
        self._bound = math.inf if threshold is None else _logit(threshold)
        advance = kernels_cpu.disabled()(self._advance)
        self._step = mx.compile(advance, inputs=model.state) if compiled else self._advance

    def run(
        self, jobs: Iterator[Job | None], rows: int, watch: Watch | None = None
    ) -> Iterator[Finished]:
        """Yield results as they come; the order is that of halting.

        Args:
            jobs: asked for the next one whenever there is room. None says "nothing now, ask again
                after the next results": what it gives may depend on the results so far.
            rows: of the batch.
            watch: told every thought as it comes, where thoughts are kept.
        """
        self.model.eval()
        desk = Desk(jobs, rows, self.model.config.seq_len, watch)
        carry = self.model.initial_carry(desk.pool())
        current, vacant, finished = None, rows, []
        while True:
            desk.fill()
            following = None
            if desk.goes_on():
                carry, following = self._step(carry, desk.pool())
                mx.async_eval(carry, following)
            if current is not None:
                vacant, finished = desk.read(current, self.keep_thoughts)
            if following is not None:
                desk.start(vacant)
            yield from finished
            if current is None and following is None:
                return
            current, finished = following, []

    def _advance(self, carry: Carry, pool: Batch) -> tuple[Carry, Reading]:
        """One supervision step of every row, after the vacant rows have taken from the pool."""
        fresh = carry.halted
        turn = mx.maximum(mx.cumsum(fresh.astype(mx.int32)) - 1, 0)
        carry = self.model.reset_halted(carry, {name: rows[turn] for name, rows in pool.items()})
        carry = carry._replace(halted=mx.zeros_like(fresh))
        carry = carry._replace(states=self.perturb(carry, fresh))
        before, jobs = carry.states, carry.batch
        carry, outputs = self.model(carry, jobs)
        certainty = halting_logit(self.model.config, outputs)
        halted = certainty > self._bound
        vacant = halted | (carry.steps >= jobs["limit"]) | (jobs["number"] < 0)
        reading = Reading(
            vacant,
            jobs["number"],
            mx.argmax(outputs["logits"], axis=-1),
            carry.steps,
            mx.sigmoid(certainty),
            halted,
            _root_mean_square(before, carry.states),
            {"confidence": cell_confidence(outputs["logits"])} if self.keep_thoughts else {},
            {n: s.astype(mx.float32) for n, s in carry.states.items() if self.keep_states},
        )
        return carry._replace(halted=vacant), reading


def _root_mean_square(before: Batch, after: Batch) -> mx.array:
    """Of the change of all states of a row, ``[B]``."""
    squares = [
        mx.square(after[name].astype(mx.float32) - before[name].astype(mx.float32)).mean((1, 2))
        for name in after
    ]
    return mx.sqrt(sum(squares) / len(squares))


def _logit(probability: float) -> float:
    if probability in (0, 1):
        return math.inf if probability else -math.inf
    return math.log(probability / (1 - probability))
