"""How this package compiles loops and searches with numba."""

import functools
import signal
import threading
from collections.abc import Callable

from numba import njit


def compiled(function: Callable | None = None, **options) -> Callable:
    """``njit`` that keeps machine code on disk, unless numba finds no folder it may write to.

    Used bare, or with numba's options: ``@compiled(nogil=True)``.
    """
    if function is None:
        return lambda function: compiled(function, **options)
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:  # "cannot cache function ...: no locator available"
        return njit(**options)(function)


def uninterrupted(function: Callable) -> Callable:
    """A compiled function as Python calls it: Ctrl-C in the middle takes effect when it returns.

    Python's handler would raise while numba converts the result, which ends in a SystemError or a
    crash. Functions called by compiled ones must not be wrapped.
    """

    @functools.wraps(function)
    def call(*arguments):
        handler = signal.getsignal(signal.SIGINT)
        if threading.current_thread() is not threading.main_thread() or not callable(handler):
            return function(*arguments)
        pressed: list[tuple] = []
        signal.signal(signal.SIGINT, lambda *details: pressed.append(details))
        try:
            result = function(*arguments)
        finally:
            signal.signal(signal.SIGINT, handler)
        if pressed:
            handler(*pressed[0])
        return result

    return call
