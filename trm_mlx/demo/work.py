"""Work that the threads of a server hand to the main thread, one job at a time.

MLX stays on the main thread: what it computes on another may abort the process when that ends.
"""

import queue
import threading
from collections import deque
from collections.abc import Callable

from trm_mlx.errors import InputError

Event = dict[str, object]
Tell = Callable[[Event], None]


class Cancelled(Exception):
    """Nobody waits for this job any more."""


class Full(Exception):
    """As many jobs wait as may."""


class Job:
    """Something to compute: ``work(tell)`` calls ``tell`` with every event, as it comes.

    ``events`` gives them to whoever waits, and None at the end; an `InputError` is an event of kind
    ``error``.
    """

    def __init__(self, work: Callable[[Tell], None]):
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
