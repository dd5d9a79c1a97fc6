"""Mazes on a square board: the way from S to G through the open cells, as short as can be.

A board's cell values are the places in ``CHARSET``, that of the published Maze-Hard builder
(``dataset/build_maze_dataset.py`` of HRM and TRM): wall, open, start, goal, path. A model reads
tokens, one more; 0 is padding. The answer is the question with one shortest path marked ``o``; any
shortest path is right. The search itself is in ``maze_solver.py``. A smaller maze, of any rows and
columns, lies at the top left, and walls fill the rest.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from trm_mlx.errors import InputError
from trm_mlx.tasks import maze_mixture, maze_solver, puzzle_text
from trm_mlx.tasks.base import BoardInput, BoardStyle, Permutation, Puzzles, Task, WrongCells
from trm_mlx.tasks.puzzle_cells import SIDES

CHARSET = "# SGo"
WALL, OPEN, START, GOAL, PATH = range(len(CHARSET))
# Random walls; one path between any two cells; what models are trained on, see maze_mixture.py.
KINDS = ("walls", "tree", "mixed")
TRIES = 100_000  # mazes made in vain, in a row, before `generate` gives up


@dataclass(frozen=True)
class Maze(Task):
    """The maze task on a board of `side` x `side` cells. Raises InputError unless 5 to 99.

    shown: the rows and columns that are shown, of a smaller maze; None: all.
    """

    side: int = 30
    shown: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.side not in SIDES:
            raise InputError(f"no maze of side {self.side}; use {SIDES.start} to {SIDES[-1]}")

    vocab_size = len(CHARSET) + 1

    @property
    def name(self) -> str:
        return f"maze{self.side}x{self.side}"

    @property
    def seq_len(self) -> int:
        return self.side**2

    @property
    def levels(self) -> Mapping[str, Mapping[str, int]]:
        """Return levels by the length of the shortest path; small boards have none."""
        if self.side < 10:
            return {}
        # What is a long path grows faster than the side: 25 steps of 10x10, 116 of 30x30.
        powers = {"easy": 1, "hard": 1.2, "hardest": 1.4}
        return {name: {"min_path_length": int(self.side**n)} for name, n in powers.items()}

    # Text

    def parse(self, text: str) -> np.ndarray:
        """Read a question in any spelling that ``docs/solving.md`` lists.

        Raises:
            InputError: it is none, has not one S and one G, or no way between them.
        """
        return self.from_cells(puzzle_text.cells_of(text, self.name))

    def from_cells(self, cells: str) -> np.ndarray:
        """Return the cell values of a question with a character of ``CHARSET`` a cell.

        Raises:
            InputError: it has not one S and one G, or no way between them, or shows one.
        """
        values = _values_of(cells)
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

    def showing(self, rows: int, columns: int) -> "Maze":
        """Return this task for a maze of so many rows and columns, shown without what is around."""
        return replace(self, shown=(rows, columns))

    def reads(self, other: Task) -> bool:
        """Return whether questions of ``other`` are mazes that are no larger."""
        return isinstance(other, Maze) and other.side <= self.side

    def parse_board(self, text: str) -> np.ndarray:
        """Read a question or an answer without asking whether it makes sense."""
        return _values_of(puzzle_text.cells_of(text, self.name))

    def render(self, values: np.ndarray, givens: np.ndarray | None = None) -> str:
        """The rows of a board, open cells as ``.``; an answer's path shows as ``o``."""
        symbols = np.array(list(CHARSET.replace(" ", ".")))[np.asarray(values)]
        rows, columns = self._shape
        shown = symbols.reshape(self.side, self.side)[:rows, :columns]
        return "\n".join("".join(row) for row in shown)

    def line(self, values: np.ndarray) -> str:
        """The rows of a board in one line, parted by ``/`` unless it is a square of 5x5 or more."""
        rows, columns = self._shape
        return self.render(values).replace("\n", "" if rows == columns >= SIDES.start else "/")

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

    def count_solutions(self, questions: np.ndarray) -> np.ndarray:
        """Return how many shortest paths questions ``[N, S]`` have, 2 for several, ``[N]``."""
        return maze_solver.count_paths_batch(*_grids(questions), self.side)

    def distances(self, boards: np.ndarray) -> np.ndarray:
        """Steps of a shortest path from S to G ``[N]``, -1 where none leads; boards ``[N, S]``."""
        return maze_solver.distances_batch(*_grids(boards), self.side)

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
        if kind not in KINDS:
            raise InputError(f"kind={kind}: choose one of {', '.join(KINDS)}")
        mixed = kind == "mixed"
        least = (1 if mixed else self.side) if min_path_length is None else min_path_length
        if not 1 <= least < self.seq_len:
            raise InputError(
                f"min_path_length={least}: a {self.name} has paths of 1 to {self.seq_len - 1} steps"
            )
        if mixed:
            made = maze_mixture.mixed_batch(count, self.side, least, TRIES, rng)
        else:
            made = maze_solver.generate_batch(count, self.side, kind == "tree", least, TRIES, rng)
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

    # Symmetries and splits

    def relabel(self, questions: np.ndarray, answers: np.ndarray) -> np.ndarray:
        """Shortest paths ``[N, S]`` as `generate` marks them; what is none stays as it is."""
        rows = np.flatnonzero(self.check(questions, answers))
        right = questions[rows]
        paths = maze_solver.label_batch(*_grids(right), self.side)
        relabelled = answers.copy()
        relabelled[rows] = np.where(paths, np.uint8(PATH), right)
        return relabelled

    def sample_symmetry(self, rng: np.random.Generator, count: int) -> Permutation:
        """``count`` of the 8 rotations and reflections of the board."""
        return Permutation(self.dihedral()[rng.integers(8, size=count)])

    def dihedral(self) -> np.ndarray:
        """The 8 rearrangements of a square board ``[8, seq_len]``, in the published order."""
        board = np.arange(self.seq_len, dtype=np.uint16).reshape(self.side, self.side)
        turned = [np.rot90(board, quarter) for quarter in range(4)]
        mirrored = [board[:, ::-1], board[::-1], board.T, turned[1][:, ::-1]]
        return np.stack([image.ravel() for image in turned + mirrored])

    def split_keys(self, questions: np.ndarray, answers: np.ndarray) -> list[bytes]:
        """The walls, in that of the 8 images that sorts first."""
        walls = np.ascontiguousarray(np.asarray(questions) == WALL)
        firsts = maze_solver.first_images(walls, self.dihedral())
        return [image.tobytes() for image in np.packbits(firsts, axis=-1)]

    def image_keys(self, questions: np.ndarray) -> list[bytes]:
        """The one of the 8 images that sorts first."""
        cells = self.dihedral()
        return [min(image.tobytes() for image in board[cells]) for board in questions]

    # The board on a screen

    def board_style(self, boards: np.ndarray) -> BoardStyle:
        """Return walls and open cells as colours, the path in the colours of its marks."""
        fills = ("#3b4252", "#f6f7f8", "#7fd3b4", "#e6a6cd", "#7cc4ee")
        return BoardStyle(
            *self._shape, CHARSET, fills=fills, hidden="#o", filled="path", stride=self.side
        )

    def board_input(self) -> BoardInput:
        """Return how a maze is painted: walls, open cells, one start and one goal."""
        blank = "." * self.side
        return BoardInput(
            "One line a row: # wall, . open, S start, G goal.",
            "\n".join(("S" + blank[1:], *[blank] * (self.side - 2), blank[1:] + "G")),
            keys={"#": "wall", ".": "open", "S": "start", "G": "goal"},
            aliases={" ": "."},
            single="SG",
            by_rows=True,
        )

    @property
    def _shape(self) -> tuple[int, int]:
        return self.shown or (self.side, self.side)

    def _place(self, values: np.ndarray, value: int) -> str:
        cell = int((values == value).argmax())
        return f"r{cell // self.side + 1}c{cell % self.side + 1}"


def _grids(boards: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Open cells ``[N, S]``, starts and goals ``[N]`` of boards ``[N, S]``, for a search."""
    starts, goals = ((boards == value).argmax(axis=1) for value in (START, GOAL))
    return np.ascontiguousarray(boards != WALL), starts, goals


def _values_of(cells: str) -> np.ndarray:
    return np.array([CHARSET.index(cell) for cell in cells], np.uint8)
