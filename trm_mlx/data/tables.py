"""Puzzles as tables: CSV of any dialect, JSON lines, parquet and pairs of NumPy files.

Every format becomes rows of text; what the text of a question means, its task knows.
"""

import csv
import json
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from tokenize import TokenError
from typing import NamedTuple, TextIO

import numpy as np

from trm_mlx.data.arrays import open_array
from trm_mlx.data.text_files import open_text
from trm_mlx.errors import InputError
from trm_mlx.files import LARGEST_JSON, open_regular

# Names of columns, in small letters; the published one of each first.
NAMES = {
    "question": (
        "question", "questions", "quiz", "quizzes", "puzzle", "puzzles", "problem", "unsolved",
        "input", "inputs", "board", "grid", "maze", "sudoku", "clues", "givens", "mission",
        "initial",
    ),
    "answer": (
        "answer", "answers", "solution", "solutions", "solved", "output", "outputs", "target",
        "label", "labels", "final", "result",
    ),
    "rating": ("rating", "ratings", "difficulty"),
}  # fmt: skip
# In names of several words, such as "puzzle_string": not the puzzle itself.
_OTHER_WORDS = {
    "id", "index", "number", "no", "count", "level", "length", "type", "size", "source", "by", "in",
    "time", "date", "steps", "url",
}  # fmt: skip
_NO_RATING = ("", "nan", "none", "null", "na", "n/a", "-")
_MARKS = ",;\t|"  # between the columns of a CSV file


class Row(NamedTuple):
    """A row of a table. The texts are as they stand; None is for an absent column.

    line: where it stands, counted as editors do, or the row's number; problem: why it is no row,
    and then the rest is empty.
    """

    line: int
    question: str = ""
    answer: str | None = None
    rating: float | None = None
    problem: str | None = None


class Columns(NamedTuple):
    """Names of the columns of questions and answers; None: any of the known names."""

    question: str | None = None
    answer: str | None = None


ANY = Columns()


class _Places(NamedTuple):
    """The places of the columns in a row; None for an absent one."""

    question: int
    answer: int | None = None
    rating: int | None = None


def is_table(path: Path) -> bool:
    """Whether a file has rows with named columns, rather than puzzles as plain text.

    Raises:
        InputError: it cannot be read.
    """
    if path.suffix.lower() in (".parquet", ".npy", ".npz"):
        return True
    with open_text(path) as file:
        lines = _Lines(file)
        first = lines.first.strip()
        if first.startswith("{"):
            value = _loads(first)
            return isinstance(value, dict) and _find_columns(list(value)) is not None
        if first.startswith("["):
            rest = first[1:].strip() or next(file, "")
            return rest.lstrip().startswith("{")
        named = any(_find_columns(lines.first.split(mark)) is not None for mark in _MARKS)
        # Columns of other names are no puzzles either: whoever reads it will say so.
        words = re.fullmatch(r"\W*[A-Za-z_ ]{3,}\W+[A-Za-z_ ]{2,}.*", first)
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
    wanted = Columns(question_column, answer_column)
    if path.suffix.lower() == ".parquet":
        return _parquet_rows(path, wanted)
    if path.suffix.lower() in (".npy", ".npz"):
        return _numpy_rows(path, wanted)
    return _text_rows(path, wanted)


class _Lines:
    """The lines of a file from the first that is not blank and no comment.

    first: that line, empty if there is none; number: where it stands; mark: the delimiter that
    Excel names in a line of its own.
    """

    def __init__(self, file: TextIO):
        self._file, self.first, self.number = file, "", 0
        self.mark: str | None = None
        for line in file:
            self.number += 1
            if match := re.fullmatch(r"sep=(.)\s*", line):
                self.mark = match[1]
            elif line.strip() and not re.match(r"\s*#.*[A-Za-z]{3}", line):
                self.first = line
                break

    def __iter__(self) -> Iterator[str]:
        return chain([self.first], self._file)


def _text_rows(path: Path, wanted: Columns) -> Iterator[Row]:
    with open_text(path) as file:
        lines = _Lines(file)
        if not lines.first:
            raise InputError(f"{path} is empty: its first line must name the columns")
        formats = {"{": _json_lines, "[": _json_list}
        yield from formats.get(lines.first.lstrip()[0], _csv_rows)(path, lines, wanted)


