"""A puzzle as it is typed: text into a board, with the cells that cannot stay as they are.

What is wrong, in words, is what the task's own `parse` says; here is where.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from trm_mlx.errors import InputError
from trm_mlx.tasks.base import Task
from trm_mlx.tasks.maze import GOAL, OPEN, PATH, START, WALL
from trm_mlx.tasks.sudoku import cells_of
from trm_mlx.view.film import Mark, first_frame
from trm_mlx.view.look import FILLS, NAMES, Look
from trm_mlx.view.page import CellData, board

EXAMPLES = {
    "sudoku4x4": "...2.1..3.....2.",
    "sudoku6x6": ".5..2.4.2..1......3....2....6.5..4..",
    "sudoku9x9": "53..7....6..195....98....6.8...6...34..8.3..1"
    "7...2...6.6....28....419..5....8..79",
}


class Entry(NamedTuple):
    """A puzzle as far as it has been typed.

    cells: what to show, see `view.page.board`; symbols: one a cell, as text has them; wrong: the
    cells that ``problem`` is about, where it is about some; problem: None if this is a puzzle.
    """

    cells: list[CellData]
    symbols: list[str]
    wrong: list[int]
    problem: str | None


def read_board(task: Task, look: Look, text: str) -> Entry:
    """Read a puzzle that may be half done or wrong.

    Raises:
        InputError: the text is far too long to be one.
    """
    if len(text) > 4 * task.seq_len + 100:
        raise InputError(
            f"{len(text)} characters where a {task.name} has {task.seq_len} cells; send one puzzle"
        )
    try:
        values = task.parse(text)
    except InputError as error:
        return _unfinished(task, look, text, str(error))
    return Entry(board(look, first_frame(values)), _symbols(look, values), [], None)


def example(task: Task, look: Look) -> str | None:
    """A puzzle to begin with, where there is one that needs no search."""
    if look.kind == "arithmetic":
        digits = "123456789"[: task.digits]
        return f"{digits}{task.operation.symbol}{digits[::-1]}="
    return EXAMPLES.get(task.name)


def blank(task: Task, look: Look) -> str:
    """The puzzle in which nothing is given yet."""
    if look.kind == "arithmetic":
        return f"0{task.operation.symbol}0="
    cells = ["."] * task.seq_len
    if look.kind == "maze":
        cells[0], cells[-1] = "S", "G"
    return "".join(cells)


def palette(look: Look) -> list[dict[str, str]]:
    """The symbols that a cell of a question may be given, each with a name and a colour."""
    if look.kind == "maze":
        names = {WALL: "wall", OPEN: "open", START: "start", GOAL: "goal"}
        colours = _colours(look, list(names), [Mark.GIVEN] * len(names))
        return [
            {"symbol": symbol, "name": name, "fill": fill}
            for symbol, name, fill in zip(
                _symbols(look, list(names)), names.values(), colours, strict=True
            )
        ]
    symbols = "0123456789" if look.kind == "arithmetic" else f"{look.symbols[1:]}."
    return [
        {"symbol": symbol, "name": "blank" if symbol == "." else symbol, "fill": ""}
        for symbol in symbols
    ]


def legend(look: Look) -> list[dict[str, str]]:
    """The marks that a board may show, with their colours where the page has none of its own."""
    if look.kind == "maze":
        marks = [Mark.NEW, Mark.CHANGED, Mark.WRONG]
        colours = _colours(look, [PATH] * len(marks), marks)
        return [
            {"name": NAMES[mark], "fill": fill} for mark, fill in zip(marks, colours, strict=True)
        ]
    return [{"name": name, "fill": ""} for mark, name in NAMES.items() if mark is not Mark.KEPT]


def fixed_cells(task: Task, look: Look) -> list[int]:
    """The cells that belong to no question: marks between numbers, and the place of a result."""
    if look.kind != "arithmetic":
        return []
    return [task.digits, *range(2 * task.digits + 1, task.seq_len)]


def how_to_write(task: Task, look: Look) -> str:
    """How a puzzle is written as text."""
    if look.kind == "sudoku":
        return f"{task.seq_len} cells, row by row: 1 to {task.size}, and . or 0 for a blank."
    if look.kind == "maze":
        return "One line a row: # wall, . open, S start, G goal."
    return f"Two numbers of up to {task.digits} digits: 12{task.operation.symbol}345="


def _unfinished(task: Task, look: Look, text: str, problem: str) -> Entry:
    """A board of what can be read, the cells in question marked."""
    typed = _typed(look, text)
    symbols = [*typed, *_blanks(look, task.seq_len)[len(typed) :]][: task.seq_len]
    known = {symbol: value for value, symbol in enumerate(_alphabet(look))}
    values = np.array([known.get(symbol, 0) for symbol in symbols], np.uint8)
    foreign = [index for index, symbol in enumerate(symbols) if symbol not in known]
    wrong = foreign or _misplaced(task, look, text, len(typed), values)
    frame = first_frame(values)
    cells = board(look, frame)
    for index in wrong:
        symbol = symbols[index] if index in foreign else cells[index][0]
        cells[index] = (symbol, NAMES[Mark.WRONG], FILLS[Mark.WRONG], 0.0)
    return Entry(cells, symbols, wrong, problem)


def _misplaced(task: Task, look: Look, text: str, typed: int, values: np.ndarray) -> list[int]:
    """The cells to blame where every symbol is one that the task knows."""
    if look.kind == "maze":
        lines = text.strip("\r\n").splitlines() or [""]
        for row, line in enumerate(lines[: look.rows] if len(lines) > 1 else ()):
            if len(line) != len(lines[0]):
                return [row * look.columns + min(len(line), look.columns - 1)]
    if typed != task.seq_len and look.kind != "arithmetic":
        return [min(typed, task.seq_len - 1)]
    if look.kind == "maze":
        return np.flatnonzero(np.isin(values, (START, GOAL, PATH))).tolist()
    if look.kind == "sudoku":
        return np.flatnonzero(task.conflicts(values, values)).tolist()
    return []


def _typed(look: Look, text: str) -> list[str]:
    """The characters that stand for cells, in the place of their cell."""
    if look.kind == "sudoku":
        return list(cells_of(text).replace("0", "."))
    if look.kind == "arithmetic":
        return list("".join(text.split()))
    lines = text.strip("\r\n").splitlines()
    if len(lines) > 1:
        lines = [line[: look.columns].ljust(look.columns, ".") for line in lines]
    return list("".join(lines).replace(" ", "."))


def _alphabet(look: Look) -> str:
    """The characters of cell values, a blank as a dot."""
    return look.symbols if look.kind == "arithmetic" else look.symbols.replace(" ", ".")


def _colours(look: Look, values: list[int], marks: list[Mark]) -> list[str]:
    """The fills of cells."""
    row = look._replace(rows=1, columns=len(values))
    return [cell.fill for cell in row.cells(np.array(values), np.array(marks))[0]]


def _symbols(look: Look, values: Sequence[int]) -> list[str]:
    return [_alphabet(look)[value] for value in values]


def _blanks(look: Look, count: int) -> list[str]:
    return [" " if look.kind == "arithmetic" else "."] * count
