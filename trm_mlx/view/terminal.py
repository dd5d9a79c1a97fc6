"""The steps of a puzzle on the terminal: in colour by Rich, or plain, without an escape code.

A board whose cells are coloured by their values is drawn in these colours, two rows of it in one of
text where the terminal is too low for more. Of several trajectories it shows what the page of
``trm demo`` does: the newest step, whichever it belongs to, and at the end the answer that was
chosen.
"""

import importlib.util
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import zip_longest
from typing import NamedTuple

import numpy as np

from trm_mlx.errors import InputError
from trm_mlx.solve.scheduler import StepEvent
from trm_mlx.tasks.base import Task
from trm_mlx.view.recording import Frame, FrameBuilder, Mark, Recording, first_frame, percent
from trm_mlx.view.style import LEGEND, Cell, cells_of, legend_of

SIGNS = {Mark.GIVEN: " ", Mark.KEPT: " ", Mark.NEW: "+", Mark.CHANGED: "*", Mark.WRONG: "!"}
STYLES = {
    Mark.GIVEN: "bold",
    Mark.KEPT: "bright_blue",
    Mark.NEW: "bold black on bright_cyan",
    Mark.CHANGED: "bold black on bright_yellow",
    Mark.WRONG: "bold white on red",
}
SIGNS_SHOWN = "  ".join(f"{SIGNS[mark]} {LEGEND[mark]}" for mark in SIGNS if SIGNS[mark] != " ")
BAR = 20
HEADING = 6  # lines of a frame that are not the board

Piece = tuple[str, Mark | None]  # text, and the mark of the cell it shows


class ScreenContext(NamedTuple):
    """What all frames of a puzzle share: its question as cell values ``[S]``, the steps that a
    trajectory may take, and the number of trajectories allowed."""

    task: Task
    question: np.ndarray
    steps: int
    trajectories: int


class Screen:
    """Shows the steps of one puzzle as they come: ``with Screen(context, delay) as screen``.

    `on_step` is for `Solver.solve`. On a terminal a frame stays for ``delay`` seconds at least;
    elsewhere it does not wait.
    """

    def __init__(self, context: ScreenContext, delay: float):
        self._context, self._frames = context, FrameBuilder(context.task, context.question)
        self._delay = delay if _on_terminal() else 0
        self._shown, self._until = (0, 0), 0.0  # trajectory and step, and how long they stay
        self._live, self._stack = None, ExitStack()

    def __enter__(self) -> "Screen":
        if colourful():
            from rich.live import Live

            self._live = self._stack.enter_context(Live(auto_refresh=False))
        self._show(0, first_frame(self._context.question))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def on_step(self, event: StepEvent) -> None:
        """Show a step."""
        self._show(event.trajectory, self._frames.next(event.output, event.trajectory))

    def finish(self, recording: Recording, trajectory: int) -> None:
        """Show the last frame of the chosen trajectory's recording."""
        last = recording.frames[-1]
        if self._shown != (trajectory, last.step):
            self._show(trajectory, last)
        self._stack.close()

    def _show(self, trajectory: int, frame: Frame) -> None:
        time.sleep(max(self._until - time.monotonic(), 0))
        if self._live is None:
            print(plain(self._context, frame, trajectory), end="\n\n", flush=True)
        else:
            self._live.update(styled(self._context, frame, trajectory), refresh=True)
        self._shown, self._until = (trajectory, frame.step), time.monotonic() + self._delay


def colourful() -> bool:
    """Whether frames are drawn in colour: on a terminal, unless ``NO_COLOR`` is set.

    Raises:
        InputError: they would be, but Rich is missing.
    """
    if not _on_terminal() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    if importlib.util.find_spec("rich") is None:
        raise InputError(
            "--watch in colour needs Rich: pip install 'trm-mlx[view]', or set NO_COLOR=1"
        )
    return True


