"""The one exception a user is meant to read."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

# Characters of an unbroken word that a message shows whole, and of the message.
_LONGEST_WORD, _LONGEST_MESSAGE = 200, 600
_WORD_START, _MESSAGE_START, _MESSAGE_END = 60, 190, 150


class InputError(ValueError):
    """Bad input: one line that names the offending value and the remedy.

    A value too long to read is shortened to its start and its length, so that whoever raises one
    just formats it. Command lines print it as ``error: ...`` and exit with status 2; Python callers
    catch it as a ``ValueError``.
    """

    def __init__(self, message: str):
        super().__init__(_shortened(message))


def _shortened(text: str) -> str:
    """A message with its longest words, and its middle, cut to what a line has room for."""

    def cut(word: re.Match) -> str:
        return f"{word[0][:_WORD_START]}... ({len(word[0]):,} characters)"

    # The punctuation behind a word is the message's.
    text = re.sub(rf"\S{{{_LONGEST_WORD},}}[^\s:;,]", cut, text)
    if len(text) <= _LONGEST_MESSAGE:
        return text
    left_out = len(text) - _MESSAGE_START - _MESSAGE_END
    return f"{text[:_MESSAGE_START]}... ({left_out:,} characters) ...{text[-_MESSAGE_END:]}"


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
