"""What a task is: the few things the rest of the package asks of a kind of puzzle.

A board is a uint8 array of *cell values* ``[seq_len]``, a batch ``[N, seq_len]``; a model reads
*tokens* of the same shape, where 0 is padding. NumPy only: a task knows no model.

A class with these names is a task. One that derives from `Task` writes ``name``, ``seq_len``,
``vocab_size``, `parse`, `render`, `generate` and `check`, and inherits the rest;
``examples/custom_task.py`` does so.
"""

from collections.abc import Iterable
from typing import NamedTuple, Protocol

import numpy as np

from trm_mlx.errors import InputError


class WrongCells(InputError):
    """A text that is no puzzle because of some cells: their places on the board."""

    def __init__(self, message: str, cells: Iterable[int]):
        super().__init__(message)
        self.cells = tuple(map(int, cells))


class Puzzles(NamedTuple):
    """Puzzles with answers as cell values, uint8 ``[N, seq_len]``, and ratings ``[N]``.

    A rating says how hard a puzzle is, 0 for the easiest.
    """

    questions: np.ndarray
    answers: np.ndarray
    ratings: np.ndarray

    def take(self, rows: np.ndarray | slice) -> "Puzzles":
        return Puzzles(*(array[rows] for array in self))


class Symmetry(Protocol):
    """A batch of N invertible changes, one a row, that turn puzzles into puzzles."""

    def apply(self, boards: np.ndarray) -> np.ndarray:
        """Cell values ``[N, seq_len]``, or ``[seq_len]`` for N images of one, to the images."""

    def move(self, numbers: np.ndarray, boards: np.ndarray) -> np.ndarray:
        """Numbers ``[N, seq_len]`` about the cells of ``boards``, to where those cells come."""

    def inverse(self) -> "Symmetry":
        """The changes that undo these: ``s.inverse().apply(s.apply(boards)) == boards``."""


class Unchanged:
    """The symmetry of tasks that have no other."""

    def apply(self, boards: np.ndarray) -> np.ndarray:
        return boards

    def move(self, numbers: np.ndarray, boards: np.ndarray) -> np.ndarray:
        return numbers

    def inverse(self) -> "Unchanged":
        return self


class Task(Protocol):
    """A kind of puzzle with one board size."""

    name: str
    seq_len: int
    vocab_size: int

    # Text and tokens

    def parse(self, text: str) -> np.ndarray:
        """A question's cell values; `InputError` says what does not fit and where.

        Where that is some cells, a `WrongCells` also shows them to who edits the puzzle.
        """

    def render(self, values: np.ndarray, givens: np.ndarray | None = None) -> str:
        """Plain text for one board; with ``givens``, what was not given may be marked."""

    def line(self, values: np.ndarray) -> str:
        """One board in one line, as a CSV file holds it; unless redefined, without any spaces."""
        return "".join(self.render(values).split())

    def encode(self, values: np.ndarray) -> np.ndarray:
        """Cell values of any shape to tokens, uint8; unless redefined, one more."""
        return np.asarray(values, np.uint8) + np.uint8(1)

    def decode(self, tokens: np.ndarray) -> np.ndarray:
        """Tokens of any shape to cell values, uint8; unless redefined, padding becomes value 0."""
        return (np.maximum(tokens, 1) - 1).astype(np.uint8)

    # Rules

    def generate(self, count: int, rng: np.random.Generator) -> Puzzles:
        """``count`` random puzzles, each of them solvable. Puzzles may repeat."""

    def check(self, question: np.ndarray, answer: np.ndarray) -> np.ndarray:
        """Which answers solve their questions by the rules, without a label: ``[...]`` bool."""

    def conflicts(self, question: np.ndarray, answer: np.ndarray) -> np.ndarray:
        """Which cells of an answer break a rule, ``[..., seq_len]`` bool; unless redefined, none.

        To show where an answer is wrong, also one half done; `check` says whether it is right.
        """
        return np.zeros(np.shape(answer), bool)

    # Sameness

    def relabel(self, questions: np.ndarray, answers: np.ndarray) -> np.ndarray:
        """The answers ``[N, seq_len]``, each right one as the label that `generate` would give.

        Where several answers are right, the image of a label need not be the label of the image;
        unless redefined, there is one right answer, and it stays.
        """
        return answers

    def sample_symmetry(self, rng: np.random.Generator, count: int) -> Symmetry:
        """``count`` independent symmetries, drawn uniformly; unless redefined, none changes."""
        return Unchanged()

    def split_keys(self, questions: np.ndarray, answers: np.ndarray) -> list[bytes]:
        """What makes each puzzle ``[N, seq_len]`` itself; unless redefined, its question.

        Puzzles with equal keys fall on the same side of the split between training and test, so
        a puzzle and its images should share one wherever there are few puzzles.
        """
        return [question.tobytes() for question in questions]


def has_rules(task: Task) -> bool:
    """Whether a task can `check` an answer; ARC cannot."""
    return hasattr(task, "check")