def _csv_rows(path: Path, lines: _Lines, wanted: Columns) -> Iterator[Row]:
    mark = lines.mark or next(
        (
            mark
            for mark in _MARKS
            if _find_columns(lines.first.split(mark), Columns(wanted.question))
        ),
        max(_MARKS, key=lines.first.count),
    )
    reader = csv.reader(lines, delimiter=mark)
    columns: _Places | None = None
    while True:
        line = lines.number + reader.line_num
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
            columns = _find_columns(fields, wanted)
            if columns is not None:
                continue
            columns = _unnamed_columns(path, fields, wanted)
            if re.search("[A-Za-z]{3}", fields[columns.question]):
                continue  # a header after all, with a column named by its number
        if any(field.strip() for field in fields):
            yield _row(f"{path} line {line}", line, fields, columns)


def _find_columns(names: Sequence[str], wanted: Columns = ANY) -> _Places | None:
    """The columns of these names, if one of them is the question."""
    plain = [str(name).strip().strip("\"'").strip().lower() for name in names]
    places = []
    for role, name in zip(NAMES, (*wanted, None), strict=True):
        known = NAMES[role] if name is None else (name.strip().lower(),)
        places.append(next((plain.index(name) for name in known if name in plain), None))
    by_words = [*places]
    for place, name in enumerate(plain):  # such as "puzzle_string" and "solution_string"
        words = set(re.split(r"[\W_]+", name))
        role = next((r for r in (1, 0) if words & set(NAMES[("question", "answer")[r]])), None)
        if role is None or place in by_words or wanted[role] is not None:
            continue
        if by_words[role] is None and not words & _OTHER_WORDS:
            by_words[role] = place
    if None not in by_words[:2]:
        places = by_words
    return None if places[0] is None else _Places(*places)


def _unnamed_columns(path: Path, fields: Sequence[str], wanted: Columns) -> _Places:
    """The columns of a table without a header: the longest texts of one length are puzzles.

    Raises:
        InputError: the first line names columns, and no known one; or has no such number.
    """
    question, answer = wanted
    numbers = [int(name) - 1 for name in wanted if name and name.isdecimal()]
    if question and len(numbers) == 1 + bool(answer) and max(numbers) < len(fields):
        return _Places(*numbers)
    lengths = [len(field.strip()) for field in fields]
    longest = max(lengths, default=0)
    boards = [place for place, length in enumerate(lengths) if length == longest]
    if question is not None or longest < 16:
        column = repr(question) if question else "for the question"
        raise InputError(
            f"{path} has no column {column}: its first line must name the columns "
            f"{NAMES['question'][0]} and {NAMES['answer'][0]}, it has "
            f"{', '.join(field.strip() for field in fields)}; or name yours with "
            "--question-column and --answer-column"
        )
    published = len(fields) == 4 and boards == [1, 2]  # source,question,answer,rating
    return _Places(1, 2, 3) if published else _Places(*boards[:2])


def _row(place: str, line: int, fields: Sequence[object], columns: _Places) -> Row:
    """The row of some fields, or what is wrong with them."""
    question, answer, rating = (
        None if column is None or column >= len(fields) else _text(fields[column])
        for column in columns
    )
    if question is None:
        absent = f"has {len(fields)} fields, the question would be number {columns.question + 1}"
        return Row(line, problem=f"{place} {absent}")
    if columns.answer is not None and answer is None:
        return Row(line, question, problem=f"{place} has no answer: the line is cut short")
    rating = (rating or "").strip()
    try:
        value = float(rating.replace(",", ".")) if rating.lower() not in _NO_RATING else None
    except ValueError:
        value = math.nan
    if value is not None and not math.isfinite(value):
        problem = f"{place}: rating {rating!r} is not a number: write one, or nothing"
        return Row(line, question, problem=problem)
    return Row(line, question, answer, value)


def _text(value: object) -> str:
    """A cell of a table as text; lists, as JSON and parquet have them, as JSON."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    return json.dumps(value.tolist() if isinstance(value, np.ndarray) else value)


# JSON


def _loads(text: str) -> object:
    """The value of a JSON text; the error that says why it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        return error


def _json_lines(path: Path, lines: _Lines, wanted: Columns) -> Iterator[Row]:
    for number, line in enumerate(lines, start=lines.number):
        if line.strip():
            place, value = f"{path} line {number}", _loads(line)
            if isinstance(value, Exception):
                yield Row(number, problem=f"{place} is not JSON: {value}")
            else:
                yield _record(place, number, value, wanted)


