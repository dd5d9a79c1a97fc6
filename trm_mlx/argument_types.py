"""Arguments of our own functions, checked by the types that their annotations say."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_origin

from trm_mlx.errors import InputError

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
