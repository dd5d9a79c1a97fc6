"""Mazes on a square board: the way from S to G through the open cells, as short as can be.

A board's cell values are the places in ``CHARSET``, that of the published Maze-Hard builder
(``dataset/build_maze_dataset.py`` of HRM and TRM): wall, open, start, goal, path. A model reads
tokens, one more; 0 is padding. The answer is the question with one shortest path marked ``o``; any
shortest path is right. The search itself is in ``maze_search.py``, imported only where needed.
"""

import math
from dataclasses import dataclass

import numpy as np

from trm_mlx.errors import InputError, shortened
from trm_mlx.tasks.base import Puzzles, Task, WrongCells
from trm_mlx.tasks.rearrangement import Rearrangement

CHARSET = "# SGo"
WALL, OPEN, START, GOAL, PATH = range(len(CHARSET))
# Random walls; one path between any two cells; what models are trained on, see maze_mixture.py.
KINDS = ("walls", "tree", "mixed")
SIDES = range(5, 100)  # a 4x4 maze would look like a 4x4 Sudoku to `fitting`
TRIES = 100_000  # mazes made in vain, in a row, before `generate` gives up

_VALUES = np.full(256, 255, np.uint8)  # by character
_VALUES[list(CHARSET.encode())] = range(len(CHARSET))
_VALUES[ord(".")] = OPEN  # as `render` shows it, since spaces at the end of a line get lost