def _json_list(path: Path, lines: _Lines, wanted: Columns) -> Iterator[Row]:
    records = _loads("".join(lines))
    if isinstance(records, Exception):
        raise InputError(f"{path} is not JSON: {records}")
    for number, record in enumerate(records, start=1):
        yield _record(f"{path} record {number}", number, record, wanted)


def _record(place: str, number: int, record: object, wanted: Columns) -> Row:
    if not isinstance(record, dict):
        return Row(number, problem=f"{place} is no object with a question and an answer")
    columns = _find_columns(list(record), wanted)
    if columns is None:
        names = ", ".join(map(str, record)) or "nothing"
        problem = f"{place} has no {wanted.question or 'question'}, it has {names}"
        return Row(number, problem=f"{problem}; name yours with --question-column")
    return _row(place, number, list(record.values()), columns)


# Binary formats

_SHAPES = "name a file of digits [N, 9, 9]"
# What zipfile and NumPy raise for archives cut short, overwritten, or oddly packed.
_DAMAGED = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, LookupError, MemoryError,
    NotImplementedError, RuntimeError, SyntaxError, TypeError, TokenError,
)  # fmt: skip


def _parquet_rows(path: Path, wanted: Columns) -> Iterator[Row]:
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
            columns = _find_columns(names, wanted)
            if columns is None:
                wanted_name = wanted.question or "question"
                raise InputError(
                    f"{path} has no column {wanted_name}, it has {', '.join(names)}: "
                    "name yours with --question-column and --answer-column"
                )
            batches = (
                zip(*(column.to_pylist() for column in batch.columns), strict=True)
                for batch in file.iter_batches()
            )
            for number, fields in enumerate(chain.from_iterable(batches), start=1):
                yield _row(f"{path} row {number}", number, fields, columns)
    except (OSError, pyarrow.ArrowException) as error:
        raise InputError(f"cannot read {path}: {error}") from error


def _numpy_rows(path: Path, wanted: Columns) -> Iterator[Row]:
    """Digits ``[N, ...]`` of questions and answers: in one .npz, or in .npy files side by side."""
    beside: Path | str | None = "its answers"
    if path.suffix.lower() == ".npz":
        questions, answers = _read_npz(path, wanted)
    else:
        questions, beside = _digits(open_array(path, _SHAPES), str(path)), _answers_beside(path)
        answers = beside and _digits(open_array(beside, _SHAPES), str(beside))
    if answers is not None and answers.shape != questions.shape:
        raise InputError(f"{path} holds {questions.shape} digits, but {beside} {answers.shape}")
    for number, question in enumerate(questions):
        answer = None if answers is None else "".join(map(str, answers[number].tolist()))
        yield Row(number + 1, "".join(map(str, question.tolist())), answer)


def _read_npz(path: Path, wanted: Columns) -> tuple[np.ndarray, np.ndarray | None]:
    try:
        with open_regular(path) as file, np.load(file, allow_pickle=False) as archive:
            unpacked = sum(entry.file_size for entry in archive.zip.infolist())
            if unpacked > LARGEST_JSON:
                raise InputError(f"{path} unpacks to {unpacked:,} bytes: save fewer puzzles")
            columns = _find_columns(archive.files, wanted)
            if columns is None:
                raise InputError(
                    f"{path} has no array {wanted.question or 'question'}, it has "
                    f"{', '.join(archive.files)}: name yours with --question-column"
                )
            places = [columns.question, *[columns.answer] * (columns.answer is not None)]
            names = [archive.files[place] for place in places]
            found = [_digits(archive[name], f"{path}: {name}") for name in names]
            return found[0], (found[1] if found[1:] else None)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, *_DAMAGED) as error:
        raise InputError(f"{path} is damaged ({error}): save it again") from error


def _digits(array: np.ndarray, place: str) -> np.ndarray:
    if array.ndim < 2 or array.dtype.kind not in "iuf" or not array.size:
        raise InputError(f"{place} holds {array.dtype} {array.shape}, not digits [N, 9, 9]")
    whole = array.astype(np.int8)
    if (whole != array).any() or whole.min() < 0 or whole.max() > 9:
        raise InputError(
            f"{place} holds other numbers than 0 to 9: one digit a cell, 0 for a blank"
        )
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
