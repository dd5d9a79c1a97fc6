"""Ctrl-C and SIGTERM as a wish to stop: the run ends its step and saves, the process lives on."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import mlx.core as mx

from trm_mlx.distributed import World
from trm_mlx.run.checkpoint import Progress

_ASK_EVERY = 16  # steps between two questions to a group whether to stop
SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopTraining(Exception):
    """Raised inside a run, at a place it can go on from, once a stop is wished for."""


class StopSignal:
    """Whether, and by which signal, the run has been asked to stop."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def obey(self, *_: object) -> None:
        """Raises StopTraining if a signal has come."""
        if self.signal is not None:
            raise StopTraining


def synced_stop(obey: Callable[[], None], group: World, progress: Progress) -> Callable[[], None]:
    """Stopping as a group: every few steps all ask whether one wishes to, and then all do."""
    if group.size == 1:
        return obey
    wished, asked = False, -1

    def obey_together() -> None:
        nonlocal wished, asked
        try:
            obey()
        except StopTraining:
            wished = True
        if progress.step % _ASK_EVERY == 0 and progress.step != asked:
            asked = progress.step
            if group.sum(mx.array([float(wished)])).item():
                raise StopTraining

    return obey_together


@contextmanager
def stop_signal(signals: tuple[signal.Signals, ...] = SIGNALS) -> Iterator[StopSignal]:
    """Inside, the first signal is a wish; the next ends the process at once, as signals do.

    A signal that the parent process has switched off stays so.
    """
    wish = StopSignal()

    def receive(number: int, _: object) -> None:
        wish.signal = signal.Signals(number)
        for other in before:
            signal.signal(other, signal.SIG_DFL)
        os.write(2, b"\nstopping after this step; a second Ctrl-C ends at once, unsaved\n")

    before = {}
    for number in signals:
        if signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, receive)
    try:
        yield wish
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
