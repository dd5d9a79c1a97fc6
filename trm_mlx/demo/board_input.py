"""How a puzzle of each kind is entered: what a cell may be given, and what text stands for.

What is wrong with a puzzle, and where, is what the task's own `parse` says.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from trm_mlx.errors import InputError
from trm_mlx.tasks.arithmetic import Arithmetic
from trm_mlx.tasks.base import Task, WrongCells
from trm_mlx.tasks.maze import GOAL, OPEN, PATH, START, WALL, Maze
from trm_mlx.tasks.sudoku import Sudoku, cells_of
from trm_mlx.view.html import CellData, board
from trm_mlx.view.recording import Mark, first_frame
from trm_mlx.view.style import FILLS, NAMES, BoardStyle

EXAMPLES = {
    "sudoku4x4": "...2.1..3.....2.",
    "sudoku6x6": ".5..2.4.2..1......3....2....6.5..4..",
    "sudoku9x9": "53..7....6..195....98....6.8...6...34..8.3..1"
    "7...2...6.6....28....419..5....8..79",
}

Named = dict[str, str]  # a name and a fill; where a symbol may be chosen, that too


class Form(NamedTuple):
    """The kind of board of one task.

    symbols: the character of every cell value; empty: that of a cell without any; spread: the
    characters of a text that stand for cells, in the places of their cells; format: how a puzzle is
    written, in words; blank: the puzzle in which nothing is given; example: one to begin with,
    where there is one that needs no search; palette: what a cell of a question may be given, and
    legend: the marks that a board may show, both with fills where the page has none of its own;
    fixed: cells that belong to no question.
    """

    symbols: str
    empty: str
    spread: Callable[[str], list[str]]
    format: str
    blank: str
    example: str | None
    palette: list[Named]
    legend: list[Named]
    fixed: list[int]


def form_of(task: Sudoku | Maze | Arithmetic, look: BoardStyle) -> Form:
    """The form of a task that looks like this."""
    return _FORMS[look.kind](task, look)


def _sudoku(task: Sudoku, look: BoardStyle) -> Form:
    symbols = look.symbols.replace(" ", ".")
    return Form(
        symbols,
        ".",
        lambda text: list(cells_of(text).replace("0", ".")),
        f"{task.seq_len} cells, row by row: 1 to {task.size}, and . or 0 for a blank.",
        "." * task.seq_len,
        EXAMPLES[task.name],
        _keys(f"{symbols[1:]}."),
        _marks(),
        [],
    )


def _maze(task: Maze, look: BoardStyle) -> Form:
    symbols = look.symbols.replace(" ", ".")
    names = {WALL: "wall", OPEN: "open", START: "start", GOAL: "goal"}
    tools = _fills(look, [(value, Mark.GIVEN) for value in names])
    marks = (Mark.NEW, Mark.CHANGED, Mark.WRONG)
    return Form(
        symbols,
        ".",
        lambda text: _spread_rows(text, task.side),
        "One line a row: # wall, . open, S start, G goal.",
        f"S{'.' * (task.seq_len - 2)}G",
        None,
        [
            {"symbol": symbols[value], "name": name, "fill": fill}
            for (value, name), fill in zip(names.items(), tools, strict=True)
        ],
        [
            {"name": NAMES[mark], "fill": fill}
            for mark, fill in zip(marks, _fills(look, [(PATH, m) for m in marks]), strict=True)
        ],
        [],
    )


def _arithmetic(task: Arithmetic, look: BoardStyle) -> Form:
    sign, digits = task.operation.symbol, "123456789"[: task.digits]
    return Form(
        look.symbols,
        " ",
        lambda text: list("".join(text.split())),
        f"Two numbers of up to {task.digits} digits: 12{sign}345=",
        f"0{sign}0=",
        f"{digits}{sign}{digits[::-1]}=",
        _keys("0123456789"),
        _marks(),
        [task.digits, *range(2 * task.digits + 1, task.seq_len)],  # the signs, and the result
    )


_FORMS = {"sudoku": _sudoku, "maze": _maze, "arithmetic": _arithmetic}


def _spread_rows(text: str, columns: int) -> list[str]:
    lines = text.strip("\r\n").splitlines()
    if len(lines) > 1:
        lines = [line[:columns].ljust(columns, ".") for line in lines]
    return list("".join(lines).replace(" ", "."))


def _keys(symbols: str) -> list[Named]:
    return [
        {"symbol": symbol, "name": "blank" if symbol == "." else symbol, "fill": ""}
        for symbol in symbols
    ]


def _marks() -> list[Named]:
    return [{"name": name, "fill": ""} for mark, name in NAMES.items() if mark is not Mark.KEPT]


def _fills(look: BoardStyle, cells: list[tuple[int, Mark]]) -> list[str]:
    """The fills of cells that hold these values and marks."""
    row = look._replace(rows=1, columns=len(cells))
    values, marks = zip(*cells, strict=True)
    return [cell.fill for cell in row.cells(np.array(values), np.array(marks))[0]]


class Entry(NamedTuple):
    """A puzzle as far as it has been typed.

    cells: what to show, see `view.html.board`; symbols: one a cell, as text has them; wrong: the
    cells that ``problem`` is about, where it is about some; problem: None if this is a puzzle.
    """

    cells: list[CellData]
    symbols: list[str]
    wrong: list[int]
    problem: str | None


def read_board(task: Task, look: BoardStyle, form: Form, text: str) -> Entry:
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
    except WrongCells as error:
        return _unfinished(look, form, text, str(error), error.cells)
    except InputError as error:
        return _unfinished(look, form, text, str(error), ())
    symbols = [form.symbols[value] for value in values]
    return Entry(board(look, first_frame(values)), symbols, [], None)


def _unfinished(
    look: BoardStyle, form: Form, text: str, problem: str, cells: Sequence[int]
) -> Entry:
    """A board of what can be read, the cells in question marked: foreign characters, if any."""
    count = look.rows * look.columns
    symbols = form.spread(text)[:count]
    symbols += [form.empty] * (count - len(symbols))
    foreign = [index for index, symbol in enumerate(symbols) if symbol not in form.symbols]
    values = np.array([max(form.symbols.find(symbol), 0) for symbol in symbols], np.uint8)
    shown, wrong = board(look, first_frame(values)), foreign or list(cells)
    for index in wrong:
        symbol = symbols[index] if foreign else shown[index][0]
        shown[index] = (symbol, NAMES[Mark.WRONG], FILLS[Mark.WRONG], 0.0)
    return Entry(shown, symbols, wrong, problem)
