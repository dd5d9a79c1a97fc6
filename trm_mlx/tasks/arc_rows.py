"""Structured rows: the embedding of a version of an ARC puzzle as a sum of rows.

One row is the puzzle's, one that of its transform, and one for each colour and what it becomes. So
all versions of a puzzle are learnt together, and a new puzzle needs one new row. mdlARC gained from
a row for each symmetry; colours are told here too, as the model sees no demonstration pairs.
"""

from collections.abc import Sequence

import numpy as np

from trm_mlx.tasks.arc import COLOURS, SEPARATOR, TRANSFORMS, read_name

RECOLOURED = COLOURS - 1  # colours that a version permutes: all but 0
FIRST_COLOUR_ROW = 1 + TRANSFORMS  # after the blank row and those of the transforms
SHARED = FIRST_COLOUR_ROW + RECOLOURED**2  # rows before those of the puzzles
PARTS = 2 + RECOLOURED  # rows of one embedding


def parts_of(names: Sequence[str]) -> np.ndarray:
    """Return the rows that make the embedding of every version, int32 ``[N, PARTS]``.

    Args:
        names: of the versions, the blank one first, as in identifiers.json. Puzzles are numbered as
            they first occur.

    Raises:
        InputError: a name that the builder does not write.
    """
    puzzles: dict[str, int] = {}
    parts = np.zeros((len(names), PARTS), np.int32)
    each = np.arange(RECOLOURED) * RECOLOURED + FIRST_COLOUR_ROW - 1
    for version, name in enumerate(names[1:], start=1):
        puzzle, symmetry = read_name(name)
        parts[version, 0] = puzzles.setdefault(puzzle, SHARED + len(puzzles))
        parts[version, 1] = 1 + symmetry.transforms[0]
        parts[version, 2:] = each + symmetry.colours[0, 1:]
    return parts


def row_names(names: Sequence[str]) -> list[str]:
    """Return a name for every row of the table, given those of the versions."""
    shared = [f"{SEPARATOR}{row}" for row in range(1, SHARED)]
    puzzles = dict.fromkeys(name.partition(SEPARATOR)[0] for name in names[1:])
    return [*names[:1], *shared, *puzzles]
