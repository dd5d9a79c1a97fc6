"""The steps of a puzzle on the terminal: in colour by Rich, or plain, without an escape code.

Which of several trajectories is looked at is decided as on the page of ``trm demo``: the newest
step, whichever it belongs to, and at the end the answer that was taken.
"""

import importlib.util
import os
import sys
import time
from contextlib import ExitStack
from typing import NamedTuple

import numpy as np

from trm_mlx.errors import InputError
from trm_mlx.solve.scheduler import StepEvent
from trm_mlx.tasks.base import Task, has_rules
from trm_mlx.view.recording import Frame, FrameBuilder, Mark, Recording, first_frame
from trm_mlx.view.style import find_style

SIGNS = {Mark.GIVEN: " ", Mark.KEPT: " ", Mark.NEW: "+", Mark.CHANGED: "*", Mark.WRONG: "!"}
STYLES = {
    Mark.GIVEN: "bold",
    Mark.KEPT: "bright_blue",
    Mark.NEW: "bold black on bright_cyan",
    Mark.CHANGED: "bold black on bright_yellow",
    Mark.WRONG: "bold white on red",
}
LEGEND = "+ new  * changed  ! breaks a rule"
BAR = 20

Piece = tuple[str, Mark | None]  # text, and the mark of the cell it shows


class ScreenContext(NamedTuple):
    """What all frames of a puzzle share: its question as cell values ``[S]``, and how many steps
    a trajectory, and how many trajectories, there may be."""

    task: Task
    question: np.ndarray
    steps: int
    trajectories: int


class Screen:
    """Shows the steps of one puzzle as they come: ``with Screen(scene, delay) as screen``.

    `watch` is for `Solver.solve`. On a terminal a frame stays for ``delay`` seconds at least;
    elsewhere nothing waits.
    """

    def __init__(self, scene: ScreenContext, delay: float):
        self._scene, self._reel = scene, FrameBuilder(scene.task, scene.question)
        self._delay = delay if _someone_looks() else 0
        self._shown, self._until = (0, 0), 0.0  # trajectory and step, and how long they stay
        self._live, self._stack = None, ExitStack()

    def __enter__(self) -> "Screen":
        if colourful():
            from rich.live import Live

            self._live = self._stack.enter_context(Live(auto_refresh=False))
        self._show(0, first_frame(self._scene.question))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def watch(self, glimpse: StepEvent) -> None:
        """Show a step."""
        self._show(glimpse.trajectory, self._reel.next(glimpse))

    def rest(self, film: Recording, trajectory: int) -> None:
        """Come to the last frame of the film, which is that of the trajectory, and its ending."""
        last = film.frames[-1]
        if self._shown != (trajectory, last.step):
            self._show(trajectory, last)
        self._stack.close()
        print(f"{film.ending}   ({LEGEND})")

    def _show(self, trajectory: int, frame: Frame) -> None:
        time.sleep(max(self._until - time.monotonic(), 0))
        if self._live is None:
            print(plain(self._scene, frame, trajectory), end="\n\n", flush=True)
        else:
            self._live.update(styled(self._scene, frame, trajectory), refresh=True)
        self._shown, self._until = (trajectory, frame.step), time.monotonic() + self._delay


def colourful() -> bool:
    """Whether frames are drawn in colour: on a terminal, unless ``NO_COLOR`` is set.

    Raises:
        InputError: they would be, but Rich is missing.
    """
    if not _someone_looks() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    if importlib.util.find_spec("rich") is None:
        raise InputError(
            "--watch in colour needs Rich: pip install 'trm-mlx[view]', or set NO_COLOR=1"
        )
    return True


def plain(scene: ScreenContext, frame: Frame, trajectory: int = 0) -> str:
    """One frame as text: a line about the step, then the board."""
    board = "\n".join("".join(text for text, _ in line) for line in pieces(scene, frame))
    return f"{heading(scene, frame, trajectory)}\n{board}"


def styled(scene: ScreenContext, frame: Frame, trajectory: int = 0):
    """One frame as a Rich renderable."""
    from rich.text import Text

    text = Text(heading(scene, frame, trajectory) + "\n\n", no_wrap=True, overflow="crop")
    text.highlight_regex(r"\[#+", "bright_green")
    for line in pieces(scene, frame):
        for piece, mark in line:
            text.append(piece, "dim" if mark is None else STYLES[mark])
        text.append("\n")
    return text


def heading(scene: ScreenContext, frame: Frame, trajectory: int) -> str:
    """``step  2/8    3 changed    0 wrong  halting [####....] 0.412``; where there may be several
    trajectories, below the number of this one."""
    if frame.step == 0:
        return f"step  0/{scene.steps}  the question"
    filled = round(frame.halting * BAR)
    wrong = f"{int((frame.marks == Mark.WRONG).sum()):3} wrong  " if has_rules(scene.task) else ""
    line = (
        f"step {frame.step:2}/{scene.steps}  {frame.changes:3} changed  {wrong}"
        f"halting [{'#' * filled}{'.' * (BAR - filled)}] {frame.halting:.3f}"
    )
    several = scene.trajectories > 1
    return f"trajectory {trajectory + 1}/{scene.trajectories}\n{line}" if several else line


def pieces(scene: ScreenContext, frame: Frame) -> list[list[Piece]]:
    """The lines of a board, in pieces that have a mark each."""
    look = find_style(scene.task, frame.values[None])
    if look is None:
        lines = scene.task.render(frame.values, givens=scene.question).splitlines()
        return [[(line, None)] for line in lines]
    lines: list[list[Piece]] = []
    box_rows, box_columns = look.box
    for row, cells in enumerate(look.cells(frame.values, frame.marks)):
        if box_rows and row and row % box_rows == 0:
            width = 2 * box_columns + 1
            lines.append([("+".join(["-" * width] * (look.columns // box_columns)), None)])
        line: list[Piece] = []
        for column, cell in enumerate(cells):
            if box_columns and column and column % box_columns == 0:
                line.append((" |", None))
            symbol = cell.symbol or _empty(look.kind, look.symbols, int(frame.values[cell.index]))
            line.append((SIGNS[cell.mark] + symbol, cell.mark))
        lines.append(line)
    return lines


def _empty(kind: str, symbols: str, value: int) -> str:
    wall = kind == "maze" and symbols[value] == "#"
    return "#" if wall else "."


def _someone_looks() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()
