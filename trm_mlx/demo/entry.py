"""A puzzle as it is typed: text into a board, with the cells that cannot stay as they are."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from trm_mlx.demo.form import Form
from trm_mlx.errors import InputError
from trm_mlx.tasks.base import Task, WrongCells
from trm_mlx.view.film import Mark, first_frame
from trm_mlx.view.look import FILLS, NAMES, Look
from trm_mlx.view.page import CellData, board


class Entry(NamedTuple):
    """A puzzle as far as it has been typed.

    cells: what to show, see `view.page.board`; symbols: one a cell, as text has them; wrong: the
    cells that ``problem`` is about, where it is about some; problem: None if this is a puzzle.
    """

    cells: list[CellData]
    symbols: list[str]
    wrong: list[int]
    problem: str | None


def read_board(task: Task, look: Look, form: Form, text: str) -> Entry:
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


def _unfinished(look: Look, form: Form, text: str, problem: str, cells: Sequence[int]) -> Entry:
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
