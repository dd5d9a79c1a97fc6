"""Reading ``metrics.jsonl``, the log of a run: one JSON object a line, ``step`` among its names."""

import json
from collections.abc import Iterator
from pathlib import Path

from trm_mlx.errors import InputError, shortened

METRICS_FILE = "metrics.jsonl"


def read_log(path: Path) -> Iterator[tuple[str, dict[str, float]]]:
    """Every whole line of a log: its text and its numbers by name.

    Half a line at the end, of a run that is writing or was killed, is left out.

    Raises:
        InputError: the log cannot be read, or a line is damaged.
    """
    try:
        with path.open(encoding="utf-8") as log:
            for number, text in enumerate(log, start=1):
                if not text.endswith("\n"):
                    return
                yield text, _parsed(path, number, text)
    except UnicodeDecodeError as error:
        raise InputError(f"{shortened(path)} is not a log of text: move it away") from error
    except OSError as error:
        raise InputError(
            f"cannot read {shortened(path)}: {error.strerror}; name a run's folder"
        ) from error


def _parsed(path: Path, number: int, text: str) -> dict[str, float]:
    try:
        values = {name: float(value) for name, value in json.loads(text).items()}
        return values | {"step": int(values["step"])}
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        ArithmeticError,
        RecursionError,
    ) as error:
        raise InputError(
            f"{shortened(path)} line {number} is damaged: remove the line, or move the file away"
        ) from error
