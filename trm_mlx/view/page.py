"""A film as one HTML file that needs nothing else: a slider over the steps, play and pause."""

import html
import json
from importlib import resources
from pathlib import Path

from trm_mlx.view.film import Film, Mark
from trm_mlx.view.look import NAMES, look_of


def save_html(film: Film, path: Path) -> None:
    """Write the file; it asks no other host for anything."""
    look = look_of(film)
    frames = [
        {
            "step": frame.step,
            "halting": round(frame.halting, 4),
            "changes": frame.changes,
            "cells": [
                [cell.symbol, NAMES[cell.mark], cell.fill, round(float(frame.cells[cell.index]), 3)]
                for line in look.cells(frame.values, frame.marks)
                for cell in line
            ],
        }
        for frame in film.frames
    ]
    data = {
        "kind": look.kind,
        "rows": int(look.rows),
        "columns": int(look.columns),
        "box": look.box,
        "ending": film.ending,
        "wrong": NAMES[Mark.WRONG],
        "frames": frames,
    }
    # "<" could end the script element that the data stands in.
    text = json.dumps(data).replace("<", "\\u003c")
    template = resources.files(__package__).joinpath("page.html").read_text("utf-8")
    page = template.replace("{{title}}", html.escape(film.task.name)).replace("{{data}}", text)
    path.write_text(page, encoding="utf-8")
