"""Stop a run by Ctrl-C or SIGTERM: it ends its step, saves, and the process lives on."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import mlx.core as mx

from trm_mlx.distributed import World
from trm_mlx.run.checkpoint import Progress

_ASK_EVERY = 16  # steps between two messages about stopping
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopTraining(Exception):
    """Ends an interval of a run at a place it can continue from."""


class StopSignal:
    """Whether, and by which signal, the run has been asked to stop."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def should_stop(self) -> bool:
        """Return whether a signal has come."""
        return self.signal is not None


def synced_stop(
    should_stop: Callable[[], bool], world: World, progress: Progress
) -> Callable[[], bool]:
    """Return a ``should_stop`` that becomes true at the same step in all processes.

    Every few steps they ask each other whether one is to stop.
    """
    if world.size == 1:
        return should_stop
    stopping, asked = False, -1

    def all_stop() -> bool:
        nonlocal stopping, asked
        stopping = stopping or should_stop()
        if progress.step % _ASK_EVERY or progress.step == asked:
            return False
        asked = progress.step
        return bool(world.sum(mx.array([float(stopping)])).item())

    return all_stop


@contextmanager
def stop_signal(signals: tuple[signal.Signals, ...] = SIGNALS) -> Iterator[StopSignal]:
    """Record the first signal; let the next one end the process at once, as signals do.

    A signal that the parent process ignores stays ignored.
    """
    stop = StopSignal()

    def receive(number: int, _: object) -> None:
        stop.signal = signal.Signals(number)
        for other in before:
            signal.signal(other, signal.SIG_DFL)
        os.write(2, b"\nstopping after this step; a second Ctrl-C ends at once, unsaved\n")

    before = {}
    for number in signals:
        if signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, receive)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
