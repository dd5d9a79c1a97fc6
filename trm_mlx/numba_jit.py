"""How this package compiles loops and searches with numba."""

import functools
import hashlib
import signal
import threading
import types
from collections.abc import Callable, Iterator
from pathlib import Path


class Compiled:
    """A function that numba compiles when it is first called; until then numba is not imported."""

    def __init__(self, function: types.FunctionType, options: dict[str, object]):
        self.function, self.options = function, options

    def __call__(self, *arguments):
        return self.dispatcher(*arguments)

    @functools.cached_property
    def dispatcher(self) -> Callable:
        """The function as numba calls it, and the compiled ones that it calls likewise."""
        from numba import njit

        values = {name: called.dispatcher for name, called in self._calls()}
        values = {**self.function.__globals__, **values}
        name, defaults = self.function.__name__, self.function.__defaults__
        function = types.FunctionType(self.function.__code__, values, name, defaults)
        # Numba's files bear this name, and hold what is called from other files as it was.
        sources = b"".join(Path(file).read_bytes() for file in sorted(self.sources))
        version = hashlib.sha256(sources).hexdigest()[:8]
        function.__qualname__ = f"{self.function.__qualname__}_{version}"
        try:
            return njit(cache=True, **self.options)(function)
        except RuntimeError:  # "cannot cache function ...: no locator available"
            return njit(**self.options)(function)

    @functools.cached_property
    def sources(self) -> frozenset[str]:
        """The files of the function and of the compiled ones that it calls."""
        called = (called.sources for _, called in self._calls())
        return frozenset({self.function.__code__.co_filename}).union(*called)

    def _calls(self) -> Iterator[tuple[str, "Compiled"]]:
        values = self.function.__globals__
        for name in self.function.__code__.co_names:
            if isinstance(values.get(name), Compiled):
                yield name, values[name]


def compiled(function: Callable | None = None, **options) -> Callable:
    """``njit`` that keeps machine code on disk, unless numba finds no folder it may write to.

    Used bare, or with numba's options: ``@compiled(nogil=True)``.
    """
    if function is None:
        return lambda function: Compiled(function, options)
    return Compiled(function, options)


def uninterrupted(function: Callable) -> Callable:
    """A compiled function as Python calls it: Ctrl-C in the middle takes effect when it returns.

    Python's handler would raise while numba converts the result, which ends in a SystemError or a
    crash. Functions called by compiled ones must not be wrapped.
    """

    @functools.wraps(getattr(function, "function", function))
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
