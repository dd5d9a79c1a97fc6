"""The one exception a user is meant to read."""

from collections.abc import Iterator
from contextlib import contextmanager


class InputError(ValueError):
    """Bad input: one line that names the offending value and the remedy.

    Command lines print it as ``error: ...`` and exit with status 2; Python callers catch it as a
    ``ValueError``.
    """


_LONGEST, _SHOWN = 200, 60  # characters


def shortened(value: object) -> str:
    """What a user wrote, for a message: whole if it is short, else its start and its length."""
    text = str(value)
    if len(text) <= _LONGEST:
        return text
    return f"{text[:_SHOWN]}... ({len(text):,} characters)"


def refusal(error: OSError | RuntimeError) -> str:
    """Why the disk would not take a file, for a message.

    Of a write cut short NumPy, MLX and PyTorch say only how much was written.
    """
    words = error.strerror if isinstance(error, OSError) else None
    return words or f"only a part was written, is the disk full? ({error})"


@contextmanager
def located(place: object) -> Iterator[None]:
    """Lead the message of an `InputError` raised inside by where the bad input stands."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{place}: {error}") from error
