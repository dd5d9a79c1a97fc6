"""Solves a CSV file of any length into another: rows are read, solved and written as they come.

The input needs a column ``question``; the other columns are ignored. A row that is no puzzle is
reported and kept, unsolved, so that the output has a row for each of the input.
"""

import csv
import itertools
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trm_mlx.atomic import atomic_file
from trm_mlx.errors import InputError, refusal
from trm_mlx.solve.scheduler import Solution
from trm_mlx.solve.solver import Solver
from trm_mlx.tasks.base import Task

COLUMNS = (
    "question", "answer", "solved", "steps", "confidence", "trajectories", "evaluations",
    "rule_checked",
)  # fmt: skip


@dataclass
class Tally:
    """Counts of a file: rows, those solved by the rules, those that are no puzzles, and the
    trajectories and network evaluations (supervision steps of one puzzle) spent on all."""

    rows: int = 0
    solved: int = 0
    unreadable: int = 0
    trajectories: int = 0
    evaluations: int = 0


def solve_table(
    solver: Solver,
    task: Task,
    source: Path,
    target: Path,
    warn: Callable[[str], object],
    tick: Callable[[int], object] = lambda rows: None,
) -> Tally:
    """Solve every row of ``source`` and write ``target``, which appears when it is whole.

    Args:
        warn: called with one line for every row that is no puzzle.
        tick: called with the number of rows written.

    Raises:
        InputError: a file that cannot be read or written, or has no puzzles.
    """
    _check_target(source, target)
    tally, rows = Tally(), _Rows(task, source, warn)
    solutions = solver.solve(rows.readable())
    try:
        with (
            atomic_file(target) as unfinished,
            unfinished.open("w", encoding="utf-8", newline="") as file,
        ):
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            while True:
                solution = next(solutions, None)
                # The rows up to the one solved; at the end, those that are left.
                for text, question in rows.until_readable(solution is not None):
                    writer.writerow(_row(task, tally, text, question, solution))
                    tick(1)
                if solution is None:
                    break
            if not tally.rows:
                raise InputError(f"{source} has no puzzles after its header")
    except OSError as error:
        raise InputError(f"cannot write {target}: {refusal(error)}; nothing was written") from error
    return tally


def first_questions(source: Path, count: int) -> list[str]:
    """The questions of the first rows; `InputError` as of `solve_table`."""
    return [text for _, text in itertools.islice(_texts(source, lambda line: None), count)]


def count_rows(source: Path) -> int:
    """Lines after the header, for a progress bar; `InputError` as of `solve_table`."""
    try:
        with source.open("rb") as file:
            lines = sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(2**20), b""))
    except OSError as error:
        raise InputError(f"cannot read {source}: {error.strerror}") from error
    return max(lines - 1, 0)


class _Rows:
    """The rows of a file: those that are puzzles, and, in order, all that are not yet written."""

    def __init__(self, task: Task, source: Path, warn: Callable[[str], object]):
        self._task, self._source, self._warn = task, source, warn
        self._unwritten: deque[tuple[str, np.ndarray | None]] = deque()

    def readable(self) -> Iterator[np.ndarray]:
        """The tokens of every puzzle."""
        for line, text in _texts(self._source, self._broken):
            question = None
            try:
                question = self._task.parse(text)
            except InputError as error:
                self._warn(f"{self._source} line {line}: {error}")
            self._unwritten.append((text, question))
            if question is not None:
                yield self._task.encode(question)

    def _broken(self, problem: str) -> None:
        self._warn(problem)
        self._unwritten.append(("", None))

    def until_readable(self, one: bool) -> Iterator[tuple[str, np.ndarray | None]]:
        """Yield the rows that are no puzzles, and with ``one`` the next that is."""
        while self._unwritten:
            text, question = self._unwritten.popleft()
            yield text, question
            if question is not None and one:
                return


def _texts(source: Path, broken: Callable[[str], object]) -> Iterator[tuple[int, str]]:
    """Line number and question of every row; ``broken`` gets a line for those without any."""
    try:
        # What is not UTF-8 makes its own row unreadable, not the file.
        with source.open(newline="", encoding="utf-8-sig", errors="replace") as file:
            reader = csv.DictReader(file, restval="")
            try:
                columns = reader.fieldnames or ()
            except csv.Error as error:
                raise InputError(f"{source} is not a CSV file: {error}") from error
            if "question" not in columns:
                problem = "has no column question" if columns else "is empty"
                raise InputError(
                    f"{source} {problem}: its first line must name the columns, "
                    "one of them question"
                )
            while True:
                try:
                    row = next(reader)
                except StopIteration:
                    return
                except csv.Error as error:
                    broken(f"{source} line {reader.reader.line_num}: {error}")
                    continue
                yield reader.line_num, row["question"]
    except OSError as error:
        raise InputError(f"cannot read {source}: {error.strerror}") from error


def _row(
    task: Task, tally: Tally, text: str, question: np.ndarray | None, solution: Solution | None
) -> tuple:
    """A row of the output, counted."""
    tally.rows += 1
    if question is None:
        tally.unreadable += 1
        return (text, "", "false", *[""] * (len(COLUMNS) - 3))
    answer = task.decode(solution.answer)
    solved = bool(task.check(question, answer))
    tally.solved += solved
    tally.trajectories += solution.trajectories
    tally.evaluations += solution.evaluations
    return (
        text,
        task.line(answer),
        _word(solved),
        solution.steps,
        f"{solution.confidence:.4f}",
        solution.trajectories,
        solution.evaluations,
        _word(solution.passes is not None),
    )


def _word(value: bool) -> str:
    return "true" if value else "false"


def _check_target(source: Path, target: Path) -> None:
    """Refuse at the start what would fail only after everything is solved."""
    if not target.parent.is_dir():
        raise InputError(f"{target}: there is no folder {target.parent}, create it first")
    if target.is_dir():
        raise InputError(f"{target} is a folder: name a file to write")
    if target.exists() and source.exists() and target.samefile(source):
        raise InputError(f"{target} is the input itself: name another file to write")