def plain(context: ScreenContext, frame: Frame, trajectory: int = 0) -> str:
    """One frame as text: a line about the step, then the board."""
    board = "\n".join("".join(text for text, _ in line) for line in pieces(context, frame))
    legend = f"   ({SIGNS_SHOWN})" if frame.step else ""
    return f"{heading(context, frame, trajectory)}{legend}\n{board}"


def styled(context: ScreenContext, frame: Frame, trajectory: int = 0):
    """One frame as a Rich renderable."""
    from rich.text import Text

    text = Text(heading(context, frame, trajectory) + "\n\n", no_wrap=True, overflow="crop")
    text.highlight_regex(r"\[#+", "bright_green")
    style = context.task.board_style(frame.values[None])
    if style.fills:
        for row in _painted(cells_of(style, frame.values, frame.marks), style.hidden):
            for piece, look in row:
                text.append(piece, look)
            text.append("\n")
        text.append("\n")
        for words, cell in legend_of(style):
            text.append(*_square(cell))
            text.append(f" {words}   ")
        return text
    for line in pieces(context, frame):
        for piece, mark in line:
            text.append(piece, "dim" if mark is None else STYLES[mark])
        text.append("\n")
    text.append(f"\n{SIGNS_SHOWN}", "dim")
    return text


def _painted(cells: list[list[Cell]], hidden: str) -> Iterator[list[tuple[str, str]]]:
    """Yield the lines of a board in colour, in pieces with a style each.

    A cell is two characters wide; where that is too high for the terminal, half a character.
    """
    if len(cells) + HEADING <= shutil.get_terminal_size().lines:
        for row in cells:
            yield [_square(cell, hidden) for cell in row]
        return
    for upper, lower in zip_longest(cells[::2], cells[1::2]):
        below = [cell.dot or cell.fill for cell in lower] if lower else ["default"] * len(upper)
        yield [
            ("▀", f"{cell.dot or cell.fill} on {fill}")
            for cell, fill in zip(upper, below, strict=True)
        ]


def _square(cell: Cell, hidden: str = "") -> tuple[str, str]:
    if cell.dot:
        return "● ", f"{cell.dot} on {cell.fill}"
    symbol = "" if cell.symbol in hidden else cell.symbol
    return symbol.center(2), f"bold {cell.ink} on {cell.fill}"


def heading(context: ScreenContext, frame: Frame, trajectory: int) -> str:
    """Return two lines: ``step 2 of 8    3 cells changed    0 break a rule`` and ``sure it is done
    [####....] 41.2 %``, the first with the number of the attempt where there may be several."""
    if frame.step == 0:
        return "the question"
    filled = round(frame.halting * BAR)
    wrong = int((frame.marks == Mark.WRONG).sum())
    breaks = "breaks a rule" if wrong == 1 else "break a rule"
    cells = "cell" if frame.changes == 1 else "cells"
    rule = f"  {wrong:3} {breaks}" if context.task.has_rules else ""
    several = context.trajectories > 1
    attempt = f"attempt {trajectory + 1} of {context.trajectories}, " if several else ""
    return (
        f"{attempt}step {frame.step} of {context.steps}  {frame.changes:3} {cells} changed{rule}\n"
        f"sure it is done [{'#' * filled}{'.' * (BAR - filled)}] {percent(frame.halting)}"
    )


def pieces(context: ScreenContext, frame: Frame) -> list[list[Piece]]:
    """Return the lines of a board, in pieces that have a mark each."""
    style = context.task.board_style(frame.values[None])
    width = max(map(len, style.symbols))
    lines: list[list[Piece]] = []
    box_rows, box_columns = style.box
    for row, cells in enumerate(cells_of(style, frame.values, frame.marks)):
        if box_rows and row and row % box_rows == 0:
            rule = "-" * ((width + 1) * box_columns + 1)
            lines.append([("+".join([rule] * (style.columns // box_columns)), None)])
        line: list[Piece] = []
        for column, cell in enumerate(cells):
            if box_columns and column and column % box_columns == 0:
                line.append((" |", None))
            line.append((SIGNS[cell.mark] + (cell.symbol or ".").rjust(width), cell.mark))
        lines.append(line)
    return lines


def _on_terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()
