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
    Mark.KEPT: "#7cc4ee",
    Mark.NEW: "#0072b2",
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
LEGEND = {**NAMES, Mark.WRONG: "breaks a rule"}


class Cell(NamedTuple):
    """What a cell shows: its index on the board, its symbol, "" for a blank, and two colours.

    dot: the colour of a dot on it; "" for none.
    """

    index: int
    symbol: str
    ink: str
    fill: str
    mark: Mark
    dot: str = ""


def style_of(recording: Recording) -> BoardStyle:
    """Return the style that fits all boards of a recording."""
    return recording.task.board_style(np.stack([frame.values for frame in recording.frames]))


def cells_of(style: BoardStyle, values: np.ndarray, marks: np.ndarray) -> list[list[Cell]]:
    """Return the cells of a board, row by row, from its values and `Mark`s ``[seq_len]``."""
    return [
        [_cell(style, index, int(values[index]), Mark(int(marks[index]))) for index in row]
        for row in rows_of(style)
    ]


def rows_of(style: BoardStyle) -> list[range]:
    """Return the indices of the cells that are shown, row by row."""
    stride = style.stride or style.columns
    return [range(row * stride, row * stride + style.columns) for row in range(style.rows)]


def _cell(style: BoardStyle, index: int, value: int, mark: Mark) -> Cell:
    symbol = style.symbols[value].strip()
    if not style.fills:
        fill = PAPER if mark is Mark.GIVEN and not symbol else FILLS[mark]
        return Cell(index, symbol, INKS[mark], fill, mark)
    fill = style.fills[value]
    if not style.shows_marks or mark is Mark.GIVEN:
        return Cell(index, symbol, INK, fill, mark)
    if mark is Mark.CHANGED and not symbol:  # filled before: a dot, as a fill would read as filled
        return Cell(index, symbol, INK, fill, mark, STRONG_FILLS[mark])
    return Cell(index, symbol, INK, STRONG_FILLS[mark], mark)


def legend_of(style: BoardStyle) -> list[tuple[str, Cell]]:
    """Return what a legend has to explain: words, and a cell that looks so."""
    words = {**LEGEND, Mark.KEPT: style.filled}
    if not style.fills:
        return [(words[mark], Cell(0, "", INKS[mark], FILLS[mark], mark)) for mark in Mark]
    if not style.shows_marks:
        return []
    blank = style.fills[[symbol.strip() for symbol in style.symbols].index("")]
    marks = (Mark.KEPT, Mark.NEW, Mark.WRONG)
    known = [(words[mark], Cell(0, "", INK, STRONG_FILLS[mark], mark)) for mark in marks]
    erased = Cell(0, "", INK, blank, Mark.CHANGED, STRONG_FILLS[Mark.CHANGED])
    return [*known[:2], (f"no longer {style.filled}", erased), known[2]]
