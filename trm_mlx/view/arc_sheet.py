"""A picture of an ARC task and its answers: the pairs above, what is asked and answered below."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from trm_mlx.atomic import atomic_file
from trm_mlx.errors import InputError, refusal
from trm_mlx.tasks.arc import FILLS, FIRST_COLOUR
from trm_mlx.view.style import INK, LINE, PAPER, QUIET

BOARD, MARGIN, TITLE = 180, 24, 22  # pixels

Labelled = tuple[str, np.ndarray]  # a grid and what is written above it


def save_sheet(rows: Sequence[Sequence[Labelled]], path: Path) -> None:
    """Save rows of labelled grids as a PNG file.

    Raises:
        InputError: the file cannot be written.
    """
    columns = max(map(len, rows))
    width = columns * (BOARD + MARGIN) + MARGIN
    image = Image.new("RGB", (width, len(rows) * (BOARD + TITLE + MARGIN) + MARGIN), PAPER)
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(13)
    for row, boards in enumerate(rows):
        y = MARGIN + row * (BOARD + TITLE + MARGIN)
        for column, (label, grid) in enumerate(boards):
            x = MARGIN + column * (BOARD + MARGIN)
            draw.text((x, y), label, INK if "right" in label else QUIET, font)
            _board(draw, grid, (x, y + TITLE))
    try:
        with atomic_file(path) as unfinished:
            image.save(unfinished, "PNG")
    except OSError as error:
        raise InputError(f"cannot write {path}: {refusal(error)}") from error


def _board(draw: ImageDraw.ImageDraw, grid: np.ndarray, corner: tuple[int, int]) -> None:
    size = max(BOARD // max(grid.shape), 3)
    for (row, column), colour in np.ndenumerate(grid):
        x, y = corner[0] + column * size, corner[1] + row * size
        draw.rectangle((x, y, x + size, y + size), FILLS[FIRST_COLOUR + int(colour)], LINE)
