"""How a board is laid out and coloured, one `BoardStyle` for each kind of task.

The colours that tell marks apart are those of Okabe and Ito, chosen to be told apart by
colour-blind people too; those of ARC are its official ten.
"""

from typing import NamedTuple

import numpy as np

from trm_mlx.errors import InputError
from trm_mlx.tasks.arc import ARC, COLOURS, SIZE, crop_sizes
from trm_mlx.tasks.arithmetic import SYMBOLS, Arithmetic
from trm_mlx.tasks.base import Task
from trm_mlx.tasks.maze import CHARSET, OPEN, WALL, Maze
from trm_mlx.tasks.sudoku import Sudoku
from trm_mlx.view.recording import Mark, Recording

PAPER, INK, QUIET, LINE = "#ffffff", "#1f2328", "#6e7781", "#c4cad1"

INKS = {
    Mark.GIVEN: INK,
    Mark.KEPT: "#0072b2",
    Mark.NEW: "#0072b2",
    Mark.CHANGED: "#0072b2",
    Mark.WRONG: "#b34700",
}
FILLS = {
    Mark.GIVEN: "#eef0f2",
    Mark.KEPT: "#ffffff",
    Mark.NEW: "#cfe8f7",
    Mark.CHANGED: "#fbe3a6",
    Mark.WRONG: "#fbd0b5",
}
NAMES = {
    Mark.GIVEN: "given",
    Mark.KEPT: "filled",
    Mark.NEW: "new",
    Mark.CHANGED: "changed",
    Mark.WRONG: "wrong",
}
ARC_COLOURS = (
    "#000000", "#0074d9", "#ff4136", "#2ecc40", "#ffdc00",
    "#aaaaaa", "#f012be", "#ff851b", "#7fdbff", "#870c25",
)  # fmt: skip
_WALL = "#3b4252"
_PATHS = {Mark.KEPT: "#56b4e9", Mark.NEW: "#56b4e9", Mark.CHANGED: "#e69f00"}


class Cell(NamedTuple):
    """What a cell shows: its place in ``values``, a symbol or none, and two colours."""

    index: int
    symbol: str
    ink: str
    fill: str
    mark: Mark


class BoardStyle(NamedTuple):
    """Rows and columns that are shown, of a board ``stride`` cells wide; boxes have thick lines."""

    kind: str
    rows: int
    columns: int
    stride: int
    symbols: str
    box: tuple[int, int]

    def cells(self, values: np.ndarray, marks: np.ndarray) -> list[list[Cell]]:
        """The cells to show, row by row."""
        return [
            [
                self._cell(index, int(values[index]), Mark(int(marks[index])))
                for index in range(row * self.stride, row * self.stride + self.columns)
            ]
            for row in range(self.rows)
        ]

    def _cell(self, index: int, value: int, mark: Mark) -> Cell:
        if self.kind == "arc":
            colour = value - 2
            fill = ARC_COLOURS[colour] if 0 <= colour < COLOURS else PAPER
            return Cell(index, str(colour) if 0 <= colour < COLOURS else "", INK, fill, mark)
        symbol = self.symbols[value] if value < len(self.symbols) else "?"
        if self.kind == "maze":
            return _maze_cell(index, symbol, value, mark)
        return Cell(index, symbol.strip(), INKS[mark], _fill(mark, symbol), mark)


def _fill(mark: Mark, symbol: str) -> str:
    return PAPER if mark is Mark.GIVEN and symbol == " " else FILLS[mark]


def _maze_cell(index: int, symbol: str, value: int, mark: Mark) -> Cell:
    plain = {WALL: _WALL, OPEN: "#f6f7f8"}.get(value, "#e2d5ea")
    fill = plain if mark is Mark.GIVEN else _PATHS.get(mark, "#d55e00")
    return Cell(index, "" if value in (WALL, OPEN) else symbol, INK, fill, mark)


def style_of(film: Recording) -> BoardStyle:
    """The look of a film's boards.

    Raises:
        InputError: the task is none that can be drawn.
    """
    look = find_style(film.task, np.stack([frame.values for frame in film.frames]))
    if look is None:
        raise InputError(
            f"no pictures of {film.task.name}: they are drawn of Sudoku, maze, ARC and "
            "arithmetic; use --watch"
        )
    return look


def find_style(task: Task, boards: np.ndarray) -> BoardStyle | None:
    """The look of boards ``[N, S]``, as cell values; None for a task of another kind."""
    if isinstance(task, Sudoku):
        symbols = " " + "".join(str(digit) for digit in range(1, task.size + 1))
        box = (task.box_rows, task.box_columns)
        return BoardStyle("sudoku", task.size, task.size, task.size, symbols, box)
    if isinstance(task, Maze):
        return BoardStyle("maze", task.side, task.side, task.side, CHARSET, (0, 0))
    if isinstance(task, Arithmetic):
        return BoardStyle("arithmetic", 1, task.seq_len, task.seq_len, SYMBOLS, (0, 0))
    if isinstance(task, ARC):
        rows, columns = crop_sizes(boards)
        return BoardStyle("arc", max(rows.max(), 1), max(columns.max(), 1), SIZE, "", (0, 0))
    return None
