"""Stop a run by Ctrl-C or SIGTERM: it ends or leaves its step, saves, and the process lives on.

Python runs a signal's handler between two of its instructions, and a step may compute for minutes
in one. The handler of the kernel writes the number to a pipe at once, where a thread reads it.

What follows within a second is a copy: launchers pass on a signal that all processes have had.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

_PATIENCE = 2.0  # seconds within which a step may end by itself
_TWICE = 1.0  # seconds within which two signals are one
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopTraining(Exception):
    """Ends an interval of a run at a place it can continue from."""


class StopSignal:
    """Whether, and by which signal, the run has been asked to stop."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._first = threading.Lock()  # taken by whoever sees the signal first
        self._since = 0.0

    def receive(self, number: int) -> None:
        """Record the first signal and say so; `stop_signal` calls it from two threads."""
        if self._first.acquire(blocking=False):
            self.signal, self._since = signal.Signals(number), time.monotonic()
            with suppress(OSError):  # nobody may read it any more
                os.write(2, b"\nstopping after this step; a second Ctrl-C ends at once, unsaved\n")

    def listen(self, pipe: int, signals: tuple[signal.Signals, ...]) -> None:
        """Read the numbers of signals from a pipe until 0, and end the process at a second one.

        Unless it is a copy, or a terminal that is closed: nobody is impatient then.
        """
        while number := os.read(pipe, 1)[0]:
            if number in signals:
                again = self.signal is not None and number != signal.SIGHUP
                if again and time.monotonic() > self._since + _TWICE:
                    os._exit(128 + number)
                self.receive(number)

    def should_stop(self) -> bool:
        """Return whether a signal has come."""
        return self.signal is not None


class Patience:
    """The wish to stop, which a step may outlive by seconds, but not by minutes."""

    def __init__(self, should_stop: Callable[[], bool]):
        self._should_stop = should_stop
        self._since: float | None = None

    def is_wanted(self) -> bool:
        """Return whether ``should_stop`` has returned True."""
        if self._since is None and self._should_stop():
            self._since = time.monotonic()
        return self._since is not None

    def leave_long_step(self) -> None:
        """Raise `StopTraining` if the step goes on for long after that; called all the time."""
        if self.is_wanted() and time.monotonic() >= self._since + _PATIENCE:
            raise StopTraining


@contextmanager
def stop_signal(signals: tuple[signal.Signals, ...] = SIGNALS) -> Iterator[StopSignal]:
    """Record the first signal; let the next one, after a second, end the process at once.

    Both are heard while a step computes. A signal that the parent process ignores stays ignored.
    """
    stop = StopSignal()
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    listener = threading.Thread(target=stop.listen, args=(reading, signals), daemon=True)
    listener.start()
    woken = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    before = {}
    for number in signals:
        if signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, lambda number, _: stop.receive(number))
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(woken)
        os.write(writing, b"\0")
        listener.join()
        os.close(reading)
        os.close(writing)