@dataclass(frozen=True)
class Maze(Task):
    """The maze task on a board of `side` x `side` cells. Raises InputError unless 5 to 99."""

    side: int = 30

    def __post_init__(self) -> None:
        if self.side not in SIDES:
            raise InputError(
                f"no maze of side {shortened(self.side)}; use {SIDES.start} to {SIDES[-1]}"
            )

    vocab_size = len(CHARSET) + 1

    @property
    def name(self) -> str:
        return f"maze{self.side}x{self.side}"

    @property
    def seq_len(self) -> int:
        return self.side**2

    # Text

    def parse(self, text: str) -> np.ndarray:
        """Read a question: ``#`` wall, space or ``.`` open, one ``S``, one ``G``; lines or one.

        Raises:
            InputError: another character or size, rows of unequal length, not one S and one G, or
                no way between them.
        """
        values = self.parse_board(text)
        if PATH in values:
            raise WrongCells(
                f"o at {self._place(values, PATH)} marks an answer: leave it open",
                np.flatnonzero(values == PATH),
            )
        for symbol, value in (("S", START), ("G", GOAL)):
            cells = np.flatnonzero(values == value)
            if len(cells) != 1:
                raise WrongCells(f"{len(cells)} cells hold {symbol}; a maze has exactly one", cells)
        if self.distances(values[None])[0] < 0:
            ends = np.flatnonzero(np.isin(values, (START, GOAL)))
            raise WrongCells("there is no way from S to G; open some walls", ends)
        return values

    def parse_board(self, text: str) -> np.ndarray:
        """Read a question or an answer without asking whether it makes sense."""
        rows = text.strip("\r\n").splitlines() or [""]
        if len(rows) > 1:
            for number, row in enumerate(rows, start=1):
                if len(row) != len(rows[0]):
                    raise WrongCells(
                        f"row {number} has {len(row)} cells, row 1 has {len(rows[0])}: make them "
                        "equal, open cells as . or space",
                        [self._end_of(row, number - 1)],
                    )
        cells = "".join(rows)
        if len(cells) != self.seq_len or len(rows) not in (1, self.side):
            whole = len(rows) == 1 or len(rows[0]) == self.side  # rows, if any
            raise WrongCells(
                f"{len(cells)} cells in {len(rows)} rows where a {self.side}x{self.side} maze has "
                f"{self.seq_len}; write every cell",
                [min(len(cells), self.seq_len - 1) if whole else self._end_of(rows[0], 0)],
            )
        values = _VALUES[np.frombuffer(cells.encode("latin-1", "replace"), np.uint8)]
        for cell in np.flatnonzero(values == 255):
            raise InputError(
                f"character {cells[cell]!r} at r{cell // self.side + 1}c{cell % self.side + 1} is "
                "no maze cell; use # . S G, and o for an answer's path"
            )
        return values

    def render(self, values: np.ndarray, givens: np.ndarray | None = None) -> str:
        """The rows of a board, open cells as ``.``; an answer's path shows as ``o``."""
        symbols = np.array(list(CHARSET.replace(" ", ".")))[np.asarray(values)]
        return "\n".join("".join(row) for row in symbols.reshape(self.side, self.side))

    # Rules

    def check(self, question: np.ndarray, answer: np.ndarray) -> np.ndarray:
        """Whether `answer` marks a shortest path of `question`: ``[..., seq_len]`` to ``[...]``.

        Every shortest path is right; a cell beside it that is marked, or a given changed, is wrong.
        """
        question, answer = np.broadcast_arrays(question, answer)
        questions = question.reshape(-1, self.seq_len)
        answers = answer.reshape(-1, self.seq_len)
        marked = answers == PATH
        kept = ((answers == questions) | (marked & (questions == OPEN))).all(axis=1)
        marked_only = np.where((answers == OPEN), WALL, answers)
        shortest = self.distances(questions)
        # As many marks as a shortest path has, and a path through marks alone: all are on it.
        right = (
            kept
            & (shortest > 0)
            & (marked.sum(axis=1) == shortest - 1)
            & (self.distances(np.where(kept[:, None], marked_only, questions)) == shortest)
        )
        return right.reshape(question.shape[:-1])

    def conflicts(self, question: np.ndarray, answer: np.ndarray) -> np.ndarray:
        """Where a given is changed, or a mark has not two neighbours among marks, S and G.

        On a shortest path every mark has two: with more there would be a shorter way.
        """
        question, answer = np.broadcast_arrays(question, answer)
        marked = answer == PATH
        boards = np.isin(answer, (PATH, START, GOAL)).reshape(-1, self.side, self.side)
        padded = np.pad(boards, ((0, 0), (1, 1), (1, 1))).astype(np.uint8)
        neighbours = (
            padded[:, :-2, 1:-1] + padded[:, 2:, 1:-1] + padded[:, 1:-1, :-2] + padded[:, 1:-1, 2:]
        ).reshape(answer.shape)
        changed = (answer != question) & ~(marked & (question == OPEN))
        return changed | (marked & (neighbours != 2))

    def distances(self, boards: np.ndarray) -> np.ndarray:
        """Steps of a shortest path from S to G ``[N]``, -1 where none leads; boards ``[N, S]``."""
        from trm_mlx.tasks import maze_search

        starts, goals = ((boards == value).argmax(axis=1) for value in (START, GOAL))
        passable = np.ascontiguousarray(boards != WALL)
        return maze_search.distances_batch(passable, starts, goals, self.side)

    def generate(
        self,
        count: int,
        rng: np.random.Generator,
        kind: str = "walls",
        min_path_length: int | None = None,
    ) -> Puzzles:
        """``count`` mazes, each with one shortest path marked; the rating is its length in steps.

        Args:
            kind: "walls" at random, a "tree", with one path between any two cells, or "mixed",
                these and many others as people draw them.
            min_path_length: steps that the shortest path has at least; by default the side, or 1
                of mixed ones.

        Raises:
            InputError: another kind, or no maze of that length in 100,000 tries.
        """
        from trm_mlx.tasks import maze_mixture, maze_search

        if kind not in KINDS:
            raise InputError(f"kind={shortened(kind)}: choose one of {', '.join(KINDS)}")
        mixed = kind == "mixed"
        least = (1 if mixed else self.side) if min_path_length is None else min_path_length
        if not 1 <= least < self.seq_len:
            raise InputError(
                f"min_path_length={shortened(least)}: a {self.name} has paths of 1 to "
                f"{self.seq_len - 1} steps"
            )
        if mixed:
            made = maze_mixture.mixed_batch(count, self.side, least, TRIES, rng)
        else:
            made = maze_search.generate_batch(count, self.side, kind == "tree", least, TRIES, rng)
        passable, starts, goals, paths, steps = made
        if len(steps) < count:
            raise InputError(
                f"no {self.name} of kind {kind} with a path of {least} steps in {TRIES} tries; "
                "ask for shorter ones"
            )
        rows = np.arange(count)
        questions = np.where(passable, np.uint8(OPEN), np.uint8(WALL))
        questions[rows, starts] = START
        questions[rows, goals] = GOAL
        return Puzzles(questions, np.where(paths, np.uint8(PATH), questions), steps)

    # Sameness

    def relabel(self, questions: np.ndarray, answers: np.ndarray) -> np.ndarray:
        """Shortest paths ``[N, S]`` as `generate` marks them; what is none stays as it is."""
        from trm_mlx.tasks import maze_images

        rows = np.flatnonzero(self.check(questions, answers))
        right = questions[rows]
        ends = ((right == value).argmax(axis=1) for value in (START, GOAL))
        paths = maze_images.label_batch(np.ascontiguousarray(right != WALL), *ends, self.side)
        relabelled = answers.copy()
        relabelled[rows] = np.where(paths, np.uint8(PATH), right)
        return relabelled

    def sample_symmetry(self, rng: np.random.Generator, count: int) -> Rearrangement:
        """``count`` of the 8 rotations and reflections of the board."""
        return Rearrangement(self.dihedral()[rng.integers(8, size=count)])

    def dihedral(self) -> np.ndarray:
        """The 8 rearrangements of a square board ``[8, seq_len]``, in the published order."""
        board = np.arange(self.seq_len, dtype=np.uint16).reshape(self.side, self.side)
        turned = [np.rot90(board, quarter) for quarter in range(4)]
        mirrored = [board[:, ::-1], board[::-1], board.T, turned[1][:, ::-1]]
        return np.stack([image.ravel() for image in turned + mirrored])

    def split_keys(self, questions: np.ndarray, answers: np.ndarray) -> list[bytes]:
        """The walls, in that of the 8 images that sorts first."""
        from trm_mlx.tasks import maze_images

        walls = np.ascontiguousarray(np.asarray(questions) == WALL)
        firsts = maze_images.first_images(walls, self.dihedral())
        return [image.tobytes() for image in np.packbits(firsts, axis=-1)]

    def _end_of(self, row: str, number: int) -> int:
        """The first cell that a row, counted from 0, lacks, or the last that it should have."""
        return min(number * self.side + min(len(row), self.side - 1), self.seq_len - 1)

    def _place(self, values: np.ndarray, value: int) -> str:
        cell = int((values == value).argmax())
        return f"r{cell // self.side + 1}c{cell % self.side + 1}"


def parse_any(text: str) -> tuple[Maze, np.ndarray]:
    """Read a question of any side: (Maze, cell values); InputError as from `Maze.parse`."""
    cells = sum(len(row) for row in text.strip("\r\n").splitlines())
    side = math.isqrt(cells)
    if side**2 != cells or side not in SIDES:
        raise InputError(
            f"{cells} cells are no square maze of {SIDES.start}x{SIDES.start} or more: write every "
            "cell, open ones as . or space"
        )
    return Maze(side), Maze(side).parse(text)
