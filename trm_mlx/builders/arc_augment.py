"""Many images of one ARC puzzle at once: which symmetries give new ones, and their tokens.

What is drawn, and when an image counts as new, is as in the published builder
(``dataset/build_arc_dataset.py`` of TRM). There every image is made and hashed cell by cell; here
the hash of an image is a sum over the colours of the puzzle, and images are painted all together.
"""

from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import numpy as np

from trm_mlx.builders.arc_files import Pair
from trm_mlx.tasks.arc import COLOURS, END, FIRST_COLOUR, SIZE, TRANSFORMS, Symmetry, transform

TRIES = 5  # symmetries drawn at most, for each that is wanted
EDGE = SIZE + 1  # painted canvases have room for the end marks, which are cropped afterwards
CANVASES_AT_ONCE = 2048  # little enough to stay in the processor's cache while painted


class Cells(NamedTuple):
    """All C cells and end marks of a puzzle's grids, the inputs before the outputs."""

    colours: np.ndarray  # [C], COLOURS for an end mark
    owners: np.ndarray  # [C] the grid a cell belongs to
    places: np.ndarray  # [8, C] where each transform puts it on a canvas of EDGE x EDGE


def cells_of(pairs: list[Pair]) -> Cells:
    """The cells of a puzzle's examples."""
    grids = [pair[side] for side in (0, 1) for pair in pairs]
    colours = [np.append(grid, np.full(sum(grid.shape), COLOURS, np.uint8)) for grid in grids]
    return Cells(
        np.concatenate(colours),
        np.repeat(np.arange(len(grids)), [len(each) for each in colours]),
        np.concatenate([_places(*grid.shape) for grid in grids], axis=1),
    )


@cache
def _places(rows: int, columns: int) -> np.ndarray:
    """Where each transform puts the cells, then the end marks, of a grid: [8, cells + marks]."""
    canvas = np.arange(EDGE**2).reshape(EDGE, EDGE)
    places = np.empty((TRANSFORMS, rows * columns + rows + columns), np.int64)
    for number, row in enumerate(places):
        image = transform(np.arange(rows * columns).reshape(rows, columns), number)
        height, width = image.shape
        row[image] = canvas[:height, :width]
        row[rows * columns :] = np.append(canvas[height, :width], canvas[:height, width])
    return places


def _palettes(symmetry: Symmetry) -> np.ndarray:
    """The token of each entry of ``Cells.colours`` under each symmetry, uint8 [N, COLOURS + 1]."""
    palettes = np.full((len(symmetry), COLOURS + 1), END, np.uint8)
    palettes[:, :COLOURS] = symmetry.colours + np.uint8(FIRST_COLOUR)
    return palettes


# Which images are new


def distinct(cells: Cells, count: int, rng: np.random.Generator) -> Symmetry:
    """The identity and up to ``count`` random symmetries whose images of the puzzle all differ.

    Two images are the same puzzle if they hold the same pairs, in any order. Symmetries are drawn
    one by one and kept if their image is new, at most TRIES * count of them.
    """
    kept, tries = Symmetry.identity(), TRIES * count
    key_sums = _key_sums(cells)
    seen = set(_hashes(key_sums, kept).tolist())
    while (missing := count + 1 - len(kept)) and tries:
        drawn = Symmetry.sample(rng, min(missing, tries))
        tries -= len(drawn)
        new = []
        for row, image in enumerate(_hashes(key_sums, drawn).tolist()):
            if image not in seen:
                seen.add(image)
                new.append(row)
        kept = kept.joined(drawn[new])
    return kept


# A random number for each place of a canvas; an image's hash is the sum of number * token. Two
# different canvases share it with a chance of at most 8 / 2**64, as their tokens differ by < 16.
_PLACE_KEYS = np.random.default_rng(30).integers(2**64, size=EDGE**2, dtype=np.uint64)


def _key_sums(cells: Cells) -> np.ndarray:
    """Sums of keys over the cells of each transform, grid and colour, [8, grids, COLOURS + 1]."""
    sums = np.zeros((TRANSFORMS, cells.owners[-1] + 1, COLOURS + 1), np.uint64)
    np.add.at(sums, (slice(None), cells.owners, cells.colours), _PLACE_KEYS[cells.places])
    return sums


def _hashes(key_sums: np.ndarray, symmetry: Symmetry) -> np.ndarray:
    """One number for each image, the same for any order of its pairs, uint64 [N]."""
    tokens = _palettes(symmetry).astype(np.uint64)
    grids = np.einsum("ngc,nc->ng", key_sums[symmetry.transforms], tokens)
    inputs, outputs = np.split(grids, 2, axis=1)
    return _scrambled(inputs + _scrambled(outputs)).sum(axis=1)


def _scrambled(numbers: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64, which leaves no arithmetic relation between hashes."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        numbers = (numbers ^ (numbers >> np.uint64(shift))) * np.uint64(factor)
    return numbers ^ (numbers >> np.uint64(31))


# Painting


def paint(
    pairs: list[Pair], symmetry: Symmetry, rng: np.random.Generator | None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The images of all pairs under each symmetry in turn: (inputs, labels), uint8 [n, 900] each.

    With ``rng`` both grids of a pair are moved together to a random place where they fit, all but
    those of one random pair of each image, which stay at the top left.
    """
    cells = cells_of(pairs)
    step = max(1, CANVASES_AT_ONCE // (2 * len(pairs)))
    for start in range(0, len(symmetry), step):
        part = symmetry[start : start + step]
        shifts = (
            np.zeros((len(part), len(pairs)), np.int64)
            if rng is None
            else (_random_shifts(pairs, part, rng))
        )
        yield _painted(cells, part, shifts)


def _random_shifts(pairs: list[Pair], symmetry: Symmetry, rng: np.random.Generator) -> np.ndarray:
    """How far along its canvas each pair of each image moves, [N, pairs]."""
    sizes = np.array([np.maximum(before.shape, after.shape) for before, after in pairs])
    room = SIZE - sizes[None].repeat(len(symmetry), axis=0)  # [N, pairs, 2]: rows and columns
    room[symmetry.transposes] = room[symmetry.transposes][..., ::-1]
    rows, columns = np.moveaxis(rng.integers(room, endpoint=True), 2, 0)
    shifts = rows * EDGE + columns
    shifts[np.arange(len(shifts)), rng.integers(len(pairs), size=len(shifts))] = 0
    return shifts


def _painted(cells: Cells, symmetry: Symmetry, shifts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``paint`` for symmetries whose images fit in memory together."""
    count, pairs = shifts.shape
    canvases = np.zeros((2, count, pairs, EDGE, EDGE), np.uint8)
    first = np.arange(2 * count * pairs).reshape(2, count, pairs) * EDGE**2 + shifts
    first = first.swapaxes(0, 1).reshape(count, 2 * pairs)  # as the grids that own the cells
    places = cells.places[symmetry.transforms]
    places += first[:, cells.owners]
    canvases.reshape(-1)[places] = np.take(_palettes(symmetry), cells.colours, axis=1)
    inputs, labels = canvases[..., :SIZE, :SIZE].reshape(2, count * pairs, SIZE**2)
    return inputs, labels
