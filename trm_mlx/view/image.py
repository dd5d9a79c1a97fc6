"""Pictures of a film, by Pillow: the board with its steps and confidence, and an animation."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from trm_mlx.view.recording import Frame, Mark, Recording
from trm_mlx.view.style import (
    FILLS,
    INK,
    INKS,
    LINE,
    NAMES,
    PAPER,
    QUIET,
    BoardStyle,
    Cell,
    style_of,
)

MARGIN = 28
BOARD = 396  # pixels of the longer side of the final board, about
GAP = 14  # between the boards of the strip
STRIP = 6  # frames of the film strip
FIRST, LAST, BETWEEN = 900, 2500, 500  # milliseconds of the frames of an animation
# Confidence from low to high: light to dark, so that it reads in grey too.
RAMP = ((255, 243, 199), (167, 210, 190), (86, 160, 190), (35, 96, 150), (13, 43, 94))


def save_png(film: Recording, path: Path) -> None:
    """The final board beside the confidence of its cells, above a strip of the steps."""
    look = style_of(film)
    size = cell_size(look, BOARD)
    width, height = look.columns * size, look.rows * size
    across = max(2 * width + 3 * MARGIN, 520)
    shown = chosen_frames(film)
    per_row = 2 if look.columns > 4 * look.rows else STRIP  # a line of digits is wide
    thumbnail = cell_size(look, (across - 2 * MARGIN - (per_row - 1) * GAP) // per_row)
    strip_rows = -(-len(shown) // per_row)
    strip_step = look.rows * thumbnail + 34
    top = 64
    strip_top = top + height + 64
    image = Image.new("RGB", (across, strip_top + strip_rows * strip_step + MARGIN // 2), PAPER)
    draw = ImageDraw.Draw(image)
    final = film.frames[-1]
    right = across - MARGIN - width
    _title(draw, MARGIN, film.task.name, film.ending)
    _title(draw, right, "confidence per cell", "")
    draw_board(draw, look, settled(film), (MARGIN, top), size)
    draw_confidence(draw, look, final, (right, top), size)
    _legend(draw, look, (MARGIN, top + height + 14))
    _ramp(draw, (right, top + height + 14), width)
    for number, frame in enumerate(shown):
        row, column = divmod(number, per_row)
        x = MARGIN + column * (look.columns * thumbnail + GAP)
        y = strip_top + row * strip_step
        label = "question" if frame.step == 0 else f"step {frame.step}"
        draw.text((x, y - 18), label, QUIET, _font(12))
        draw_board(draw, look, frame, (x, y), thumbnail)
    image.save(path, "PNG")


def save_gif(film: Recording, path: Path) -> None:
    """A frame a step, the question first; the last one stays longest."""
    look = style_of(film)
    size = cell_size(look, BOARD)
    images = [_gif_frame(film, look, frame, size) for frame in film.frames]
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


def cell_size(look: BoardStyle, side: int) -> int:
    """Pixels of a cell where the longer side of a board gets about ``side``."""
    return max(side // max(look.rows, look.columns), 3)


def chosen_frames(film: Recording) -> list[Frame]:
    """Up to `STRIP` frames, evenly spread, the question and the last among them."""
    last = len(film.frames) - 1
    count = min(STRIP, last + 1)
    return [film.frames[round(n * last / max(count - 1, 1))] for n in range(count)]


def settled(film: Recording) -> Frame:
    """The last frame without its movement: cells are given, filled or wrong."""
    final = film.frames[-1]
    filled = np.where(final.values == film.frames[0].values, Mark.GIVEN, Mark.KEPT)
    marks = np.where(final.marks == Mark.WRONG, Mark.WRONG, filled)
    return final._replace(marks=marks)


def draw_board(
    draw: ImageDraw.ImageDraw, look: BoardStyle, frame: Frame, corner: tuple[int, int], size: int
) -> None:
    """One board at ``corner``."""
    for row, cells in enumerate(look.cells(frame.values, frame.marks)):
        for column, cell in enumerate(cells):
            _cell(draw, look, cell, corner[0] + column * size, corner[1] + row * size, size)
    _lines(draw, look, corner, size)


def draw_confidence(
    draw: ImageDraw.ImageDraw, look: BoardStyle, frame: Frame, corner: tuple[int, int], size: int
) -> None:
    """The probability of every cell as a colour, and in percent where there is room."""
    for row, cells in enumerate(look.cells(frame.values, frame.marks)):
        for column, cell in enumerate(cells):
            sure = float(frame.cells[cell.index])
            x, y = corner[0] + column * size, corner[1] + row * size
            draw.rectangle((x, y, x + size - 1, y + size - 1), ramp_colour(sure))
            if size >= 26:
                ink = PAPER if sure > 0.6 else INK
                where = (x + size / 2, y + size / 2)
                draw.text(where, f"{sure:.0%}"[:-1], ink, _font(size * 0.34), anchor="mm")
    _lines(draw, look, corner, size)


def ramp_colour(share: float) -> tuple[int, int, int]:
    """The colour of a probability."""
    place = min(max(share, 0.0), 1.0) * (len(RAMP) - 1)
    low = min(int(place), len(RAMP) - 2)
    return tuple(
        round(a + (b - a) * (place - low)) for a, b in zip(RAMP[low], RAMP[low + 1], strict=True)
    )


def _cell(
    draw: ImageDraw.ImageDraw, look: BoardStyle, cell: Cell, x: int, y: int, size: int
) -> None:
    draw.rectangle((x, y, x + size - 1, y + size - 1), cell.fill)
    if cell.symbol and look.kind != "arc" and size >= 7:
        where = (x + size / 2, y + size / 2)
        draw.text(where, cell.symbol, cell.ink, _font(size * 0.56), anchor="mm")
    if cell.mark is Mark.WRONG and size >= 12:  # a corner too: colour alone is not enough
        side = size // 4
        corner = [(x + size - 1 - side, y + 1), (x + size - 2, y + 1), (x + size - 2, y + 1 + side)]
        draw.polygon(corner, "#b34700")


def _lines(draw: ImageDraw.ImageDraw, look: BoardStyle, corner: tuple[int, int], size: int) -> None:
    x, y = corner
    right, bottom = x + look.columns * size, y + look.rows * size
    thick = 2 if size >= 12 else 1
    if size >= 8:
        for column in range(1, look.columns):
            draw.line((x + column * size, y, x + column * size, bottom), LINE)
        for row in range(1, look.rows):
            draw.line((x, y + row * size, right, y + row * size), LINE)
    box_rows, box_columns = look.box
    if box_rows:
        for column in range(box_columns, look.columns, box_columns):
            draw.line((x + column * size, y, x + column * size, bottom), INK, thick)
        for row in range(box_rows, look.rows, box_rows):
            draw.line((x, y + row * size, right, y + row * size), INK, thick)
    draw.rectangle((x - 1, y - 1, right, bottom), outline=INK, width=thick)


def _gif_frame(film: Recording, look: BoardStyle, frame: Frame, size: int) -> Image.Image:
    width, height = look.columns * size, look.rows * size
    image = Image.new("RGB", (max(width, 300) + 2 * MARGIN, height + 118), PAPER)
    draw = ImageDraw.Draw(image)
    last = film.frames[-1]
    label = "question" if frame.step == 0 else f"step {frame.step} of {last.step}"
    draw.text((MARGIN, 16), label, INK, _font(18))
    draw_board(draw, look, frame, ((image.width - width) // 2, 48), size)
    bar = (MARGIN, height + 88, image.width - MARGIN, height + 98)
    draw.text((MARGIN, height + 62), f"halting {frame.halting:.2f}", QUIET, _font(14))
    if frame is last:
        ending = (image.width - MARGIN, height + 62)
        draw.text(ending, film.ending, QUIET, _font(14), anchor="ra")
    draw.rectangle(bar, "#e6e9ec")
    if frame.halting > 0:
        draw.rectangle((*bar[:2], bar[0] + (bar[2] - bar[0]) * frame.halting, bar[3]), "#0072b2")
    return image


def _title(draw: ImageDraw.ImageDraw, x: int, title: str, subtitle: str) -> None:
    draw.text((x, 14), title, INK, _font(18))
    draw.text((x, 38), subtitle, QUIET, _font(13))


def _legend(draw: ImageDraw.ImageDraw, look: BoardStyle, corner: tuple[int, int]) -> None:
    if look.kind in ("arc", "maze"):
        return
    x, y = corner
    for mark in (Mark.GIVEN, Mark.KEPT, Mark.WRONG):
        draw.rectangle((x, y, x + 14, y + 14), FILLS[mark], outline=INKS[mark])
        draw.text((x + 20, y), NAMES[mark], QUIET, _font(13))
        x += 84


def _ramp(draw: ImageDraw.ImageDraw, corner: tuple[int, int], width: int) -> None:
    x, y = corner
    left, right = x + 30, x + width - 42
    draw.text((x, y), "0 %", QUIET, _font(13))
    for column in range(left, right):
        share = (column - left) / (right - left - 1)
        draw.line((column, y + 2, column, y + 13), ramp_colour(share))
    draw.text((x + width, y), "100 %", QUIET, _font(13), anchor="ra")


def _font(size: float) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(max(size, 6))
