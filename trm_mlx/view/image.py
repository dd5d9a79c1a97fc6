"""Pictures by Pillow: a board with its steps and confidence, an animation, sheets of grids."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from trm_mlx.files import output_file
from trm_mlx.tasks.base import BoardStyle
from trm_mlx.view.recording import Frame, Mark, Recording, percent
from trm_mlx.view.style import (
    FILLS,
    INK,
    INKS,
    LINE,
    PAPER,
    QUIET,
    Cell,
    cells_of,
    legend_of,
    style_of,
)

MARGIN = 28
BOARD = 396  # pixels of the longer side of the final board, about
SHEET_BOARD, SHEET_TITLE = 180, 22  # pixels, of a grid on a sheet and the words above it
GAP = 14  # between the boards of the strip
STRIP = 6  # frames of the strip
FIRST, LAST, BETWEEN = 900, 2500, 500  # milliseconds of the frames of an animation
# Confidence from low to high: light to dark, so that it reads in grey too.
RAMP = ((255, 243, 199), (167, 210, 190), (86, 160, 190), (35, 96, 150), (13, 43, 94))


def save_png(recording: Recording, path: Path) -> None:
    """Save the final board and the confidence of its cells above a strip of the steps."""
    style = style_of(recording)
    size = cell_size(style, BOARD)
    width, height = style.columns * size, style.rows * size
    across = max(2 * width + 3 * MARGIN, 520)
    shown = chosen_frames(recording)
    per_row = 2 if style.columns > 4 * style.rows else STRIP  # a line of digits is wide
    thumbnail = cell_size(style, (across - 2 * MARGIN - (per_row - 1) * GAP) // per_row)
    strip_rows = -(-len(shown) // per_row)
    strip_step = style.rows * thumbnail + 34
    top = 64
    strip_top = top + height + 64
    image = Image.new("RGB", (across, strip_top + strip_rows * strip_step + MARGIN // 2), PAPER)
    draw = ImageDraw.Draw(image)
    final = recording.frames[-1]
    right = across - MARGIN - width
    _title(draw, MARGIN, recording.task.name, recording.ending)
    _title(draw, right, "confidence per cell", "in percent, of the cells that the model set")
    draw_board(draw, style, settled(recording), (MARGIN, top), size)
    draw_confidence(draw, style, final, (right, top), size)
    _legend(draw, style, (MARGIN, top + height + 14))
    _ramp(draw, (right, top + height + 14), width)
    for number, frame in enumerate(shown):
        row, column = divmod(number, per_row)
        x = MARGIN + column * (style.columns * thumbnail + GAP)
        y = strip_top + row * strip_step
        label = "question" if frame.step == 0 else f"step {frame.step}"
        draw.text((x, y - 18), label, QUIET, _font(12))
        draw_board(draw, style, frame, (x, y), thumbnail)
    image.save(path, "PNG")


def save_gif(recording: Recording, path: Path) -> None:
    """Save an animation of the question and every step; the last one stays longest."""
    style = style_of(recording)
    size = cell_size(style, BOARD)
    images = [_gif_frame(recording, style, frame, size) for frame in recording.frames]
    # One palette for all frames, so that no colour flickers.
    together = Image.new("RGB", (images[0].width, images[0].height * len(images)))
    for number, image in enumerate(images):
        together.paste(image, (0, number * image.height))
    palette = together.quantize(128)
    images = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    durations = [FIRST, *[BETWEEN] * (len(images) - 2), LAST][: len(images)]
    images[0].save(
        path,
        "GIF",
        save_all=True,
        append_images=images[1:],
        duration=durations,
        loop=0,
        optimize=False,
    )


def cell_size(style: BoardStyle, side: int) -> int:
    """Return the pixels of a cell where the longer side of a board has about ``side``."""
    return max(side // max(style.rows, style.columns), 3)


def chosen_frames(recording: Recording) -> list[Frame]:
    """Return up to `STRIP` frames, evenly spread, the first and the last among them."""
    last = len(recording.frames) - 1
    count = min(STRIP, last + 1)
    return [recording.frames[round(n * last / max(count - 1, 1))] for n in range(count)]


def settled(recording: Recording) -> Frame:
    """Return the last frame with its cells marked as given, filled or wrong only."""
    final = recording.frames[-1]
    filled = np.where(final.values == recording.frames[0].values, Mark.GIVEN, Mark.KEPT)
    marks = np.where(final.marks == Mark.WRONG, Mark.WRONG, filled)
    return final._replace(marks=marks)


def draw_board(
    draw: ImageDraw.ImageDraw, style: BoardStyle, frame: Frame, corner: tuple[int, int], size: int
) -> None:
    """Draw one board at ``corner``."""
    for row, cells in enumerate(cells_of(style, frame.values, frame.marks)):
        for column, cell in enumerate(cells):
            _cell(draw, style, cell, corner[0] + column * size, corner[1] + row * size, size)
    _lines(draw, style, corner, size)


def draw_confidence(
    draw: ImageDraw.ImageDraw, style: BoardStyle, frame: Frame, corner: tuple[int, int], size: int
) -> None:
    """Draw the probability of every cell as a colour, and in percent where there is room.

    Cells as in the question have none: the model only repeats them.
    """
    for row, cells in enumerate(cells_of(style, frame.values, frame.marks)):
        for column, cell in enumerate(cells):
            probability = float(frame.cells[cell.index])
            x, y = corner[0] + column * size, corner[1] + row * size
            given = cell.mark is Mark.GIVEN
            colour = FILLS[Mark.GIVEN] if given else ramp_colour(probability)
            draw.rectangle((x, y, x + size - 1, y + size - 1), colour)
            if size >= 26 and not given:
                ink = PAPER if probability > 0.6 else INK
                where = (x + size / 2, y + size / 2)
                draw.text(where, f"{probability:.0%}"[:-1], ink, _font(size * 0.34), anchor="mm")
    _lines(draw, style, corner, size)


def ramp_colour(probability: float) -> tuple[int, int, int]:
    """Return the colour of a probability."""
    place = min(max(probability, 0.0), 1.0) * (len(RAMP) - 1)
    low = min(int(place), len(RAMP) - 2)
    return tuple(
        round(a + (b - a) * (place - low)) for a, b in zip(RAMP[low], RAMP[low + 1], strict=True)
    )


def _cell(
    draw: ImageDraw.ImageDraw, style: BoardStyle, cell: Cell, x: int, y: int, size: int
) -> None:
    draw.rectangle((x, y, x + size - 1, y + size - 1), cell.fill)
    if cell.dot:
        edge = size * 0.27
        draw.ellipse((x + edge, y + edge, x + size - 1 - edge, y + size - 1 - edge), cell.dot)
    if cell.symbol not in style.hidden and size >= 7:
        where = (x + size / 2, y + size / 2)
        share = 0.8 if style.fills else 0.56
        draw.text(where, cell.symbol, cell.ink, _font(size * share), anchor="mm")
    if cell.mark is Mark.WRONG and size >= 12:  # a corner, as colour alone is not enough
        side = size // 4
        corner = [(x + size - 1 - side, y + 1), (x + size - 2, y + 1), (x + size - 2, y + 1 + side)]
        draw.polygon(corner, INKS[Mark.WRONG])


def _lines(
    draw: ImageDraw.ImageDraw, style: BoardStyle, corner: tuple[int, int], size: int
) -> None:
    x, y = corner
    right, bottom = x + style.columns * size, y + style.rows * size
    thick = 2 if size >= 12 else 1
    if size >= 8:
        for column in range(1, style.columns):
            draw.line((x + column * size, y, x + column * size, bottom), LINE)
        for row in range(1, style.rows):
            draw.line((x, y + row * size, right, y + row * size), LINE)
    box_rows, box_columns = style.box
    if box_rows:
        for column in range(box_columns, style.columns, box_columns):
            draw.line((x + column * size, y, x + column * size, bottom), INK, thick)
        for row in range(box_rows, style.rows, box_rows):
            draw.line((x, y + row * size, right, y + row * size), INK, thick)
    draw.rectangle((x - 1, y - 1, right, bottom), outline=INK, width=thick)


def _gif_frame(recording: Recording, style: BoardStyle, frame: Frame, size: int) -> Image.Image:
    width, height = style.columns * size, style.rows * size
    image = Image.new("RGB", (max(width, 340) + 2 * MARGIN, height + 144), PAPER)
    draw = ImageDraw.Draw(image)
    last = recording.frames[-1]
    label = "question" if frame.step == 0 else f"step {frame.step} of {last.step}"
    draw.text((MARGIN, 16), label, INK, _font(18))
    draw_board(draw, style, frame, ((image.width - width) // 2, 48), size)
    _legend(draw, style, (MARGIN, height + 60))
    bar = (MARGIN, height + 114, image.width - MARGIN, height + 124)
    draw.text((MARGIN, height + 89), f"sure it is done: {percent(frame.halting)}", INK, _font(14))
    if frame is last:
        ending = (image.width - MARGIN, 20)
        draw.text(ending, recording.ending, QUIET, _font(14), anchor="ra")
    draw.rectangle(bar, "#e6e9ec")
    if frame.halting > 0:
        draw.rectangle(
            (*bar[:2], bar[0] + (bar[2] - bar[0]) * frame.halting, bar[3]), INKS[Mark.KEPT]
        )
    return image


def _title(draw: ImageDraw.ImageDraw, x: int, title: str, subtitle: str) -> None:
    draw.text((x, 14), title, INK, _font(18))
    draw.text((x, 38), subtitle, QUIET, _font(13))


def _legend(draw: ImageDraw.ImageDraw, style: BoardStyle, corner: tuple[int, int]) -> None:
    x, y = corner
    for words, cell in legend_of(style):
        _cell(draw, style, cell, x, y, 14)
        draw.rectangle((x - 1, y - 1, x + 14, y + 14), outline=LINE)
        draw.text((x + 20, y), words, QUIET, _font(13))
        x += 38 + round(_font(13).getlength(words))


def _ramp(draw: ImageDraw.ImageDraw, corner: tuple[int, int], width: int) -> None:
    x, y = corner
    left, right = x + 30, x + width - 42
    draw.text((x, y), "0 %", QUIET, _font(13))
    for column in range(left, right):
        colour = ramp_colour((column - left) / (right - left - 1))
        draw.line((column, y + 2, column, y + 13), colour)
    draw.text((x + width, y), "100 %", QUIET, _font(13), anchor="ra")


def _font(size: float) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(max(size, 6))


# Sheets of grids

Labelled = tuple[str, np.ndarray]  # a grid and what is written above it


def save_sheet(rows: Sequence[Sequence[Labelled]], fills: Sequence[str], path: Path) -> None:
    """Save rows of labelled grids as a PNG file, a cell in the colour of its value.

    Raises:
        InputError: the file cannot be written.
    """
    across, down = SHEET_BOARD + MARGIN, SHEET_BOARD + MARGIN + SHEET_TITLE
    size = max(map(len, rows)) * across + MARGIN, len(rows) * down + MARGIN
    image = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(image)
    for row, boards in enumerate(rows):
        for column, (label, grid) in enumerate(boards):
            x, y = MARGIN + column * across, MARGIN + row * down
            draw.text((x, y), label, INK if "right" in label else QUIET, _font(13))
            y += SHEET_TITLE
            if not grid.size:
                draw.text((x, y), "an empty grid", QUIET, _font(13))
                continue
            cell = max(SHEET_BOARD // max(grid.shape), 3)
            for (i, j), value in np.ndenumerate(grid):
                corner = x + j * cell, y + i * cell
                box = (*corner, corner[0] + cell, corner[1] + cell)
                draw.rectangle(box, fills[value], LINE)
    with output_file(path) as unfinished:
        image.save(unfinished, "PNG")
