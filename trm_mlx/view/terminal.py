"""A film on the terminal: in colour by Rich, or as plain text without a single escape code."""

import importlib.util
import os
import sys
import time

from trm_mlx.errors import InputError
from trm_mlx.view.film import Film, Frame, Mark
from trm_mlx.view.look import find_look

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


def colourful() -> bool:
    """Whether frames are drawn in colour: on a terminal, unless ``NO_COLOR`` is set.

    Raises:
        InputError: they would be, but Rich is missing.
    """
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    if importlib.util.find_spec("rich") is None:
        raise InputError(
            "--watch in colour needs Rich: pip install 'trm-mlx[view]', or set NO_COLOR=1"
        )
    return True


def show(film: Film, delay: float) -> None:
    """Play a film on stdout, ``delay`` seconds a frame on a terminal; elsewhere without waiting."""
    if colourful():
        _show_live(film, delay)
        return
    for frame in film.frames:
        print(plain(film, frame), end="\n\n", flush=True)
        if sys.stdout.isatty() and frame is not film.frames[-1]:
            time.sleep(delay)
    print(f"{film.ending}   ({LEGEND})")


def plain(film: Film, frame: Frame) -> str:
    """One frame as text: a line about the step, then the board."""
    board = "\n".join("".join(text for text, _ in line) for line in pieces(film, frame))
    return f"{heading(film, frame)}\n{board}"


def styled(film: Film, frame: Frame):
    """One frame as a Rich renderable."""
    from rich.text import Text

    text = Text(heading(film, frame) + "\n\n", no_wrap=True, overflow="crop")
    text.highlight_regex(r"\[#+", "bright_green")
    for line in pieces(film, frame):
        for piece, mark in line:
            text.append(piece, "dim" if mark is None else STYLES[mark])
        text.append("\n")
    return text


def heading(film: Film, frame: Frame) -> str:
    """``step  2/4    3 cells changed  halting [####....] 0.412``."""
    last = film.frames[-1].step
    if frame.step == 0:
        return f"step  0/{last}  the question"
    filled = round(frame.halting * BAR)
    wrong = int((frame.marks == Mark.WRONG).sum())
    return (
        f"step {frame.step:2}/{last}  {frame.changes:3} changed  {wrong:3} wrong  "
        f"halting [{'#' * filled}{'.' * (BAR - filled)}] {frame.halting:.3f}"
    )


def pieces(film: Film, frame: Frame) -> list[list[Piece]]:
    """The lines of a board, in pieces that have a mark each."""
    look = find_look(film.task, frame.values[None])
    if look is None:
        lines = film.task.render(frame.values, givens=film.frames[0].values).splitlines()
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


def _show_live(film: Film, delay: float) -> None:
    from rich.console import Console
    from rich.live import Live

    console = Console()
    with Live(console=console, auto_refresh=False) as live:
        for frame in film.frames:
            live.update(styled(film, frame), refresh=True)
            if frame is not film.frames[-1]:
                time.sleep(delay)
    console.print(f"{film.ending}   ({LEGEND})", markup=False, highlight=False)
