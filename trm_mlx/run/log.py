"""The log of a run on disk: a line of JSON for every step and evaluation."""

import io
import json
import os
import shutil
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from trm_mlx.errors import InputError
from trm_mlx.files import atomic_file, is_open_file, open_regular
from trm_mlx.run.folder import recovery_hint

METRICS_FILE = "metrics.jsonl"
_LONGEST_LINE = 2**20  # characters; a line of metrics has a few hundred
HISTORY = 101  # the last losses that are read back


class MetricsLog:
    """The log of a run, open for the lines of further steps.

    That of a resumed run is first cut back to ``first_step``, so that it holds each step once, with
    its evaluation if that is ``evaluated``.

    Attributes:
        losses: up to `HISTORY` of training, the latest last.

    Raises:
        InputError: the log cannot be read or, here and in any method, not be written.
    """

    def __init__(self, run: Path, first_step: int, evaluated: bool):
        self._path = run / METRICS_FILE
        try:
            self.losses = _cut_back(self._path, first_step, evaluated)
            self._file = self._opened()
        except OSError as error:
            raise self._refused(error) from error

    def write(self, step: int, values: dict[str, float]) -> None:
        """Add a line."""
        line = json.dumps({"step": step, **values}).encode() + b"\n"
        try:
            while line:  # a disk that fills up may write a part
                line = line[self._file.write(line) :]
        except OSError as error:
            raise self._refused(error) from error

    def sync(self) -> None:
        """Wait until all is on the disk, written again where it was deleted or moved."""
        try:
            if not is_open_file(self._path, self._file.fileno()):
                self._write_again()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._refused(error) from error

    def close(self) -> None:
        self._file.close()

    def _opened(self) -> io.FileIO:
        # Unbuffered: what is written is in the file, however the process ends.
        return self._path.open("a+b", buffering=0)

    def _write_again(self) -> None:
        self._file.seek(0)  # a deleted file lasts until it is closed
        with atomic_file(self._path) as unfinished, unfinished.open("wb") as copy:
            shutil.copyfileobj(self._file, copy)
        self._file.close()
        self._file = self._opened()

    def _refused(self, error: OSError) -> InputError:
        return InputError(
            f"cannot write {self._path}: {error.strerror}; {recovery_hint(self._path.parent)}"
        )


def _cut_back(path: Path, step: int, evaluated: bool) -> deque[float]:
    """Drop the lines of later steps, and an incomplete line that a killed run may have left.

    The evaluation of ``step`` itself is dropped too, unless it is complete. Returns the last losses
    of the log.
    """
    losses: deque[float] = deque(maxlen=HISTORY)
    if not path.exists():
        return losses
    with atomic_file(path) as unfinished, unfinished.open("w", encoding="utf-8") as kept:
        for text, line in read_log(path):
            trained = any(name.startswith("train/") for name in line)
            if line["step"] < step or (line["step"] == step and (evaluated or trained)):
                kept.write(text)
                losses.extend([line["train/lm_loss"]] if "train/lm_loss" in line else [])
    return losses


def read_log(path: Path) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield every complete line of a log: its text and its numbers by name.

    An incomplete last line, of a run that is writing or was killed, is left out.

    Raises:
        InputError: the log cannot be read, or a line is damaged.
    """
    try:
        with io.TextIOWrapper(open_regular(path), encoding="utf-8") as log:
            lines = iter(lambda: log.readline(_LONGEST_LINE), "")
            for number, text in enumerate(lines, start=1):
                if not text.endswith("\n") and len(text) < _LONGEST_LINE:
                    return
                yield text, _parsed(path, number, text)
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a log of text: move it away") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; name a run's folder") from error


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
            f"{path} line {number} is damaged: remove the line, or move the file away"
        ) from error
