"""How this package compiles its searches with numba."""

from collections.abc import Callable

from numba import njit


def compiled(function: Callable) -> Callable:
    """``njit`` that keeps machine code on disk, unless numba finds no folder it may write to."""
    try:
        return njit(cache=True)(function)
    except RuntimeError:  # "cannot cache function ...: no locator available"
        return njit(function)
