"""A film as one HTML file that needs nothing else: a slider over the steps, play and pause.

``board.js`` and ``board.css`` draw a board in a browser, ``player.js`` plays its steps, here and in
``trm demo``; `layout` and `board` are what they are given.
"""

import html
import json
from importlib import resources
from pathlib import Path

from trm_mlx.tasks.base import has_rules
from trm_mlx.view.recording import Frame, Recording
from trm_mlx.view.style import NAMES, BoardStyle, style_of

CellData = tuple[str, str, str, float]  # symbol, name of the mark, fill, confidence


def save_html(film: Recording, path: Path) -> None:
    """Write the file; it asks no other host for anything."""
    look = style_of(film)
    frames = [
        {
            "step": frame.step,
            "halting": round(frame.halting, 4),
            "changes": frame.changes,
            "cells": board(look, frame),
        }
        for frame in film.frames
    ]
    rules = has_rules(film.task)
    data = {**layout(look), "rules": rules, "ending": film.ending, "frames": frames}
    # "<" could end the script element that the data stands in.
    text = json.dumps(data).replace("<", "\\u003c")
    page = page_file("page.html")
    for mark, content in {
        "{{title}}": html.escape(film.task.name),
        "{{style}}": page_file("board.css"),
        "{{board}}": page_file("board.js"),
        "{{player}}": page_file("player.js"),
        "{{data}}": text,
    }.items():
        page = page.replace(mark, content)
    path.write_text(page, encoding="utf-8")


def page_file(name: str) -> str:
    """The text of a file that lies beside this one."""
    return resources.files(__package__).joinpath(name).read_text("utf-8")


def layout(look: BoardStyle) -> dict:
    """The shape of a board."""
    return {
        "kind": look.kind,
        "rows": int(look.rows),
        "columns": int(look.columns),
        "box": look.box,
    }


def board(look: BoardStyle, frame: Frame) -> list[CellData]:
    """What every shown cell of a frame is, in reading order."""
    return [
        (cell.symbol, NAMES[cell.mark], cell.fill, round(float(frame.cells[cell.index]), 3))
        for line in look.cells(frame.values, frame.marks)
        for cell in line
    ]
