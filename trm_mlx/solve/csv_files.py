"""Solves questions from anywhere into a CSV file: they are read, solved and written as they come.

A question that is no puzzle is reported and kept without an answer, so that each has its row.
"""

import csv
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trm_mlx.errors import InputError, refusal
from trm_mlx.files import atomic_file
from trm_mlx.solve.scheduler import Solution
from trm_mlx.solve.solver import Solver
from trm_mlx.tasks.base import Task
from trm_mlx.tasks.registry import Question

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
    questions: Iterable[Question],
    target: Path,
    name: str,
    warn: Callable[[str], object],
    tick: Callable[[int], object] = lambda rows: None,
) -> Tally:
    """Solve every question and write ``target``, which appears when it is whole.

    Args:
        name: where the questions are from, for messages.
        warn: called with one line for every question that is no puzzle.
        tick: called with the number of rows written.

    Raises:
        InputError: a file that cannot be read or written, or no question at all.
    """
    tally, rows = Tally(), _Rows(task, questions, warn)
    solutions = solver.solve(rows.inputs(), rows.identifiers())
    try:
        with (
            atomic_file(target) as unfinished,
            unfinished.open("w", encoding="utf-8", newline="") as file,
        ):
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            while True:
                solution = next(solutions, None)
                # The rows up to the one answered; at the end, those that are left.
                for question in rows.until_puzzle(solution is not None):
                    writer.writerow(_row(task, tally, question, solution))
                    tick(1)
                if solution is None:
                    break
            if not tally.rows:
                raise InputError(f"{name} has no puzzles after its header")
    except OSError as error:
        raise InputError(f"cannot write {target}: {refusal(error)}; nothing was written") from error
    return tally


class _Rows:
    """Questions: those that are puzzles, and, in order, all that are not yet written."""

    def __init__(self, task: Task, questions: Iterable[Question], warn: Callable[[str], object]):
        self._task, self._questions, self._warn = task, questions, warn
        self._unwritten: deque[Question] = deque()

    def inputs(self) -> Iterator[np.ndarray]:
        """The tokens of every puzzle."""
        for question in self._questions:
            self._unwritten.append(question)
            if question.values is None:
                self._warn(f"{question.place}: {question.error}")
            else:
                yield self._task.encode(question.values)

    def identifiers(self) -> Iterator[int]:
        """The identifier of the puzzle that `inputs` has given last."""
        while self._unwritten:
            yield self._unwritten[-1].identifier

    def until_puzzle(self, one: bool) -> Iterator[Question]:
        """Hand out the questions that are no puzzles, and with ``one`` the next that is."""
        while self._unwritten:
            question = self._unwritten.popleft()
            yield question
            if question.values is not None and one:
                return


def _row(task: Task, tally: Tally, question: Question, solution: Solution | None) -> tuple:
    """A row of the output, counted."""
    tally.rows += 1
    if question.values is None:
        tally.unreadable += 1
        return (question.text, "", "false", *[""] * (len(COLUMNS) - 3))
    answer = task.decode(solution.answer)
    if task.has_rules:
        solved = bool(task.check(question.values, answer))
    else:
        solved = question.label is not None and np.array_equal(answer, question.label)
    tally.solved += solved
    tally.trajectories += solution.trajectories
    tally.evaluations += solution.evaluations
    return (
        question.text,
        question.task.line(answer),
        _word(solved),
        solution.steps,
        f"{solution.confidence:.4f}",
        solution.trajectories,
        solution.evaluations,
        _word(solution.passes is not None),
    )


def _word(value: bool) -> str:
    return "true" if value else "false"
