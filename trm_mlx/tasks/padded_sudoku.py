"""Sudoku of several sizes on one padded board, as nano-trm has them (github.com/olivkoch/nano-trm).

A board of 4x4, 6x6 or 9x9 cells lies at the top left of ``side`` x ``side`` positions. Tokens are
those of its ``pad_and_encode``: 0 outside of the board, 1 for its end, in the first column of the
row below it where there is one, 2 for a blank, digit d is d + 2. Labels outside are not counted.
Cell values are those of ``sudoku.py``; two more stand for the end and for what is outside.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np

from trm_mlx.errors import InputError
from trm_mlx.tasks import puzzle_text
from trm_mlx.tasks.base import BoardInput, BoardStyle, Permutation, Puzzles, Task, WrongCells
from trm_mlx.tasks.puzzle_cells import BOX_ROWS, SIDE_OF
from trm_mlx.tasks.sudoku import EXAMPLES, Sudoku

PAD, END, FIRST = 0, 1, 2  # tokens; FIRST is that of a blank
MOST = 29  # positions a side; 30 are an ARC canvas
Size = TypeVar("Size")


@dataclass(frozen=True)
class PaddedSudoku(Task):
    """Sudoku of all sizes up to ``digits``, at the top left of ``side`` x ``side`` positions.

    Raises:
        InputError: ``digits`` is not 4, 6 or 9, or ``side`` is smaller or above 29.
    """

    digits: int
    side: int

    def __post_init__(self) -> None:
        Sudoku(self.digits)
        if not self.digits <= self.side <= MOST:
            raise InputError(
                f"max_grid_size={self.side}: a {self.digits}x{self.digits} Sudoku is padded to "
                f"{self.digits} to {MOST} rows and columns"
            )

    @property
    def name(self) -> str:
        return f"sudoku{self.digits}in{self.side}"

    text_name = "sudoku"

    @property
    def seq_len(self) -> int:
        return self.side**2

    @property
    def vocab_size(self) -> int:
        return self.digits + 1 + FIRST

    @cached_property
    def boards(self) -> Mapping[int, Sudoku]:
        """The tasks of the boards, by size."""
        return {size: Sudoku(size) for size in BOX_ROWS if size <= self.digits}

    def sizes(self, values: np.ndarray) -> np.ndarray:
        """Return the size of each board ``[..., seq_len]``, int64 ``[...]``.

        Of what is no board, such as a model's answer outside of its question, it is any of them.
        """
        column = np.asarray(values)[..., :: self.side]
        rows = np.logical_and.accumulate(column <= self.digits, axis=-1).sum(axis=-1)
        known = np.array([*self.boards])
        return known[np.maximum(np.searchsorted(known, rows, side="right") - 1, 0)]

    def pad(self, boards: np.ndarray) -> np.ndarray:
        """Return boards ``[..., size * size]`` of one size as ``[..., seq_len]``."""
        size = SIDE_OF[boards.shape[-1]]
        padded = np.full((*boards.shape[:-1], self.side, self.side), self._outside, np.uint8)
        if size < self.side:
            padded[..., size, 0] = self._end
        padded[..., :size, :size] = boards.reshape(*boards.shape[:-1], size, size)
        return padded.reshape(*boards.shape[:-1], self.seq_len)

    def pad_puzzles(self, puzzles: Puzzles) -> Puzzles:
        """Return puzzles of one size as those of this task."""
        return Puzzles(self.pad(puzzles.questions), self.pad(puzzles.answers), puzzles.ratings)

    # Text and tokens

    def parse(self, text: str) -> np.ndarray:
        """Read a board of any of the sizes; errors as of `Sudoku.parse`."""
        return self.from_cells(puzzle_text.cells_of(text, self.text_name))

    def from_cells(self, cells: str) -> np.ndarray:
        """Return the cell values of a board with a digit a cell, 0 for a blank."""
        board = self.boards.get(SIDE_OF.get(len(cells), 0))
        if board is None:
            sizes = ", ".join(f"{size}x{size}" for size in self.boards)
            raise InputError(f"a board of {len(cells)} cells, where {self.name} has {sizes}")
        try:
            return self.pad(board.from_cells(cells))
        except WrongCells as error:
            raise WrongCells(str(error), self._cells(board.size)[[*error.cells]]) from None

    def reads(self, other: Task) -> bool:
        """Return whether the other task is one of the boards', or this one."""
        return other == self or other in self.boards.values()

    def line(self, values: np.ndarray) -> str:
        """Return one board in one line: a digit a cell, 0 for a blank."""
        board, values = self._cropped(values, values)
        return board.line(values)

    def render(self, values: np.ndarray, givens: np.ndarray | None = None) -> str:
        """Return one board, of the size of its givens; digits that are not given have a ``+``."""
        givens = values if givens is None else givens
        board, values = self._cropped(givens, values)
        return board.render(values, self._cropped(givens, givens)[1])

    def encode(self, values: np.ndarray) -> np.ndarray:
        """Turn cell values of any shape into uint8 tokens."""
        return np.array([*range(FIRST, self.vocab_size), END, PAD], np.uint8)[values]

    def decode(self, tokens: np.ndarray) -> np.ndarray:
        """Turn tokens of any shape into uint8 cell values; what is ignored is outside."""
        values = np.array([self._outside, self._end, *range(self.digits + 1)], np.uint8)
        return values[np.maximum(tokens, PAD)]

    def outside(self, tokens: np.ndarray) -> np.ndarray:
        """Return what is padding, or the end."""
        return np.asarray(tokens) < FIRST

    # Rules

    def generate(
        self,
        count: int,
        rng: np.random.Generator,
        sizes: int | str | None = None,
        min_rating: int = 0,
        extra_givens: int = 0,
    ) -> Puzzles:
        """Return ``count`` puzzles with one solution each, in random order.

        Args:
            sizes: of the boards, equally many of each, such as ``4+6``; None: all of them.
            min_rating, extra_givens: see `Sudoku.generate`.

        Raises:
            InputError: a size that the task has not; or as `Sudoku.generate`.
        """
        known = {str(size): board for size, board in self.boards.items()}
        chosen = [*known] if sizes is None else str(sizes).split("+")
        options = {"min_rating": min_rating, "extra_givens": extra_givens}
        found = []
        for size, share in shares(count, chosen):
            if size not in known:
                raise InputError(f"sizes={sizes}: {self.name} has the sizes {'+'.join(known)}")
            found.append(self.pad_puzzles(known[size].generate(share, rng, **options)))
        every = Puzzles(*map(np.concatenate, zip(*found, strict=True)))
        return every.take(rng.permutation(count))

    def check(self, question: np.ndarray, answer: np.ndarray) -> np.ndarray:
        """Return which answers are complete, valid and keep the givens, bool ``[...]``."""
        question, answer = np.broadcast_arrays(question, answer)
        return self._of_boards("check", question, answer, dtype=bool)

    def conflicts(self, question: np.ndarray, answer: np.ndarray) -> np.ndarray:
        """Return which digits repeat in their row, column or box, or replace a given."""
        question, answer = np.broadcast_arrays(question, answer)
        found = np.zeros(question.shape, bool)
        for board, rows, cells in self._by_size(question):
            inside = np.zeros((int(rows.sum()), self.seq_len), bool)
            inside[:, cells] = board.conflicts(question[rows][..., cells], answer[rows][..., cells])
            found[rows] = inside
        return found

    def count_solutions(self, questions: np.ndarray) -> np.ndarray:
        """Return how many solutions questions have, see `Sudoku.count_solutions`."""
        return self._of_boards("count_solutions", questions, dtype=np.int64)

    # Symmetries and splits

    def sample_symmetry(self, rng: np.random.Generator, count: int) -> "PaddedSymmetry":
        """Draw ``count`` independent symmetries of the board, whatever its size is."""
        sampled = {size: board.sample_symmetry(rng, count) for size, board in self.boards.items()}
        return PaddedSymmetry(self, {size: self._lifted(size, p) for size, p in sampled.items()})

    def split_keys(self, questions: np.ndarray, answers: np.ndarray) -> list[bytes]:
        """Return those of the boards, so that padding changes no split."""
        return self._of_boards("split_keys", questions, answers, dtype=object).tolist()

    def image_keys(self, questions: np.ndarray) -> list[bytes]:
        """Return those of the boards."""
        return self._of_boards("image_keys", questions, dtype=object).tolist()

    def are_images(self, questions: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Return which boards are images of the others, bool ``[N]``."""
        found = np.zeros(len(questions), bool)
        same = self.sizes(questions) == self.sizes(others)
        for board, rows, cells in self._by_size(questions):
            rows = rows & same
            found[rows] = board.are_images(questions[rows][:, cells], others[rows][:, cells])
        return found

    def subsets(self, questions: np.ndarray) -> dict[str, np.ndarray]:
        """Return the rows of each size, where there are several."""
        found = {
            f"{board.size}x{board.size}": np.flatnonzero(rows)
            for board, rows, _ in self._by_size(questions)
        }
        return found if len(found) > 1 else super().subsets(questions)

    # The board on a screen

    def board_style(self, boards: np.ndarray) -> BoardStyle:
        """Return the largest of the boards, with the boxes of all where they are of one size."""
        sizes = self.sizes(boards)
        size = int(sizes.max())
        board = self.boards[size]
        box = (board.box_rows, board.box_columns) if (sizes == size).all() else (0, 0)
        symbols = " 123456789"[: self.digits + 1] + "  "
        return BoardStyle(size, size, symbols, box=box, stride=self.side)

    def board_input(self) -> BoardInput:
        """Return how a Sudoku is typed: as text."""
        sizes = " or ".join(f"{size}x{size}" for size in self.boards)
        blank = "." * self.digits**2
        return BoardInput(f"A Sudoku of {sizes}, row by row.", blank, EXAMPLES[self.digits])

    # Boards of one size

    @property
    def _end(self) -> int:
        return self.digits + 1

    @property
    def _outside(self) -> int:
        return self.digits + 2

    def _cells(self, size: int) -> np.ndarray:
        """The positions of a board's cells."""
        return np.arange(self.seq_len).reshape(self.side, self.side)[:size, :size].ravel()

    def _cropped(self, question: np.ndarray, values: np.ndarray) -> tuple[Sudoku, np.ndarray]:
        """The task of one question's board, and that part of ``values``, blank where it is none."""
        size = int(self.sizes(question))
        cropped = np.asarray(values)[self._cells(size)]
        return self.boards[size], np.where(cropped > self.digits, 0, cropped)

    def _by_size(self, values: np.ndarray) -> Iterator[tuple[Sudoku, np.ndarray, np.ndarray]]:
        """The sizes among boards ``[..., seq_len]``: task, which boards, positions of the cells."""
        sizes = self.sizes(values)
        for size, board in self.boards.items():
            if (rows := np.asarray(sizes == size)).any():
                yield board, rows, self._cells(size)

    def _of_boards(self, method: str, *arrays: np.ndarray, dtype: type) -> np.ndarray:
        """What a method of the boards says of each of ``arrays [..., seq_len]``, ``[...]``."""
        found = np.zeros(arrays[0].shape[:-1], dtype)
        for board, rows, cells in self._by_size(arrays[0]):
            found[rows] = getattr(board, method)(*(array[rows][..., cells] for array in arrays))
        return found

    def _lifted(self, size: int, permutation: Permutation) -> Permutation:
        """A permutation of one size's boards as one of this task's."""
        count, cells = len(permutation.cells), self._cells(size)
        lifted = np.tile(np.arange(self.seq_len), (count, 1))
        lifted[:, cells] = cells[permutation.cells]
        values = np.tile(np.arange(self._outside + 1, dtype=np.uint8), (count, 1))
        values[:, : size + 1] = permutation.values
        return Permutation(lifted, values)


def shares(count: int, sizes: Sequence[Size]) -> Iterator[tuple[Size, int]]:
    """Yield the sizes, each with its equal share of ``count`` puzzles; the first take the rest."""
    for number, size in enumerate(sizes):
        yield size, len(range(number, count, len(sizes)))


@dataclass(frozen=True)
class PaddedSymmetry:
    """N symmetries for each size, of which that of a board's own size applies to it."""

    task: PaddedSudoku
    by_size: Mapping[int, Permutation]

    def apply(self, boards: np.ndarray) -> np.ndarray:
        """Return the images ``[N, seq_len]`` of cell values ``[N, seq_len]`` or ``[seq_len]``."""
        return self._moved(boards, lambda permutation: permutation.apply(boards))

    def move(self, numbers: np.ndarray, boards: np.ndarray) -> np.ndarray:
        """Move numbers ``[N, seq_len]`` about the cells of ``boards`` with those cells."""
        return self._moved(boards, lambda permutation: permutation.move(numbers, boards))

    def inverse(self) -> "PaddedSymmetry":
        """Return the inverses."""
        inverses = {size: permutation.inverse() for size, permutation in self.by_size.items()}
        return PaddedSymmetry(self.task, inverses)

    def _moved(self, boards, move) -> np.ndarray:
        sizes = self.task.sizes(boards)[..., None]
        images = [(size, move(permutation)) for size, permutation in self.by_size.items()]
        moved = images[0][1]
        for size, image in images[1:]:
            moved = np.where(sizes == size, image, moved)
        return moved
