"""Processes that stop together, whether a signal has reached one of them, all, or their launcher.

They agree on the step to end with, so that the main one can save that moment.
"""

import errno
import io
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import mlx.core as mx

from trm_mlx.distributed import World
from trm_mlx.run.signals import StopSignal

_ASK_EVERY = 16  # calls between two messages about stopping, at most
_ASK_WITHIN = 2.0  # seconds, or a call if that takes longer
_LOST = 30.0  # seconds of waiting, at least, after which another process is taken for dead


class _Agreement:
    """What the processes of a ``world`` know of each other's wish to stop."""

    def __init__(self, should_stop: Callable[[], bool], world: World):
        self._should_stop, self._world = should_stop, world
        self._stopping, self._calls, self._every = False, 0, 1
        self._last = self._asked = time.monotonic()  # the last call, and the last message
        self._longest = 0.0  # seconds between two calls
        self.over = threading.Event()

    def should_stop(self) -> bool:
        """Return whether one of them is to stop, if this is the call at which they ask."""
        now = time.monotonic()
        self._longest, self._last = max(self._longest, now - self._last), now
        self._stopping = self._stopping or self._should_stop()
        self._calls += 1
        if self._calls < self._every:
            return False
        # By the main process's clock, to which the others add zeros: all read the same number.
        seconds = now - self._asked if self._world.is_main else 0.0
        wishes, seconds = self._world.sum(mx.array([float(self._stopping), seconds])).tolist()
        due = int(self._every * _ASK_WITHIN / max(seconds, 1e-3))
        self._every = max(1, min(due, 2 * self._every, _ASK_EVERY))
        self._calls, self._asked = 0, now
        if wishes:
            self.over.set()
        return bool(wishes)

    def watch(self) -> None:
        """End the process when it is to stop, but waits too long for the others; in a thread."""
        since = None
        while not self.over.wait(min(1.0, _LOST)):
            now = time.monotonic()
            if since is None and self._should_stop():
                since = now
            patience = max(_LOST, 2 * self._longest)
            if since is not None and now > max(since, self._last) + patience:
                with suppress(OSError):
                    os.write(2, b"\nerror: another process of the run does not answer; unsaved\n")
                os._exit(2)


@contextmanager
def synced_stop(should_stop: Callable[[], bool], world: World) -> Iterator[Callable[[], bool]]:
    """Yield a ``should_stop`` that becomes true at the same call in all processes.

    They ask each other every few calls, which are after steps and evaluated batches. The launcher
    ends those whom a dead process leaves waiting by SIGTERM, as others tell a whole run to stop: so
    a process ends, unsaved, if it hears nothing for half a minute and twice as long as ever before.
    """
    if world.size == 1:
        yield should_stop
        return
    agreement = _Agreement(should_stop, world)
    watching = threading.Thread(target=agreement.watch, daemon=True)
    watching.start()
    try:
        yield agreement.should_stop
    finally:
        agreement.over.set()
        watching.join()


class _ToLauncher(io.FileIO):
    """Standard error; when nobody reads it any more, that is a wish to stop, and it is silent."""

    def __init__(self, stop: StopSignal):
        super().__init__(2, "w", closefd=False)
        self._stop = stop

    def write(self, data: bytes) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EIO):  # of a pipe, of a terminal
                raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        self._stop.receive(signal.SIGHUP)
        return len(data)


def outlive_launcher(stop: StopSignal) -> None:
    """Let this process stop, and save, once the launcher that shows its messages has ended."""
    file = io.BufferedWriter(_ToLauncher(stop))
    sys.stderr = io.TextIOWrapper(
        file, sys.stderr.encoding, "backslashreplace", line_buffering=True
    )
