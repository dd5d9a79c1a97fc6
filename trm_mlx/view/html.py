"""A recording as one HTML file that needs nothing else: a slider over the steps, play and pause.

``board.js`` and ``board.css`` draw a board in a browser and ``player.js`` plays its steps, here and
in ``trm demo``, from what `layout_data` and `board_data` return.
"""

import html
import json
from importlib import resources
from pathlib import Path

from trm_mlx.tasks.base import BoardStyle
from trm_mlx.view.recording import Frame, Recording
from trm_mlx.view.style import NAMES, Cell, cells_of, legend_of, style_of

CONFIDENCE = "how sure of a cell"  # the bar under it, in the legend
CellData = tuple[str, str, str, float]  # symbol, name of the mark, fill, confidence


def save_html(recording: Recording, path: Path) -> None:
    """Write the file; it loads nothing from any host."""
    style = style_of(recording)
    frames = [
        {
            "step": frame.step,
            "halting": round(frame.halting, 4),
            "changes": frame.changes,
            "cells": board_data(style, frame),
        }
        for frame in recording.frames
    ]
    data = {
        **layout_data(style),
        "legend": legend_data(style),
        "rules": recording.task.has_rules,
        "ending": recording.ending,
        "frames": frames,
    }
    page = page_file("page.html")
    for mark, content in {
        "{{title}}": html.escape(recording.task.name),
        "{{style}}": page_file("board.css"),
        "{{board}}": page_file("board.js"),
        "{{player}}": page_file("player.js"),
        # "<" could end the script element that the data stands in.
        "{{data}}": json.dumps(data).replace("<", "\\u003c"),
    }.items():
        page = page.replace(mark, content)
    path.write_text(page, encoding="utf-8")


def page_file(name: str) -> str:
    """Return the text of a file beside this one."""
    return resources.files(__package__).joinpath(name).read_text("utf-8")


def layout_data(style: BoardStyle) -> dict:
    """Return what ``board.js`` needs to lay out a board."""
    return {
        "rows": style.rows,
        "columns": style.columns,
        "box": style.box,
        "painted": bool(style.fills),
        "hidden": style.hidden,
        "filled": style.filled,
    }


def board_data(style: BoardStyle, frame: Frame) -> list[CellData]:
    """Return what ``board.js`` needs to draw the cells of a frame, in reading order."""
    return [
        (cell.symbol, NAMES[cell.mark], background(cell), round(float(frame.cells[cell.index]), 3))
        for row in cells_of(style, frame.values, frame.marks)
        for cell in row
    ]


def background(cell: Cell) -> str:
    """Return the background of a cell in CSS."""
    if not cell.dot:
        return cell.fill
    return f"radial-gradient(circle closest-side, {cell.dot} 48%, {cell.fill} 56%)"


def legend_data(style: BoardStyle) -> list[dict[str, str]]:
    """Return the entries of a legend: words, class and, of painted boards, background."""
    marks = [
        {"words": words, "mark": NAMES[cell.mark], "fill": background(cell) if style.fills else ""}
        for words, cell in legend_of(style)
    ]
    return marks if style.fills else [*marks, {"words": CONFIDENCE, "mark": "sure", "fill": ""}]
