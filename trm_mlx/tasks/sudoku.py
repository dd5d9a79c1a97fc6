"""Sudoku on 4x4, 6x6 and 9x9 boards: text, tokens, symmetries, checking, solving, generating.

A board is a uint8 array of *cell values* in reading order, 0 for a blank and 1..size for a digit;
a leading axis makes it a batch. A model reads *tokens*: 0 is padding, 1 a blank, digit d is d + 1.
Tokens and symmetries are those of the published Sudoku-Extreme builder (``dataset/
build_sudoku_dataset.py`` of HRM and TRM). The search is in ``sudoku_solver.py``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from trm_mlx.errors import InputError
from trm_mlx.tasks import puzzle_text, sudoku_solver
from trm_mlx.tasks.base import BoardInput, BoardStyle, Permutation, Puzzles, Task, WrongCells
from trm_mlx.tasks.puzzle_cells import BLANKS, BOX_ROWS

GRID_COUNT = {4: 288, 6: 28_200_960}  # solved grids there are; 9x9 has 6.7e21
PATIENCE = 200_000  # dead ends before `count_solutions` gives up, about a second
TRIES = 10_000  # failures in a row before `generate` gives up
_BLANKS = list("".join(BLANKS - {"?"}).encode())
EXAMPLES = {
    4: "...2.1..3.....2.",
    6: ".5..2.4.2..1......3....2....6.5..4..",
    9: "..4.9..2..5.6......7.2...9...64......9..5.2..7....1.8.2......43.3....5.......8.7.",
}


# Found by search, and hard for ``sudoku-9x9``; it was trained on neither them nor their solutions.
HARDEST = (
    "..4.9.....5.6.....3....2..1..64......9..5....7....1.8.2.......3......5.......8472",
    "..4.9.....5.6.....3....2..1..64......9..5....7....1.8.2.......3......51......8.72",
    "..3..85...7.....9.2.......1....834....645............61..7...6...5..43...9.....2.",
    "...9....6..1..5.7....8..3......4.....17..3...853....4.........9..8..7.5.6...1.2..",
)
LEVELS = {
    "easy": {"extra_givens": 12},
    "hard": {"min_rating": 30},
    "hardest": {"images_of": HARDEST},
}


@dataclass(frozen=True)
class Sudoku(Task):
    """Sudoku on a board of ``size`` x ``size`` cells.

    Raises:
        InputError: ``size`` is not 4, 6 or 9.
    """

    size: int = 9

    def __post_init__(self) -> None:
        if self.size not in BOX_ROWS:
            raise InputError(f"no Sudoku of size {self.size}; use 4, 6 or 9")

    @property
    def name(self) -> str:
        return f"sudoku{self.size}x{self.size}"

    @property
    def box_rows(self) -> int:
        return BOX_ROWS[self.size]

    @property
    def box_columns(self) -> int:
        return self.size // self.box_rows

    @property
    def levels(self) -> Mapping[str, Mapping[str, int | Sequence[str]]]:
        """Return levels by what guessing has to undo; small boards have none."""
        return LEVELS if self.size == 9 else {}

    @property
    def seq_len(self) -> int:
        return self.size**2

    @property
    def vocab_size(self) -> int:
        return self.size + 2

    @cached_property
    def units(self) -> np.ndarray:
        """The cells of every row, column and box, uint8 ``[3 * size, size]``."""
        rows = np.arange(self.seq_len, dtype=np.uint8).reshape(self.size, self.size)
        boxes = rows.reshape(self.box_columns, self.box_rows, self.box_rows, self.box_columns)
        boxes = boxes.swapaxes(1, 2).reshape(self.size, self.size)
        return np.concatenate([rows, rows.T, boxes])

    @cached_property
    def peers(self) -> np.ndarray:
        """The cells that share a unit with each cell, uint8 ``[seq_len, 20 on a 9x9 board]``."""
        together = np.zeros((self.seq_len, self.seq_len), bool)
        for unit in self.units:
            together[np.ix_(unit, unit)] = True
        np.fill_diagonal(together, False)
        return np.nonzero(together)[1].reshape(self.seq_len, -1).astype(np.uint8)

    # Text

    def parse(self, text: str) -> np.ndarray:
        """Read a board in any spelling that ``docs/solving.md`` lists.

        Returns:
            Cell values, uint8 ``[seq_len]``.

        Raises:
            InputError: it is none, a digit is too large, or givens contradict each other.
        """
        return self.from_cells(puzzle_text.cells_of(text, self.name))

    def from_cells(self, cells: str) -> np.ndarray:
        """Return the cell values of a board with a digit a cell, 0 for a blank; errors as above."""
        values = np.array([int(cell) for cell in cells], np.uint8)
        too_large = np.flatnonzero(values > self.size)
        for cell in too_large:
            raise WrongCells(
                f"digit {values[cell]} at {self._place(cell)} does not fit a "
                f"{self.size}x{self.size} Sudoku; use 1 to {self.size}",
                too_large,
            )
        twice = np.flatnonzero(self.violations(values))
        for cell in twice:
            other = next(peer for peer in self.peers[cell] if values[peer] == values[cell])
            raise WrongCells(
                f"{self._place(cell)} and {self._place(other)} both hold {values[cell]}; "
                "change or blank one of them",
                twice,
            )
        return values

    def parse_batch(self, strings: Sequence[str]) -> np.ndarray:
        """Read many boards, uint8 ``[N, seq_len]``; fast where they are undecorated.

        Raises:
            InputError: as of `parse`, with the index of the first bad string, from 0.
        """
        unreadable = "?" * self.seq_len  # in place of strings of another length
        readable = [
            text if len(text) == self.seq_len else unreadable for text in map(str.strip, strings)
        ]
        symbols = np.frombuffer("".join(readable).encode("ascii", "replace"), np.uint8)
        symbols = symbols.reshape(-1, self.seq_len)
        values = symbols - np.uint8(ord("0"))  # what is below "0" wraps round to large values
        values[np.isin(symbols, _BLANKS)] = 0
        bad = (values > self.size).any(axis=1) | self.violations(values).any(axis=1)
        for row in np.flatnonzero(bad):  # decorated, or wrong in a way that `parse` can name
            try:
                values[row] = self.parse(strings[row])
            except InputError as error:
                raise InputError(f"row {row}: {error}") from None
        return values

    def line(self, values: np.ndarray) -> str:
        """Return one board in one line: a digit a cell, 0 for a blank."""
        return "".join(map(str, np.asarray(values).tolist()))

    def render(self, values: np.ndarray, givens: np.ndarray | None = None) -> str:
        """Return one board as text; with ``givens``, digits that are not given have a ``+``."""
        values = np.asarray(values).reshape(self.size, self.size)
        givens = values if givens is None else np.asarray(givens).reshape(self.size, self.size)
        added = (values > 0) & (values != givens)
        rule = "+".join(["-" * (2 * self.box_columns + 1)] * self.box_rows)
        lines = []
        for row in range(self.size):
            if row and row % self.box_rows == 0:
                lines.append(rule)
            cells = [
                ("+" if is_added else " ") + (str(value) if value else ".")
                for value, is_added in zip(values[row], added[row], strict=True)
            ]
            width = self.box_columns
            boxes = ["".join(cells[start : start + width]) for start in range(0, self.size, width)]
            lines.append(" |".join(boxes))
        return "\n".join(lines)

    # Rules

    def violations(self, values: np.ndarray) -> np.ndarray:
        """Return which filled cells repeat in their row, column or box, bool ``[..., seq_len]``."""
        values = np.asarray(values)
        repeated = np.zeros(values.shape, bool)
        for peer in self.peers.T:
            repeated |= values == values[..., peer]
        return repeated & (values > 0)

    def check(self, question: np.ndarray, answer: np.ndarray) -> np.ndarray:
        """Return which answers are complete, valid and keep the givens, bool ``[...]``."""
        question, answer = np.asarray(question), np.asarray(answer)
        filled = (answer >= 1) & (answer <= self.size)
        kept = (question == 0) | (question == answer)
        return (filled & kept & ~self.violations(answer)).all(axis=-1)

    def conflicts(self, question: np.ndarray, answer: np.ndarray) -> np.ndarray:
        """Return which digits repeat in their row, column or box, or replace a given."""
        question, answer = np.asarray(question), np.asarray(answer)
        return self.violations(answer) | ((question > 0) & (question != answer))

    # Symmetries and splits

    def sample_symmetry(self, rng: np.random.Generator, count: int) -> Permutation:
        """Draw ``count`` independent symmetries, uniformly from the published builder's group.

        Digits are permuted, blanks stay; bands, and rows inside a band, are permuted; so are stacks
        and columns; the board is transposed with probability 1/2 where its boxes are square.
        """
        digits = np.zeros((count, self.size + 1), np.uint8)
        digits[:, 1:] = _permutations(rng, (count, self.size)) + 1
        rows = _line_permutations(rng, count, self.box_columns, self.box_rows)[:, :, None]
        columns = _line_permutations(rng, count, self.box_rows, self.box_columns)[:, None, :]
        cells = rows * np.uint8(self.size) + columns
        if self.box_rows == self.box_columns:
            transposed = rng.random(count) < 0.5
            flipped = columns * np.uint8(self.size) + rows
            cells = np.where(transposed[:, None, None], flipped, cells)
        return Permutation(cells.reshape(count, self.seq_len), digits)

    def split_keys(self, questions: np.ndarray, answers: np.ndarray) -> list[bytes]:
        """Return the solutions: puzzles dug from one grid belong together."""
        return [answer.tobytes() for answer in answers]

    def image_keys(self, questions: np.ndarray) -> list[bytes]:
        """An invariant of the images, which others may share by chance: see `are_images`."""
        from trm_mlx.tasks import sudoku_images

        numbers = sudoku_images.keys(questions, self.size, (self.box_rows, self.box_columns))
        return [number.tobytes() for number in numbers]

    def are_images(self, questions: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Which questions ``[N, seq_len]`` are images of the others, bool ``[N]``, exactly."""
        from trm_mlx.tasks import sudoku_images

        box = self.box_rows, self.box_columns
        return sudoku_images.are_images(questions, others, self.size, box)

    # The board on a screen

    def board_style(self, boards: np.ndarray) -> BoardStyle:
        """Return digits in boxes, coloured by their marks."""
        symbols = " 123456789"[: self.size + 1]
        return BoardStyle(self.size, self.size, symbols, box=(self.box_rows, self.box_columns))

    def board_input(self) -> BoardInput:
        """Return how a Sudoku is typed: digits, and ``.`` or ``0`` for a blank."""
        digits = "123456789"[: self.size]
        return BoardInput(
            f"{self.seq_len} cells, row by row: 1 to {self.size}, and . or 0 for a blank.",
            "." * self.seq_len,
            EXAMPLES[self.size],
            keys={**dict(zip(digits, digits, strict=True)), ".": "blank"},
            aliases={"0": "."},
            ignored="|-+",
        )

    # Search

    def solve(self, questions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Solve and rate questions ``[N, seq_len]``.

        The same questions give the same result. Where one has several solutions, which of them is
        found first, and its rating, also depend on its index among the questions.

        Returns:
            counts ``[N]``: solutions, 0, 1, or 2 for more than one.
            answers ``[N, seq_len]``: a solution, blank where there is none.
            ratings ``[N]``: 0 where singles suffice, more for harder ones, see
                ``sudoku_solver.py``.
        """
        questions = self._boards(questions, "question")
        return sudoku_solver.solve_batch(
            questions, np.random.default_rng(0), self.units, self.peers
        )

    def count_solutions(self, questions: np.ndarray) -> np.ndarray:
        """Return how many solutions questions ``[N, seq_len]`` have, int64 ``[N]``.

        2 stands for more than one, -1 for a search that was given up after ``PATIENCE`` dead ends.
        """
        questions = self._boards(questions, "question")
        rng = np.random.default_rng(0)
        return sudoku_solver.count_batch(questions, PATIENCE, rng, self.units, self.peers)

    def all_grids(self) -> np.ndarray:
        """Return all 288 solved 4x4 grids, uint8 ``[288, 16]``, sorted.

        Raises:
            InputError: the board is larger.
        """
        if self.size != 4:
            raise InputError(f"too many {self.name} grids to list; draw some with random_grids")
        grids = self._fill(GRID_COUNT[4] + 1, np.random.default_rng(0))
        return grids[np.lexsort(grids.T[::-1])]

    def random_grids(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Draw ``count`` distinct solved grids, uint8 ``[count, seq_len]``.

        Every grid can come up, for 6x6 and 9x9 not all equally often.

        Raises:
            InputError: there are fewer grids.
        """
        if count > GRID_COUNT.get(self.size, count):
            raise InputError(
                f"{count} {self.name} grids wanted, but there are "
                f"{GRID_COUNT[self.size]}; ask for fewer"
            )
        if self.size == 4:
            return rng.permutation(self.all_grids())[:count]
        grids = {}  # ordered, so that the same rng gives the same grids
        while len(grids) < count:
            grids[self._fill(1, rng).tobytes()] = True
        return np.frombuffer(b"".join(grids), np.uint8).reshape(-1, self.seq_len).copy()

    def generate(
        self,
        count: int,
        rng: np.random.Generator,
        grids: np.ndarray | None = None,
        min_rating: int = 0,
        extra_givens: int = 0,
        images_of: Sequence[str] = (),
    ) -> Puzzles:
        """Return ``count`` puzzles with exactly one solution each.

        Args:
            grids: solved grids ``[M, seq_len]`` to dig the puzzles from, in turns; None: random
                ones. No test solution is trained on where training and test grids differ.
            min_rating: wrong guesses that a puzzle needs at least.
            extra_givens: fill in 0 to this many cells of a minimal puzzle again, at random.
            images_of: puzzles of which to draw images instead, which are other puzzles to a model.

        Raises:
            InputError: the grids are unusable, or 10,000 tries in a row give no puzzle of
                ``min_rating``.
        """
        if images_of:
            return self._images(images_of, count, rng)
        if grids is None:
            grids = self.all_grids() if self.size == 4 else self.random_grids(count, rng)
        grids = self._boards(grids, "grid")
        for row in np.flatnonzero(~self.check(np.zeros_like(grids), grids)):
            raise InputError(f"grid {row} is not a solved {self.name}; pass solved grids only")
        if count > 0 and len(grids) == 0:
            raise InputError(f"grids is empty, {count} puzzles wanted; pass at least one grid")
        questions, answers, ratings = sudoku_solver.dig_batch(
            count, grids, min_rating, extra_givens, TRIES, rng, self.units, self.peers
        )
        if len(questions) < count:
            raise InputError(
                f"no {self.name} puzzle rated {min_rating} or more in {TRIES} tries; "
                "ask for easier ones, or fewer extra givens"
            )
        return Puzzles(questions, answers, ratings)

    def _images(self, texts: Sequence[str], count: int, rng: np.random.Generator) -> Puzzles:
        """Draw ``count`` random images of puzzles that have one solution each."""
        questions = self.parse_batch(texts)
        _, answers, ratings = self.solve(questions)
        rows, symmetry = rng.integers(len(texts), size=count), self.sample_symmetry(rng, count)
        return Puzzles(
            symmetry.apply(questions[rows]), symmetry.apply(answers[rows]), ratings[rows]
        )

    def _boards(self, boards: np.ndarray, noun: str) -> np.ndarray:
        """Check cell values ``[N, seq_len]`` and copy them to uint8."""
        boards = np.asarray(boards)
        if boards.ndim != 2 or boards.shape[1] != self.seq_len:
            raise InputError(
                f"{noun}s of shape {boards.shape} are no {self.name} boards; "
                f"pass cell values [N, {self.seq_len}]"
            )
        for row in np.flatnonzero(((boards < 0) | (boards > self.size)).any(axis=1)):
            raise InputError(f"{noun} {row} has a cell outside 0..{self.size}; decode tokens first")
        # Always a writable copy: numba would compile the search once more for read-only arrays.
        return np.array(boards, np.uint8, order="C")

    def _fill(self, limit: int, rng: np.random.Generator) -> np.ndarray:
        """Return up to ``limit`` solved grids, found in random order by one search."""
        blank = np.zeros(self.seq_len, np.uint8)
        return sudoku_solver.solutions_of(blank, limit, rng, self.units, self.peers)

    def _place(self, cell: int) -> str:
        """The name of a cell in messages: r1c5 is the fifth cell of the top row."""
        return f"r{cell // self.size + 1}c{cell % self.size + 1}"


def _permutations(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Random permutations of 0..n-1 along the last axis of ``shape``, uint8."""
    return rng.random(shape).argsort(axis=-1).astype(np.uint8)


def _line_permutations(rng: np.random.Generator, count: int, bands: int, lines: int) -> np.ndarray:
    """Permutations of ``bands`` bands of ``lines`` lines each, ``[count, bands * lines]``."""
    band = _permutations(rng, (count, bands))[:, :, None]
    line = _permutations(rng, (count, bands, lines))
    return (band * np.uint8(lines) + line).reshape(count, bands * lines)
