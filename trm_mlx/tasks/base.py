"""The interface of a task: all that the rest of the package asks of a kind of puzzle.

A board is a uint8 array of *cell values* ``[seq_len]``, a batch ``[N, seq_len]``; a model reads
*tokens* of the same shape, where 0 is padding. NumPy only: a task knows no model.

A task derives from `Task`, defines ``name``, ``seq_len``, ``vocab_size``, `parse`, `render`,
`generate` and `check`, and inherits the rest; ``examples/custom_task.py`` is one.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from trm_mlx.errors import InputError


class WrongCells(InputError):
    """Invalid puzzle text, whose indices are ``cells``."""

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


class BoardStyle(NamedTuple):
    """The look of a board as plain data, which ``trm_mlx.view`` draws.

    rows, columns: the cells that are shown.
    symbols: the text of a cell, by its value; " " for a blank.
    box: rows and columns between two thick lines; (0, 0) for none.
    fills: the colour of a cell, ``#rrggbb``, by its value; empty: cells are coloured by their mark
        (given, new, changed, wrong).
    shows_marks: with ``fills``: cells that differ from the question have the colour of their mark.
    hidden: symbols that are not drawn, because their fill says enough.
    stride: cells from one row of the board to the next; 0: ``columns``.
    filled: what legends call a cell that an earlier step has set.
    """

    rows: int
    columns: int
    symbols: Sequence[str]
    box: tuple[int, int] = (0, 0)
    fills: Sequence[str] = ()
    shows_marks: bool = True
    hidden: str = ""
    stride: int = 0
    filled: str = "filled"


class BoardInput(NamedTuple):
    """The way a puzzle is typed into a board as plain data, which the page of ``trm demo`` uses.

    The text of a puzzle has one character a cell, which is `BoardStyle.symbols` of its value.

    format: a sentence about the text of a puzzle.
    blank: the text of the puzzle in which nothing is given.
    example: the text of a puzzle to begin with; None: a generated one.
    keys: what can be typed into a cell, with names; empty: the puzzle is typed as text only.
    empty: the character of a blank cell, where `BoardStyle.symbols` has a space.
    erase: what emptying a cell leaves in it.
    aliases: other spellings of characters.
    ignored: characters of a text that stand for no cell, besides white space.
    single: characters that only one cell may hold; typing one moves it.
    fixed: indices of cells that cannot be typed into.
    by_rows: the text has a line for each row, in which a space is a cell.
    """

    format: str
    blank: str
    example: str | None = None
    keys: Mapping[str, str] = {}
    empty: str = "."
    erase: str = "."
    aliases: Mapping[str, str] = {}
    ignored: str = ""
    single: str = ""
    fixed: Sequence[int] = ()
    by_rows: bool = False


class Symmetry(Protocol):
    """A batch of N invertible changes, one a row, that turn puzzles into puzzles."""

    def apply(self, boards: np.ndarray) -> np.ndarray:
        """Return the images ``[N, seq_len]`` of cell values ``[N, seq_len]`` or ``[seq_len]``."""

    def move(self, numbers: np.ndarray, boards: np.ndarray) -> np.ndarray:
        """Move numbers ``[N, seq_len]`` about the cells of ``boards`` with those cells."""

    def inverse(self) -> "Symmetry":
        """Return the inverses: ``s.inverse().apply(s.apply(boards)) == boards``."""


@dataclass(frozen=True)
class Permutation:
    """N symmetries: each moves the cells of one board and, if it has values, replaces them.

    cells: integers ``[N, seq_len]``; the new board's cell i shows the old board's ``cells[i]``.
    values: ``[N, V]``, what replaces each of V cell values; None where they stay.
    """

    cells: np.ndarray
    values: np.ndarray | None = None

    def apply(self, boards: np.ndarray) -> np.ndarray:
        """Return the images ``[N, seq_len]`` of cell values ``[N, seq_len]`` or ``[seq_len]``."""
        moved = _gather(np.broadcast_to(boards, self.cells.shape), self.cells)
        return moved if self.values is None else _gather(self.values, moved)

    def move(self, numbers: np.ndarray, boards: np.ndarray) -> np.ndarray:
        """Move numbers ``[N, seq_len]`` or ``[seq_len]`` about the cells with those cells."""
        return _gather(np.broadcast_to(numbers, self.cells.shape), self.cells)

    def inverse(self) -> "Permutation":
        """Return the inverses: ``s.inverse().apply(s.apply(boards)) == boards``."""
        values = None if self.values is None else _inverse(self.values)
        return Permutation(_inverse(self.cells), values)


def _gather(tables: np.ndarray, places: np.ndarray) -> np.ndarray:
    """``tables[n, places[n, i]]`` for every n and i, several times faster than this indexing."""
    starts = np.arange(len(tables))[:, None] * tables.shape[1]
    return np.take(tables, starts + places)


def _inverse(permutations: np.ndarray) -> np.ndarray:
    return np.argsort(permutations, axis=1).astype(permutations.dtype)


class Task(Protocol):
    """A kind of puzzle with one board size."""

    name: str
    seq_len: int
    vocab_size: int

    # Text and tokens

    def parse(self, text: str) -> np.ndarray:
        """Return the cell values ``[seq_len]`` of a question.

        Raises:
            InputError: the text is no question; `WrongCells` where that is due to some cells.
        """

    # As `parse`, of a board's plain cells as ``puzzle_text.py`` finds them; None where a task reads
    # its text by itself.
    from_cells: Callable[[str], np.ndarray] | None = None

    @property
    def text_name(self) -> str:
        """The name that `puzzle_text.find_puzzles` looks for; default: `name`.

        A kind alone, such as ``sudoku``, stands for boards of any size.
        """
        return self.name

    def showing(self, rows: int, columns: int) -> "Task":
        """Return this task for a board of which only so much is shown; default: all of it."""
        return self

    def reads(self, other: "Task") -> bool:
        """Return whether questions of ``other`` are this task's too; default: its own only."""
        return self.name == other.name

    def render(self, values: np.ndarray, givens: np.ndarray | None = None) -> str:
        """Return one board ``[seq_len]`` as text; with ``givens``, other cells may be marked.

        The board may be any answer of a model.
        """

    def line(self, values: np.ndarray) -> str:
        """Return one board in one line, as CSV files hold it; default: `render` without spaces."""
        return "".join(self.render(values).split())

    def encode(self, values: np.ndarray) -> np.ndarray:
        """Turn cell values of any shape into uint8 tokens; default: the value plus one."""
        return np.asarray(values, np.uint8) + np.uint8(1)

    def decode(self, tokens: np.ndarray) -> np.ndarray:
        """Turn tokens of any shape into uint8 cell values; default: padding becomes 0."""
        return (np.maximum(tokens, 1) - 1).astype(np.uint8)

    def outside(self, tokens: np.ndarray) -> np.ndarray:
        """Return which tokens ``[..., seq_len]`` of a question are no cells, bool; default: none.

        They are the same in every answer, and their labels need not be counted.
        """
        return np.zeros(np.shape(tokens), bool)

    # Rules

    has_rules = True  # whether `check` can judge an answer; ARC's only its label can

    def generate(self, count: int, rng: np.random.Generator) -> Puzzles:
        """Return ``count`` random puzzles, each of them solvable. Puzzles may repeat."""

    # Options of `generate`, by how hard its puzzles are then, the easiest first.
    levels: Mapping[str, Mapping[str, int | str | Sequence[str]]] = {}

    def check(self, question: np.ndarray, answer: np.ndarray) -> np.ndarray:
        """Return which answers solve their questions by the rules, bool ``[...]``."""

    def count_solutions(self, questions: np.ndarray) -> np.ndarray:
        """Return how many solutions questions ``[N, seq_len]`` have, 2 for several, ``[N]``.

        -1 where a search is given up; default: one each, as `generate` promises.
        """
        return np.ones(len(questions), np.int64)

    def conflicts(self, question: np.ndarray, answer: np.ndarray) -> np.ndarray:
        """Return which cells of an answer break a rule, bool ``[..., seq_len]``; default: none.

        They show where an answer, finished or not, is wrong; `check` decides whether it is right.
        """
        return np.zeros(np.shape(answer), bool)

    # Symmetries and splits

    def relabel(self, questions: np.ndarray, answers: np.ndarray) -> np.ndarray:
        """The answers ``[N, seq_len]``, each right one as the label that `generate` would give.

        Where several answers are right, the image of a label need not be the label of the image;
        unless redefined, there is one right answer, and it stays.
        """
        return answers

    def sample_symmetry(self, rng: np.random.Generator, count: int) -> Symmetry:
        """Draw ``count`` independent symmetries, uniformly; default: the identity."""
        return Permutation(np.tile(np.arange(self.seq_len), (count, 1)))

    def split_keys(self, questions: np.ndarray, answers: np.ndarray) -> list[bytes]:
        """Return a key for each puzzle ``[N, seq_len]``; default: its question.

        Puzzles with equal keys fall on the same side of the split between training and test, so
        a puzzle and its images should share one wherever there are few puzzles.
        """
        return [question.tobytes() for question in questions]

    def image_keys(self, questions: np.ndarray) -> list[bytes]:
        """Return a key for each question ``[N, seq_len]`` that its images under symmetries share.

        Default: the question, as if there were no symmetries.
        """
        return [question.tobytes() for question in questions]

    def are_images(self, questions: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Return which questions of equal `image_keys` are images of the others, bool ``[N]``.

        Default: all, as where a key is an image itself.
        """
        return np.ones(len(questions), bool)

    def subsets(self, questions: np.ndarray) -> dict[str, np.ndarray]:
        """Return the rows of questions ``[N, seq_len]`` that are evaluated apart, by a name.

        They are the sets of a test split; default: all of them, as ``all``.
        """
        return {"all": np.arange(len(questions))}

    # The board on a screen

    def board_style(self, boards: np.ndarray) -> BoardStyle:
        """Return the look of boards ``[N, seq_len]`` of cell values, which are shown together.

        Default: rows as `render` has them, or else a square or one row; symbols as `line` has
        them, or else the cell values as numbers.
        """
        blank = np.zeros(self.seq_len, np.uint8)
        rows, side = len(self.render(blank).splitlines()), math.isqrt(self.seq_len)
        if not rows or self.seq_len % rows:  # a decorated board
            rows = side if side**2 == self.seq_len else 1
        values = range(int(self.decode(np.arange(self.vocab_size)).max()) + 1)
        lines = [self.line(blank + np.uint8(value)) for value in values]
        plain = all(len(line) == self.seq_len and len(set(line)) == 1 for line in lines)
        symbols = [line[0].replace(".", " ") for line in lines] if plain else list(map(str, values))
        return BoardStyle(rows, self.seq_len // rows, symbols)

    def board_input(self) -> BoardInput:
        """Return how a puzzle is typed; default: any symbol of `board_style` into any cell."""
        blank = np.zeros(self.seq_len, np.uint8)
        symbols = [symbol.replace(" ", ".") for symbol in self.board_style(blank[None]).symbols]
        empty = "." if "." in symbols else symbols[0]
        typed = max(map(len, symbols)) == 1  # a key a cell
        cells = f"{self.seq_len} cells, row by row: {' '.join(symbols)}"
        return BoardInput(
            cells if typed else f"A puzzle of {self.name} as text.",
            self.line(blank),
            keys={s: "blank" if s == "." else s for s in symbols} if typed else {},
            empty=empty,
            erase=empty,
        )
