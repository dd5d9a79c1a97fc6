"""The requests of the page: JSON bodies into checked values, within limits.

Functions here take any bytes and raise nothing but `InputError`.
"""

import dataclasses
import json
from typing import Any, NamedTuple, NoReturn

from trm_mlx.errors import InputError
from trm_mlx.solve.search import DEFAULT_SEARCH, SELECTORS, SearchConfig
from trm_mlx.solve.solver import HALT_THRESHOLD

MAX_BODY = 64 * 1024  # bytes
# Of one puzzle; every step keeps its output, so that their product bounds the memory too.
TRAJECTORIES, STEPS, EVALUATIONS = 256, 256, 1024
NOISE, SEED = 10.0, 2**32 - 1


class EntryRequest(NamedTuple):
    """Read a puzzle of a model's task, as far as it has been typed."""

    model: str
    text: str


class GenerateRequest(NamedTuple):
    """Generate a puzzle of a model's task; ``level`` is one of the task's, None for any puzzle."""

    model: str
    level: str | None = None


class SolveRequest(NamedTuple):
    """Solve a puzzle; ``max_steps`` None stands for the model's own."""

    model: str
    text: str
    max_steps: int | None
    halt_threshold: float | None
    search: SearchConfig


def read_entry(body: bytes) -> EntryRequest:
    values = _object(body, {"model", "text"})
    return EntryRequest(_text(values, "model"), _text(values, "text"))


def read_generate(body: bytes) -> GenerateRequest:
    values = _object(body, {"model", "level"})
    level = None if values.get("level") is None else _text(values, "level")
    return GenerateRequest(_text(values, "model"), level)


def read_solve(body: bytes) -> SolveRequest:
    """Read a request to solve; the defaults of its options are those of ``trm solve``."""
    values = _object(body, {"model", "text", *OPTIONS})
    model, text = _text(values, "model"), _text(values, "text")
    options = {name: OPTIONS[name](name, values[name]) for name in OPTIONS if name in values}
    max_steps, threshold = (
        options.pop("max_steps", None),
        options.pop("halt_threshold", HALT_THRESHOLD),
    )
    return SolveRequest(
        model, text, max_steps, threshold, dataclasses.replace(DEFAULT_SEARCH, **options)
    )


def check_cost(search: SearchConfig, max_steps: int) -> None:
    """Raise `InputError` where a puzzle may take too many supervision steps in all."""
    if search.trajectories * max_steps > EVALUATIONS:
        raise InputError(
            f"{search.trajectories} trajectories of {max_steps} steps are more than "
            f"{EVALUATIONS} in all; ask for fewer"
        )


def _object(body: bytes, known: set[str]) -> dict[str, Any]:
    try:
        values = json.loads(body, parse_constant=_no_constant)
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(f"the request is not JSON: {error}; send one object") from error
    if not isinstance(values, dict):
        raise InputError(f"the request is {_shown(values)}; send one JSON object")
    for name in values:
        if name not in known:
            raise InputError(f"unknown option {_shown(name)}; known are {', '.join(sorted(known))}")
    return values


def _no_constant(name: str) -> NoReturn:
    raise InputError(f"{name} is no number of JSON; send a finite one")


def _text(values: dict[str, Any], name: str) -> str:
    if not isinstance(values.get(name), str):
        raise InputError(f"{name} {_shown(values.get(name))}: must be given, as text")
    return values[name]


def _whole(least: int, most: int):
    def read(name: str, value: Any) -> int:
        if type(value) is not int or not least <= value <= most:
            raise InputError(
                f"{name} {_shown(value)}: must be a whole number from {least} to {most}"
            )
        return value

    return read


def _number(most: float):
    def read(name: str, value: Any) -> float:
        if type(value) not in (int, float) or not 0 <= value <= most:
            raise InputError(f"{name} {_shown(value)}: must be a number from 0 to {most:g}")
        return float(value)

    return read


def _choice(*choices: object):
    def read(name: str, value: Any) -> Any:
        # By type too: JSON's 1 is not true.
        if not any(type(value) is type(choice) and value == choice for choice in choices):
            words = ", ".join(json.dumps(choice) for choice in choices)
            raise InputError(f"{name} {_shown(value)}: choose one of {words}")
        return value

    return read


def _or_null(read):
    return lambda name, value: None if value is None else read(name, value)


OPTIONS = {
    "trajectories": _whole(1, TRAJECTORIES),
    "restarts": _choice(True, False),
    "symmetries": _choice(True, False),
    "noise": _number(NOISE),
    "noise_on": _choice("z_L", "z_H"),
    "select": _choice(*SELECTORS),
    "seed": _whole(0, SEED),
    "max_steps": _or_null(_whole(1, STEPS)),
    "halt_threshold": _or_null(_number(1)),
}


def _shown(value: Any) -> str:
    return json.dumps(value)
