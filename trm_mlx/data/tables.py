"""Puzzles as tables: CSV of any dialect, JSON lines, parquet and pairs of NumPy files.

Every format becomes rows of text; what the text of a question means, its task knows.
"""

import csv
import gzip
import io
import json
import math
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np

from trm_mlx.data.arrays import open_array
from trm_mlx.errors import InputError

# Names of columns, in small letters; the published one of each first.
NAMES = {
    "question": (
        "question", "questions", "quiz", "quizzes", "puzzle", "puzzles", "problem", "unsolved",
        "input", "inputs", "board", "grid", "maze", "sudoku",
    ),
    "answer": (
        "answer", "answers", "solution", "solutions", "solved", "output", "outputs", "target",
        "label", "labels",
    ),
    "rating": ("rating", "ratings", "difficulty"),
    "source": ("source",),
}  # fmt: skip
_MAGIC = {
    b"PK\x03\x04": "a zip archive or an Excel workbook: export the sheet as CSV",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook: export the sheet as CSV",
    b"\x89PNG": "a picture: write the puzzle as text",
    b"\xff\xd8\xff": "a picture: write the puzzle as text",
    b"%PDF": "a PDF: write the puzzle as text",
    b"\x93NUMPY": "a NumPy file: name it *.npy",
    b"PAR1": "a parquet file: name it *.parquet",
}


class Row(NamedTuple):
    """A row of a table. The texts are as they stand; None is for an absent column.

    line: where it stands, counted as editors do, or the row's number; problem: why it is no row,
    and then the rest is empty.
    """

    line: int
    question: str = ""
    answer: str | None = None
    rating: float | None = None
    source: str | None = None
    problem: str | None = None


class Columns(NamedTuple):
    """The places of the columns in a row; None for an absent one."""

    question: int
    answer: int | None = None
    rating: int | None = None
    source: int | None = None


@contextmanager
def open_text(path: Path) -> Iterator[TextIO]:
    """A text file in UTF-8 or UTF-16, perhaps zipped by gzip, with its line ends as they are.

    Characters that are not of the encoding are replaced, so that they spoil their own line alone.

    Raises:
        InputError: it cannot be read, or is no text.
    """
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else path.open("rb") as file:
            start = file.read(4096)
            _check_magic(start, path)
            file.seek(0)
            with io.TextIOWrapper(file, _encoding(start), "replace", newline="") as text:
                yield text
    except FileNotFoundError as error:
        raise InputError(f"there is no file {path}: correct its name") from error
    except (OSError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or f"damaged, pack it again ({error})"
        raise InputError(f"cannot read {path}: {reason}") from error
    except EOFError as error:
        raise InputError(f"cannot read {path}: it is cut short") from error


def read_text(path: Path) -> str:
    """Read a whole text file; see `open_text`."""
    with open_text(path) as file:
        return file.read()


def decode(data: bytes, name: str) -> str:
    """Return bytes as text, as `open_text` does; ``name`` is for messages."""
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"cannot read {name}: damaged, pack it again ({error})") from error
    _check_magic(data, name)
    return data.decode(_encoding(data[:4096]), "replace")


def _check_magic(start: bytes, name: object) -> None:
    """Refuse a file of another kind by its name."""
    for magic, words in _MAGIC.items():
        if start.startswith(magic):
            raise InputError(f"{name} is {words}")


def _encoding(start: bytes) -> str:
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    nulls = [start[place::2].count(0) for place in (0, 1)]
    if max(nulls) > len(start) // 4 and min(nulls) < max(nulls) // 4:
        return "utf-16-be" if nulls[0] > nulls[1] else "utf-16-le"
    return "utf-8-sig"


def is_table(path: Path) -> bool:
    """Whether a file has rows with named columns, rather than puzzles as plain text.

    Raises:
        InputError: it cannot be read.
    """
    if path.suffix.lower() in (".parquet", ".npy"):
        return True
    with open_text(path) as file:
        lines = _Lines(file)
        first = next(lines, "")
        if first.lstrip().startswith("{"):
            return _json_member(first) is not None
        if first.lstrip().startswith("["):
            rest = first.lstrip()[1:].strip() or next(lines, "")
            return rest.lstrip().startswith("{")
        named = any(_found(first.split(mark)) is not None for mark in ",;\t|")
        # Columns of other names are no puzzles either: whoever reads it will say so.
        words = re.fullmatch(r"\W*[A-Za-z_ ]{3,}\W+[A-Za-z_ ]{2,}.*", first.strip())
        return named or (path.suffix.lower() in (".csv", ".tsv") and bool(words))


