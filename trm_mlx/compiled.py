"""How this package compiles loops and searches with numba."""

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
