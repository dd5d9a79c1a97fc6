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
from trm_mlx.errors import InputError
from trm_mlx.solve.scheduler import StepEvent
from trm_mlx.solve.solver import Solver
from trm_mlx.view.html import board
from trm_mlx.view.recording import FrameBuilder, ending, judged

Event = dict[str, object]
Emit = Callable[[Event], None]


class Cancelled(Exception):
    """Nobody waits for this job any more."""


class Full(Exception):
    """As many jobs wait as may."""


class Job:
    """Something to compute: ``work(tell)`` calls ``tell`` with every event, as it comes.

    ``events`` gives them to whoever waits, and None at the end; an `InputError` is an event of kind
    ``error``.
    """

    def __init__(self, work: Callable[[Emit], None]):
        self._work = work
        self._cancelled = threading.Event()
        self.events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()

    def cancel(self) -> None:
        """End with the next event that is told."""
        self._cancelled.set()

    def run(self) -> None:
        try:
            self._work(self._tell)
        except Cancelled:
            pass
        except InputError as error:
            self.events.put({"kind": "error", "sentence": str(error)})
        finally:
            self.events.put(None)

    def _tell(self, event: Event) -> None:
        if self._cancelled.is_set():
            raise Cancelled
        self.events.put(event)


class Line:
    """Jobs that wait, at most ``room``, besides the one under way."""

    def __init__(self, room: int):
        self._room = room
        self._jobs: deque[Job] = deque()
        self._busy = False
        self._changed = threading.Condition()

    def join(self, job: Job) -> int:
        """Let a job wait; how many are before it. Raises `Full`."""
        with self._changed:
            if len(self._jobs) >= self._room:
                raise Full
            self._jobs.append(job)
            self._changed.notify()
            return len(self._jobs) - 1 + self._busy

    def leave(self, job: Job) -> None:
        """Nobody waits for this job: it is dropped, or ends after its step."""
        job.cancel()
        with self._changed:
            if job in self._jobs:
                self._jobs.remove(job)

    def take(self) -> Job:
        """The job that has waited longest, as soon as there is one; the one before it is done."""
        with self._changed:
            self._busy = False
            # Not for ever at once: Ctrl-C just before it begins would not end a wait for a lock.
            while not self._changed.wait_for(lambda: self._jobs, timeout=0.5):
                pass
            self._busy = True
            return self._jobs.popleft()

    def serve(self) -> None:
        """Work on one job after the other, for ever."""
        while True:
            self.take().run()

    def __len__(self) -> int:
        """How many wait."""
        return len(self._jobs)


def generate(offer: ModelEntry, tell: Emit) -> None:
    """One event, ``puzzle``, with the text of a new puzzle."""
    (question,) = offer.task.generate(1, np.random.default_rng()).questions
    tell({"kind": "puzzle", "text": offer.task.render(question)})


def warm_up(shelf: ModelRegistry, offer: ModelEntry) -> None:
    """Load a model and let it take one step, so that the first puzzle need not wait for that."""
    blank = np.zeros((1, offer.task.seq_len), np.uint8)
    solver = Solver(shelf.model(offer), max_steps=1, intermediates=True, states=False)
    next(solver.solve(offer.task.encode(blank)))


def solve(shelf: ModelRegistry, request: SolveRequest, question: np.ndarray, tell: Emit) -> None:
    """A ``step`` event after every supervision step, then one ``end``.

    ``question`` is cell values ``[S]``. Steps are counted from 1, trajectories from 0.
    """
    start = time.perf_counter()
    offer = shelf.offer(request.model)
    task, look = offer.task, offer.look
    solver = Solver(
        shelf.model(offer),
        request.max_steps,
        request.halt_threshold,
        search=request.search,
        task=task,
        intermediates=True,
        states=False,
    )
    reel = FrameBuilder(task, question)

    def watch(glimpse: StepEvent) -> None:
        frame = reel.next(glimpse)
        tell(
            {
                "kind": "step",
                "trajectory": glimpse.trajectory,
                "step": frame.step,
                "halting": round(frame.halting, 4),
                "changes": frame.changes,
                "cells": board(look, frame),
                "seconds": round(time.perf_counter() - start, 3),
            }
        )

    (solution,) = solver.solve(task.encode(question)[None], watch=watch)
    verdict = judged(task, question, task.decode(solution.answer))
    tell(
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