def read_rows(
    path: Path, question_column: str | None = None, answer_column: str | None = None
) -> Iterator[Row]:
    """The rows of a table, read as they are asked for.

    Args:
        question_column, answer_column: names of columns, or their numbers from 1; by default those
            that `NAMES` lists.

    Raises:
        InputError: a file that is no table, or has no such column.
    """
    wanted = question_column, answer_column
    if path.suffix.lower() == ".parquet":
        return _parquet_rows(path, *wanted)
    if path.suffix.lower() == ".npy":
        return _numpy_rows(path)
    return _text_rows(path, *wanted)


def _text_rows(path: Path, question: str | None, answer: str | None) -> Iterator[Row]:
    with open_text(path) as file:
        lines = _Lines(file)
        first = next(lines, None)
        if first is None:
            raise InputError(f"{path} is empty: its first line must name the columns")
        whole = chain([first], lines)
        if first.lstrip().startswith("{"):
            yield from _json_lines(path, enumerate(whole, start=lines.number), question, answer)
        elif first.lstrip().startswith("["):
            yield from _json_list(path, "".join(whole), question, answer)
        else:
            yield from _csv_rows(path, whole, lines, first, question, answer)


class _Lines:
    """The lines of a file from the first that is not blank and no comment; counts them."""

    def __init__(self, file: TextIO):
        self._file = file
        self.number = 0  # of the line given last
        self.mark: str | None = None  # the delimiter that Excel names in a line of its own
        self._started = False

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        while True:
            line = next(self._file)
            self.number += 1
            if self._started:
                return line
            if match := re.fullmatch(r"sep=(.)\s*", line):
                self.mark = match[1]
            elif line.strip() and not re.match(r"\s*#.*[A-Za-z]{3}", line):
                self._started = True
                return line


def _csv_rows(
    path: Path,
    whole: Iterable[str],
    lines: _Lines,
    first: str,
    question: str | None,
    answer: str | None,
) -> Iterator[Row]:
    reader = csv.reader(whole, delimiter=lines.mark or _delimiter(first, question))
    before = lines.number
    columns: Columns | None = None
    while True:
        line = before + reader.line_num
        try:
            fields = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            if columns is None:
                raise InputError(f"{path} is not a CSV file: {error}") from error
            yield Row(line, problem=f"{path} line {line}: {error}")
            continue
        if columns is None:
            columns = _found(fields, question, answer)
            if columns is not None:
                continue
            columns = _unnamed(path, fields, question, answer)
            if re.search("[A-Za-z]{3}", fields[columns.question]):
                continue  # a header after all, with a column named by its number
        if any(field.strip() for field in fields):
            yield _row(f"{path} line {line}", line, fields, columns)


def _delimiter(first: str, question: str | None) -> str:
    """The character between columns: one that gives them a known name, or else the commonest."""
    for mark in ",;\t|":
        if _found(first.split(mark), question) is not None:
            return mark
    return max(",;\t|", key=first.count)


def _found(
    names: Sequence[str], question: str | None = None, answer: str | None = None
) -> Columns | None:
    """The columns of these names, if one of them is the question."""
    plain = [str(name).strip().strip("\"'").strip().lower() for name in names]

    def place(role: str, wanted: str | None) -> int | None:
        known = NAMES[role] if wanted is None else (wanted.strip().lower(),)
        return next((plain.index(name) for name in known if name in plain), None)

    found = place("question", question)
    if found is None:
        return None
    return Columns(found, place("answer", answer), place("rating", None), place("source", None))


def _unnamed(
    path: Path, fields: Sequence[str], question: str | None, answer: str | None
) -> Columns:
    """The columns of a table without a header: the longest texts of one length are puzzles.

    Raises:
        InputError: the first line names columns, and no known one; or has no such number.
    """
    numbers = [int(name) - 1 for name in (question, answer) if name and name.isdecimal()]
    if question and len(numbers) == 1 + bool(answer) and max(numbers) < len(fields):
        return Columns(*numbers)
    lengths = [len(field.strip()) for field in fields]
    longest = max(lengths, default=0)
    boards = [place for place, length in enumerate(lengths) if length == longest]
    if question is not None or longest < 16:
        wanted = repr(question) if question else "for the question"
        raise InputError(
            f"{path} has no column {wanted}: its first line must name the columns "
            f"{NAMES['question'][0]} and {NAMES['answer'][0]}, it has "
            f"{', '.join(field.strip() for field in fields)}; or name yours with "
            "--question-column and --answer-column"
        )
    published = len(fields) == 4 and boards == [1, 2]  # source,question,answer,rating
    return Columns(*boards[:2]) if not published else Columns(1, 2, 3, 0)


