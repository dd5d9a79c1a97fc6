"""Work that the threads of a server hand to the main thread, one job at a time.

MLX stays on the main thread: what it computes on another may abort the process when that ends.
"""

import queue
import threading
import time
from collections import deque
from collections.abc import Callable

import numpy as np

from trm_mlx.demo.registry import ModelEntry, ModelRegistry
from trm_mlx.demo.schemas import SolveRequest
from trm_mlx.device import memory_failures_explained
from trm_mlx.errors import InputError
from trm_mlx.solve.scheduler import StepEvent
from trm_mlx.solve.solver import Solver
from trm_mlx.tasks import Question
from trm_mlx.view.html import board_data
from trm_mlx.view.recording import FrameBuilder, ending, judged

Event = dict[str, object]
Emit = Callable[[Event], None]


class Cancelled(Exception):
    """The client of this job is gone."""


class Full(Exception):
    """The queue is full."""


class Job:
    """A computation: ``work(emit)`` calls ``emit`` with every event, as it comes.

    ``events`` holds them for the thread that waits, and None at the end; an `InputError` becomes
    an event of kind ``error``.
    """

    def __init__(self, work: Callable[[Emit], None]):
        self._work = work
        self._cancelled = threading.Event()
        self.events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()

    def cancel(self) -> None:
        """End with the next event."""
        self._cancelled.set()

    def run(self) -> None:
        try:
            with memory_failures_explained():
                self._work(self._emit)
        except Cancelled:
            pass
        except InputError as error:
            self.events.put({"kind": "error", "sentence": str(error)})
        finally:
            self.events.put(None)

    def _emit(self, event: Event) -> None:
        if self._cancelled.is_set():
            raise Cancelled
        self.events.put(event)


class JobQueue:
    """Jobs that wait, at most ``room``, besides the running one."""

    def __init__(self, room: int):
        self._room = room
        self._jobs: deque[Job] = deque()
        self._busy = False
        self._changed = threading.Condition()

    def join(self, job: Job) -> int:
        """Append a job; returns the number of jobs before it. Raises `Full`."""
        with self._changed:
            if len(self._jobs) >= self._room:
                raise Full
            self._jobs.append(job)
            self._changed.notify()
            return len(self._jobs) - 1 + self._busy

    def leave(self, job: Job) -> None:
        """Drop a job whose client is gone; a running one ends after its step."""
        job.cancel()
        with self._changed:
            if job in self._jobs:
                self._jobs.remove(job)

    def take(self) -> Job:
        """Wait for the next job and remove it from the queue; the one before it is done."""
        with self._changed:
            self._busy = False
            # With a timeout: Ctrl-C just before the wait begins would not end it.
            while not self._changed.wait_for(lambda: self._jobs, timeout=0.5):
                pass
            self._busy = True
            return self._jobs.popleft()

    def serve(self) -> None:
        """Run one job after the other, forever."""
        while True:
            self.take().run()

    def __len__(self) -> int:
        """The number of waiting jobs."""
        return len(self._jobs)


def generate(entry: ModelEntry, level: str | None, emit: Emit) -> None:
    """Emit one event, ``puzzle``, with the text of a new puzzle of one of its task's levels."""
    options = entry.task.levels[level] if level else {}
    (question,) = entry.task.generate(1, np.random.default_rng(), **options).questions
    emit({"kind": "puzzle", "text": entry.task.render(question)})


def warm_up(registry: ModelRegistry, entry: ModelEntry) -> None:
    """Load a model and run one step of it, so that the first puzzle need not wait for either."""
    blank = np.zeros((1, entry.task.seq_len), np.uint8)
    solver = Solver(registry.model(entry), max_steps=1, intermediates=True, states=False)
    next(solver.solve(entry.task.encode(blank)))


def solve(registry: ModelRegistry, request: SolveRequest, puzzle: Question, emit: Emit) -> None:
    """Emit a ``step`` event after every supervision step, then one ``end``.

    Steps are counted from 1, trajectories from 0.
    """
    start = time.perf_counter()
    task, question = puzzle.task, puzzle.values
    entry = registry.entry(request.model).showing(task)
    solver = Solver(
        registry.model(entry),
        request.max_steps,
        request.halt_threshold,
        search=request.search,
        task=task,
        intermediates=True,
        states=False,
    )
    frames = FrameBuilder(task, question)

    def on_step(event: StepEvent) -> None:
        frame = frames.next(event.output, event.trajectory)
        emit(
            {
                "kind": "step",
                "trajectory": event.trajectory,
                "step": frame.step,
                "halting": round(frame.halting, 4),
                "changes": frame.changes,
                "cells": board_data(entry.style, frame),
                "seconds": round(time.perf_counter() - start, 3),
            }
        )

    (solution,) = solver.solve(task.encode(question)[None], on_step=on_step)
    verdict = judged(task, question, task.decode(solution.answer))
    emit(
        {
            "kind": "end",
            "trajectory": solution.trajectory,
            "trajectories": solution.trajectories,
            "steps": solution.steps,
            "evaluations": solution.evaluations,
            "confidence": round(solution.confidence, 4),
            "solved": verdict.right,
            "ending": ending(solution.steps, solution.halted, verdict),
            "select": request.search.select,
            "seconds": round(time.perf_counter() - start, 3),
        }
    )
