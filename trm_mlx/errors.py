"""The one exception a user is meant to read."""

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_origin

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


_WORDS = {
    int: "a whole number", float: "a number", bool: "True or False", str: "a string",
    Path: "a path", NoneType: "None",
}  # fmt: skip


def check_types(function: Callable, arguments: Mapping[str, object]) -> None:
    """Check arguments by the annotations of a function, as far as these are of plain types.

    Args:
        arguments: by name; others are ignored.

    Raises:
        InputError: naming the argument.
    """
    for name, parameter in inspect.signature(function).parameters.items():
        annotation, value = parameter.annotation, arguments.get(name)
        if _leaves(annotation) <= _WORDS.keys() and not _is_a(value, annotation):
            raise InputError(f"{name}={value!r}: must be {_in_words(annotation)}")


def _leaves(annotation: Any) -> set:
    """The types that an annotation is made of."""
    parts = get_args(annotation)
    return set().union(*map(_leaves, parts)) if parts else {annotation}


def _is_a(value: object, annotation: Any) -> bool:
    """Whether a value is of an annotated type; NumPy's numbers are."""
    if isinstance(annotation, UnionType):
        return any(_is_a(value, part) for part in get_args(annotation))
    if get_origin(annotation) is Sequence:
        (member,) = get_args(annotation)
        return isinstance(value, list | tuple) and all(_is_a(one, member) for one in value)
    if annotation in (int, float):
        kind = Integral if annotation is int else Real
        return isinstance(value, kind) and not isinstance(value, bool)
    return isinstance(value, annotation)


def _in_words(annotation: Any) -> str:
    """An annotated type for messages."""
    if isinstance(annotation, UnionType):
        return " or ".join(map(_in_words, get_args(annotation)))
    if get_origin(annotation) is Sequence:
        return f"a list of {_in_words(*get_args(annotation)).removeprefix('a ')}s"
    return _WORDS[annotation]


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