def _row(place: str, line: int, fields: Sequence[object], columns: Columns) -> Row:
    """The row of some fields, or what is wrong with them."""

    def text(column: int | None) -> str | None:
        return None if column is None or column >= len(fields) else _text(fields[column])

    question = text(columns.question)
    if question is None:
        absent = f"has {len(fields)} fields, the question would be number {columns.question + 1}"
        return Row(line, problem=f"{place} {absent}")
    if columns.answer is not None and columns.answer >= len(fields):
        return Row(line, question, problem=f"{place} has no answer: the line is cut short")
    rating = (text(columns.rating) or "").strip()
    try:
        value = float(rating) if rating else None
    except ValueError:
        value = math.nan
    if value is not None and not math.isfinite(value):
        return Row(line, question, problem=f"{place}: rating {rating!r} is not a number")
    return Row(line, question, text(columns.answer), value, text(columns.source))


def _text(value: object) -> str:
    """A cell of a table as text; lists, as JSON and parquet have them, as JSON."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    return json.dumps(value.tolist() if isinstance(value, np.ndarray) else value)


# JSON


def _json_member(line: str) -> Columns | None:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return _found(list(value)) if isinstance(value, dict) else None


def _json_lines(
    path: Path, lines: Iterable[tuple[int, str]], question: str | None, answer: str | None
) -> Iterator[Row]:
    for number, line in lines:
        if line.strip():
            try:
                value = json.loads(line)
            except (ValueError, RecursionError) as error:
                yield Row(number, problem=f"{path} line {number} is not JSON: {error}")
                continue
            yield _record(f"{path} line {number}", number, value, question, answer)


def _json_list(path: Path, text: str, question: str | None, answer: str | None) -> Iterator[Row]:
    try:
        records = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}") from error
    for number, record in enumerate(records, start=1):
        yield _record(f"{path} record {number}", number, record, question, answer)


def _record(
    place: str, number: int, record: object, question: str | None, answer: str | None
) -> Row:
    if not isinstance(record, dict):
        return Row(number, problem=f"{place} is no object with a question and an answer")
    columns = _found(list(record), question, answer)
    if columns is None:
        names = ", ".join(map(str, record)) or "nothing"
        problem = f"{place} has no {question or 'question'}, it has {names}"
        return Row(number, problem=f"{problem}; name yours with --question-column")
    return _row(place, number, list(record.values()), columns)


# Binary formats


def _parquet_rows(path: Path, question: str | None, answer: str | None) -> Iterator[Row]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise InputError(
            f"{path}: reading parquet needs pyarrow: pip install pyarrow, or save it as CSV"
        ) from error
    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            columns = _found(names, question, answer)
            if columns is None:
                raise InputError(
                    f"{path} has no column {question or 'question'}, it has {', '.join(names)}: "
                    "name yours with --question-column and --answer-column"
                )
            number = 0
            for batch in file.iter_batches():
                for fields in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                    number += 1
                    yield _row(f"{path} row {number}", number, fields, columns)
    except (OSError, pyarrow.ArrowException) as error:
        raise InputError(f"cannot read {path}: {error}") from error


def _numpy_rows(path: Path) -> Iterator[Row]:
    """Digits ``[N, ...]`` of questions, and of answers in a file named like it beside it."""
    questions, beside = _digits(path), _answers_beside(path)
    answers = None if beside is None else _digits(beside)
    if answers is not None and answers.shape != questions.shape:
        raise InputError(f"{path} holds {questions.shape} digits, but {beside} {answers.shape}")
    for number, question in enumerate(questions):
        answer = None if answers is None else "".join(map(str, answers[number].tolist()))
        yield Row(number + 1, "".join(map(str, question.tolist())), answer)


def _digits(path: Path) -> np.ndarray:
    array = open_array(path, "name a file of digits [N, 9, 9]")
    if array.ndim < 2 or array.dtype.kind not in "iuf" or not array.size:
        raise InputError(f"{path} holds {array.dtype} {array.shape}, not digits [N, 9, 9]")
    whole = array.astype(np.int8)
    if (whole != array).any() or whole.min() < 0 or whole.max() > 9:
        raise InputError(f"{path} holds other numbers than 0 to 9: one digit a cell, 0 for a blank")
    return whole.reshape(len(whole), -1)


def _answers_beside(path: Path) -> Path | None:
    for name in NAMES["question"]:
        if name in path.stem.lower():
            start = path.stem.lower().index(name)
            for other in NAMES["answer"]:
                stem = path.stem[:start] + other + path.stem[start + len(name) :]
                if (beside := path.with_name(stem + path.suffix)).is_file():
                    return beside
    return None
