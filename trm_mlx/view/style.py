"""The colours of a board and what each of its cells shows; a task's `BoardStyle` says the rest.

The colours that tell marks apart are those of Okabe and Ito, chosen to be told apart by
colour-blind people too.
"""

from typing import NamedTuple

import numpy as np

from trm_mlx.tasks.base import BoardStyle
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
# Of boards whose cells are coloured by their values.
STRONG_FILLS = {
    Mark.KEPT: "#56b4e9",
    Mark.NEW: "#56b4e9",
    Mark.CHANGED: "#e69f00",
    Mark.WRONG: "#d55e00",
}
NAMES = {
    Mark.GIVEN: "given",
    Mark.KEPT: "filled",
    Mark.NEW: "new",
    Mark.CHANGED: "changed",
    Mark.WRONG: "wrong",
}


class Cell(NamedTuple):
    """What a cell shows: its index on the board, its symbol, "" for a blank, and two colours."""

    index: int
    symbol: str
    ink: str
    fill: str
    mark: Mark


def style_of(recording: Recording) -> BoardStyle:
    """Return the style that fits all boards of a recording."""
    return recording.task.board_style(np.stack([frame.values for frame in recording.frames]))


def cells_of(style: BoardStyle, values: np.ndarray, marks: np.ndarray) -> list[list[Cell]]:
    """Return the cells of a board, row by row, from its values and `Mark`s ``[seq_len]``."""
    stride = style.stride or style.columns
    return [
        [
            _cell(style, index, int(values[index]), Mark(int(marks[index])))
            for index in range(row * stride, row * stride + style.columns)
        ]
        for row in range(style.rows)
    ]


def _cell(style: BoardStyle, index: int, value: int, mark: Mark) -> Cell:
    symbol = style.symbols[value].strip()
    if not style.fills:
        fill = PAPER if mark is Mark.GIVEN and not symbol else FILLS[mark]
        return Cell(index, symbol, INKS[mark], fill, mark)
    marked = style.shows_marks and mark is not Mark.GIVEN
    return Cell(index, symbol, INK, STRONG_FILLS[mark] if marked else style.fills[value], mark)


def legend_of(style: BoardStyle) -> list[dict[str, str]]:
    """Return the marks that a board may show, by name and colour; "" for that of `FILLS`."""
    if style.fills:
        marks = (Mark.NEW, Mark.CHANGED, Mark.WRONG) if style.shows_marks else ()
        return [{"name": NAMES[mark], "fill": STRONG_FILLS[mark]} for mark in marks]
    return [{"name": name, "fill": ""} for mark, name in NAMES.items() if mark is not Mark.KEPT]
