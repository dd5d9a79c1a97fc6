"""Continuous batching: a row that halts takes the next job of the queue with its next step.

Which row takes which job is decided on the device, by the carry that also serves training
(``models/act.py``): each step gets a pool of queued jobs, and the n-th halted row takes the n-th
of them. So step t + 1 can be launched before the host reads step t, and the device never waits.
Jobs are numbered in the order of the queue; -1 is a row without a job. At the end of the queue rows
without one are taken away.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator

import mlx.core as mx
import numpy as np
from mlx.utils import tree_map

from trm_mlx.models import kernels_cpu
from trm_mlx.models.act import Carry, halting_logit
from trm_mlx.models.model import Batch, RecursiveReasoner
from trm_mlx.solve.scheduler import Job, Scheduler
from trm_mlx.solve.search import Perturbation, StepOutput, Trajectory

Step = Callable[[Carry, Batch, mx.array], tuple[Carry, Batch]]


def cell_confidence(logits: mx.array) -> mx.array:
    """The probability of the likeliest token of every cell, float32 ``[B, S]``."""
    return mx.softmax(logits.astype(mx.float32), axis=-1).max(axis=-1)


def batch_step(
    model: RecursiveReasoner, perturb: Perturbation, keep_outputs: bool, keep_states: bool
) -> Step:
    """One supervision step of every row, after the halted rows have taken jobs.

    Returns:
        ``(carry, pool, logit_threshold) -> (carry, arrays)``; a row halts where its halting logit
        exceeds the threshold. The arrays have an entry per row, ``cell_confidence`` only if outputs
        are kept; ``vacant`` rows take a job with the next step.
    """

    def step(carry: Carry, pool: Batch, logit_threshold: mx.array) -> tuple[Carry, Batch]:
        starting = carry.halted
        job_index = mx.maximum(mx.cumsum(starting.astype(mx.int32)) - 1, 0)
        carry = model.reset_halted(carry, {name: rows[job_index] for name, rows in pool.items()})
        carry = carry._replace(halted=mx.zeros_like(starting))
        carry = carry._replace(states=perturb(carry, starting))
        before, jobs = carry.states, carry.batch
        carry, outputs = model(carry, jobs)
        logit = halting_logit(model.config, outputs)
        halted = logit > logit_threshold
        vacant = halted | (carry.steps >= jobs["limit"]) | (jobs["number"] < 0)
        arrays = {
            "vacant": vacant,
            "number": jobs["number"],
            "answer": mx.argmax(outputs["logits"], axis=-1),
            "steps": carry.steps,
            "confidence": mx.sigmoid(logit),
            "halted": halted,
            "residual": _root_mean_square(before, carry.states),
        }
        if keep_outputs:
            arrays["cell_confidence"] = cell_confidence(outputs["logits"])
        if keep_states:
            arrays |= {name: state.astype(mx.float32) for name, state in carry.states.items()}
        # For the carry a vacant row has halted: it takes a job with the next step.
        return carry._replace(halted=vacant), arrays

    return step


def compiled_step(model: RecursiveReasoner, *options: object) -> Step:
    """`batch_step`, compiled: once a model, for however many solvers."""
    # In __dict__, not as an attribute: nn.Module takes a dict for parameters.
    steps = model.__dict__.setdefault("_compiled_steps", {})
    key = (model.recursion, *options)
    if key not in steps:
        step = kernels_cpu.disabled()(batch_step(model, *options))
        steps[key] = mx.compile(step, inputs=model.state)
    return steps[key]


class Batcher:
    """Runs the jobs of a scheduler through the rows of one batch.

    Args:
        model: put into evaluation mode.
        step: from `batch_step` or `compiled_step`.
        threshold: the confidence above which a row halts; None: every row runs to its limit.
        shrinks: whether the batch may become smaller, which a compiled step would be traced for.
    """

    def __init__(
        self,
        model: RecursiveReasoner,
        step: Step,
        scheduler: Scheduler,
        rows: int,
        threshold: float | None,
        shrinks: bool = False,
    ):
        self._model, self._step, self._scheduler, self._rows = model, step, scheduler, rows
        self._shrinks = shrinks
        self._bound = math.inf if threshold is None else _logit(threshold)
        self._count = self._steps = 0  # of jobs and steps so far
        self._jobs: dict[int, Job] = {}  # queued or running
        self._queue: deque[int] = deque()  # at most as many as there are rows
        self._last_step: dict[int, int] = {}  # of each running job, where it does not halt
        self._outputs: dict[int, list[StepOutput]] = {}
        self._pool: Batch | None = None  # the queue as arrays

    def run(self) -> Iterator[None]:
        """Work until every puzzle is answered; yields after every step that has been read."""
        self._model.eval()
        logit_threshold = mx.array(self._bound)
        carry = self._model.initial_carry(self._queue_arrays())
        current, vacant = None, np.ones(self._rows, bool)
        while True:
            self._fill_queue()
            if not self._scheduler.unanswered:
                return  # without waiting for a step that was launched ahead
            ahead = None
            if current is None or self._runs_ahead():
                carry, ahead = self._step(carry, self._queue_arrays(), logit_threshold)
                mx.async_eval(carry, ahead)
            if current is not None:
                vacant = self._read(current)
            if ahead is not None:
                started = self._start_jobs(int(vacant.sum()))
                busy = np.flatnonzero(~vacant)
                ends = self._shrinks and self._scheduler.all_read and not started
                if ends and 0 < 2 * len(busy) <= self._rows:
                    carry, ahead = self._keep_rows(busy, carry, ahead)
            if current is not None:
                yield
            current = ahead

    def _fill_queue(self) -> None:
        """Drop the jobs that nobody needs any more, and queue as many as the rows could take."""
        needed = deque(number for number in self._queue if self._jobs[number].needed)
        if len(needed) < len(self._queue):
            self._queue, self._pool = needed, None
        while len(self._queue) < self._rows and (job := self._scheduler.next_job()) is not None:
            self._jobs[self._count] = job
            self._queue.append(self._count)
            self._count += 1
            self._pool = None

    def _runs_ahead(self) -> bool:
        """Whether to launch the next step before the running one has been read.

        With one puzzle left, the running step may finish it: then only if no row halts early.
        """
        continues = any(
            last > self._steps and self._jobs[number].needed
            for number, last in self._last_step.items()
        )
        if self._scheduler.unanswered > 1:
            return continues or bool(self._queue)
        return continues and self._bound == math.inf

    def _queue_arrays(self) -> Batch:
        """The queued jobs, padded to the number of rows."""
        if self._pool is None:
            size = self._rows
            pool = {
                "inputs": np.zeros((size, self._model.config.seq_len), np.int32),
                "puzzle_identifiers": np.zeros(size, np.int32),
                "limit": np.zeros(size, np.int32),
                "number": np.full(size, -1, np.int32),
                "key": np.zeros((size, 2), np.uint32),
                "perturbed": np.zeros(size, bool),
            }
            for row, number in enumerate(self._queue):
                job = self._jobs[number]
                pool["inputs"][row] = job.inputs
                pool["puzzle_identifiers"][row] = job.puzzle.identifier
                pool["limit"][row] = job.limit
                pool["number"][row] = number
                pool["key"][row] = job.key
                pool["perturbed"][row] = job.perturbed
            self._pool = {name: mx.array(array) for name, array in pool.items()}
        return self._pool

    def _start_jobs(self, vacant: int) -> int:
        """Note the jobs that vacant rows have taken with the step just launched; their number."""
        started = min(vacant, len(self._queue))
        for _ in range(started):
            number = self._queue.popleft()
            self._last_step[number] = self._steps + self._jobs[number].limit
            self._pool = None
        self._steps += 1
        return started

    def _keep_rows(self, rows: np.ndarray, *trees: object) -> tuple:
        """What is left of carry and arrays where only these rows go on."""
        self._rows, self._pool = len(rows), None
        kept = mx.array(rows)
        return tree_map(lambda array: array[kept], trees)

    def _read(self, arrays: Batch) -> np.ndarray:
        """Pass the finished jobs to the scheduler and return which rows are vacant."""
        read = {name: np.asarray(arrays[name]) for name in ("vacant", "number")}
        numbers, vacant = read["number"], read["vacant"]
        if "cell_confidence" in arrays:
            self._keep(arrays, numbers)
        ended = np.flatnonzero(vacant & (numbers >= 0))
        if ended.size:
            answers = np.asarray(arrays["answer"])[ended].astype(np.int32)
            names = ("steps", "confidence", "halted", "residual")
            columns = [np.asarray(arrays[name])[ended].tolist() for name in names]
            rows = zip(numbers[ended].tolist(), answers, *columns, strict=True)
            for number, answer, *values in rows:
                outputs = tuple(self._outputs.pop(number, ()))
                fields = dict(zip(names, values, strict=True))
                trajectory = Trajectory(answer=answer, outputs=outputs, **fields)
                del self._last_step[number]
                self._scheduler.record(self._jobs.pop(number), trajectory)
        return vacant

    def _keep(self, arrays: Batch, numbers: np.ndarray) -> None:
        """Add the outputs of a step to those of the running jobs."""
        names = ("answer", "confidence", "cell_confidence")
        answers, confidence, cells = (np.asarray(arrays[name]) for name in names)
        kept = [name for name in self._model.recursion.states if name in arrays]
        states = {name: np.asarray(arrays[name]) for name in kept}
        for row in np.flatnonzero(numbers >= 0):
            output = StepOutput(
                answers[row].astype(np.int32),
                float(confidence[row]),
                cells[row].copy(),
                {name: state[row].copy() for name, state in states.items()},
            )
            outputs = self._outputs.setdefault(int(numbers[row]), [])
            outputs.append(output)
            self._scheduler.emit_step(self._jobs[int(numbers[row])], len(outputs), output)


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
