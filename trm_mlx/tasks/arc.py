"""ARC: coloured grids of up to 30x30 cells as tokens and text, their symmetries and their names.

A *grid* is a uint8 array of colours 0..9, ``[rows, columns]``. A *canvas* holds one grid as the
tokens of a model, uint8 ``[900]``: 0 is padding, colour c is c + 2, and 1 ends the grid, in the row
below it and the column right of it where they fit. Tokens, symmetries and names are those of the
published builder and evaluator (``dataset/build_arc_dataset.py``, ``evaluators/arc.py`` of TRM), so
that datasets and identifiers of either are understood by the other.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trm_mlx.errors import InputError

SIZE = 30  # rows and columns of a canvas
COLOURS = 10
PAD, END, FIRST_COLOUR = 0, 1, 2
SEPARATOR = "|||"  # between the parts of an augmented puzzle's name
PUZZLES_FILE = "test_puzzles.json"  # of a dataset: the puzzles held out, with their solutions

# The dihedral group in the published order: whether to transpose, then steps of rows and columns.
_TRANSFORMS = (
    (False, 1, 1),
    (True, -1, 1),  # rotated by 90 degrees counter-clockwise
    (False, -1, -1),
    (True, 1, -1),
    (False, 1, -1),  # mirrored left to right
    (False, -1, 1),
    (True, 1, 1),
    (True, -1, -1),
)
_INVERSES = np.array([0, 3, 2, 1, 4, 5, 6, 7])
_TRANSPOSES = np.array([transposed for transposed, _, _ in _TRANSFORMS])
TRANSFORMS = len(_TRANSFORMS)


def transform(grid: np.ndarray, number: int) -> np.ndarray:
    """The image ``[rows, columns]`` of a grid under transform 0..7; a view, no copy."""
    transposed, rows, columns = _TRANSFORMS[number]
    return (grid.T if transposed else grid)[::rows, ::columns]


# Grids and canvases


def check_grid(cells: object) -> np.ndarray:
    """A grid from nested lists, such as JSON gives.

    Raises:
        InputError: not a rectangle of 1x1 to 30x30 whole numbers 0..9.
    """
    try:
        grid = np.array(cells)
    except ValueError as error:
        raise InputError("the rows differ in length; make it a rectangle") from error
    if grid.ndim != 2 or not grid.size or grid.dtype.kind not in "iu":
        raise InputError("not a grid; write rows of whole numbers from 0 to 9, at least 1x1")
    if max(grid.shape) > SIZE:
        raise InputError(
            f"a grid of {grid.shape[0]}x{grid.shape[1]} cells is larger than {SIZE}x{SIZE}"
        )
    for colour in grid[(grid < 0) | (grid >= COLOURS)]:
        raise InputError(f"{colour} is no colour; use 0 to {COLOURS - 1}")
    return grid.astype(np.uint8)


def grid_key(grid: np.ndarray) -> bytes:
    """What two grids share if and only if they are equal: the number of rows, then the cells."""
    return bytes([len(grid)]) + grid.tobytes()


def grid_of_key(key: bytes) -> np.ndarray:
    """The grid of a `grid_key`, with as many rows; without cells, ``[0, 0]``."""
    return np.frombuffer(key, np.uint8, offset=1).reshape(key[0], -1 if key[0] else 0)


def canvas_of(grid: np.ndarray) -> np.ndarray:
    """A grid at the top left of a canvas ``[900]``."""
    rows, columns = grid.shape
    canvas = np.full((SIZE + 1, SIZE + 1), PAD, np.uint8)
    canvas[rows, :columns] = END
    canvas[:rows, columns] = END
    canvas[:rows, :columns] = grid + np.uint8(FIRST_COLOUR)
    return canvas[:SIZE, :SIZE].ravel()


def crop_sizes(canvases: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the largest rectangle of colours at the top left of each canvas.

    Of several largest the one with the fewest rows; (0, 0) where the corner holds no colour.

    Args:
        canvases: ``[N, 900]`` of any tokens, a model's answers for instance.
    """
    cells = canvases.reshape(-1, SIZE, SIZE)
    coloured = (cells >= FIRST_COLOUR) & (cells < FIRST_COLOUR + COLOURS)
    unbroken = np.logical_and.accumulate(coloured, axis=2).sum(axis=2)
    widths = np.minimum.accumulate(unbroken, axis=1)
    rows = (widths * np.arange(1, SIZE + 1)).argmax(axis=1)
    columns = widths[np.arange(len(cells)), rows]
    return np.where(columns > 0, rows + 1, 0), columns


def grids_of(canvases: np.ndarray) -> list[np.ndarray]:
    """The grid that each of N canvases ``[N, 900]`` shows at its top left, see `crop_sizes`."""
    sizes = zip(*crop_sizes(canvases), strict=True)
    colours = (canvases - FIRST_COLOUR).astype(np.uint8).reshape(-1, SIZE, SIZE)
    return [c[:rows, :columns] for c, (rows, columns) in zip(colours, sizes, strict=True)]


# Symmetries


@dataclass(frozen=True)
class Symmetry:
    """N symmetries: each recolours a grid and then turns or mirrors it.

    transforms: [N], numbers 0..7 for `transform`.
    colours: [N, 10] uint8, the new colour of each colour.
    """

    transforms: np.ndarray
    colours: np.ndarray

    @classmethod
    def identity(cls) -> "Symmetry":
        """The one that changes nothing, N = 1."""
        return cls(np.zeros(1, np.int64), np.arange(COLOURS, dtype=np.uint8)[None])

    @classmethod
    def sample(cls, rng: np.random.Generator, count: int) -> "Symmetry":
        """`count` independent symmetries, uniformly; colour 0, the background, stays."""
        colours = np.tile(np.arange(COLOURS, dtype=np.uint8), (count, 1))
        rng.permuted(colours[:, 1:], axis=1, out=colours[:, 1:])
        return cls(rng.integers(TRANSFORMS, size=count), colours)

    def __len__(self) -> int:
        return len(self.transforms)

    def __getitem__(self, rows) -> "Symmetry":
        """Those of the given rows: a slice, a mask or an array of numbers."""
        return Symmetry(self.transforms[rows], self.colours[rows])

    def joined(self, other: "Symmetry") -> "Symmetry":
        """These, then the other ones."""
        return Symmetry(
            np.concatenate([self.transforms, other.transforms]),
            np.concatenate([self.colours, other.colours]),
        )

    @property
    def transposes(self) -> np.ndarray:
        """Which of them turn rows into columns, bool [N]."""
        return _TRANSPOSES[self.transforms]

    def image(self, grid: np.ndarray, row: int = 0) -> np.ndarray:
        """What symmetry `row` makes of one grid."""
        return transform(self.colours[row][grid], self.transforms[row])

    def apply(self, canvases: np.ndarray) -> np.ndarray:
        """Canvases ``[N, 900]``, or ``[900]`` for N images of one, to the canvases of the images.

        Only the grid at the top left of a canvas counts; its image comes to the top left again.
        """
        grids = grids_of(np.broadcast_to(canvases, (len(self), SIZE**2)))
        return np.stack([canvas_of(self.image(grid, row)) for row, grid in enumerate(grids)])

    def move(self, numbers: np.ndarray, canvases: np.ndarray) -> np.ndarray:
        """Numbers ``[N, 900]`` about the cells of the canvases' grids, to their images; 0 beside.

        Args:
            canvases: ``[N, 900]``, not their images.
        """
        moved = np.zeros((len(self), SIZE, SIZE), numbers.dtype)
        sizes = zip(*crop_sizes(canvases), strict=True)
        for row, (rows, columns) in enumerate(sizes):
            grid = numbers[row].reshape(SIZE, SIZE)[:rows, :columns]
            image = transform(grid, self.transforms[row])
            moved[row, : image.shape[0], : image.shape[1]] = image
        return moved.reshape(len(self), -1)

    def inverse(self) -> "Symmetry":
        """The symmetries that undo these: ``s.inverse().image(s.image(grid)) == grid``."""
        return Symmetry(
            _INVERSES[self.transforms], np.argsort(self.colours, axis=1).astype(np.uint8)
        )

    def names(self, puzzle: str) -> list[str]:
        """The names of the images of a puzzle, ``PUZZLE|||t{0-7}|||{10 digits}``."""
        digits = (self.colours + ord("0")).tobytes().decode("ascii")
        return [
            f"{puzzle}{SEPARATOR}t{number}{SEPARATOR}{digits[COLOURS * row : COLOURS * (row + 1)]}"
            for row, number in enumerate(self.transforms)
        ]


def read_name(name: str) -> tuple[str, Symmetry]:
    """The original puzzle and the symmetry that a puzzle's name stands for.

    Raises:
        InputError: it has parts that no symmetry prints.
    """
    puzzle, *parts = name.split(SEPARATOR)
    if not parts:
        return puzzle, Symmetry.identity()
    number, digits = parts if len(parts) == 2 else ("", "")
    if number not in _NUMBERS or sorted(digits) != _DIGITS:
        raise InputError(
            f"{name!r} is no puzzle's name; it should read "
            f"PUZZLE{SEPARATOR}t0 to t7{SEPARATOR}a permutation of the digits 0 to 9"
        )
    colours = np.frombuffer(digits.encode("ascii"), np.uint8) - np.uint8(ord("0"))
    return puzzle, Symmetry(np.array([_NUMBERS[number]]), colours[None])


_NUMBERS = {f"t{number}": number for number in range(TRANSFORMS)}
_DIGITS = [str(colour) for colour in range(COLOURS)]


# The task


@dataclass(frozen=True)
class ARC:
    """ARC as a `Task`, but for `generate` and `check`.

    ARC puzzles are made by people, and no rule says without a label whether an answer is right.
    What asks a task of the registry for either cannot be asked about ARC, so it is not there.
    A board, and its cell values, is a canvas with its grid at the top left.
    """

    name = "arc"
    seq_len = SIZE**2
    vocab_size = FIRST_COLOUR + COLOURS

    def parse(self, text: str) -> np.ndarray:
        """A canvas from a grid's rows, one a line, a digit a cell; blanks and commas are ignored.

        Raises:
            InputError: a character that is no digit, or not a grid; see `check_grid`.
        """
        rows = [row for line in text.splitlines() if (row := line.replace(",", " ").split())]
        cells: list[Sequence[int]] = []
        for number, row in enumerate(rows, start=1):
            symbols = "".join(row)
            for symbol in symbols:
                if symbol not in _DIGITS:
                    raise InputError(f"row {number}: {symbol!r} is no colour; use 0 to 9")
            cells.append([int(symbol) for symbol in symbols])
        return canvas_of(check_grid(cells))

    def render(self, values: np.ndarray, givens: np.ndarray | None = None) -> str:
        """A grid's rows of digits; with `givens`, cells unlike that canvas's grid show a +."""
        (grid,) = grids_of(values[None])
        (given,) = grids_of((values if givens is None else givens)[None])
        same = np.zeros(grid.shape, bool)
        rows, columns = np.minimum(grid.shape, given.shape)
        same[:rows, :columns] = grid[:rows, :columns] == given[:rows, :columns]
        return "\n".join(
            "".join(f"{' ' if kept else '+'}{colour}" for colour, kept in zip(*pair, strict=True))
            for pair in zip(grid, same, strict=True)
        )

    def line(self, values: np.ndarray) -> str:
        """A grid in one line, its rows of digits parted by a slash."""
        return self.render(values).replace(" ", "").replace("\n", "/")

    def encode(self, values: np.ndarray) -> np.ndarray:
        """Canvases to tokens, which they are: ``[..., 900]`` uint8."""
        return np.asarray(values, np.uint8)

    def decode(self, tokens: np.ndarray) -> np.ndarray:
        """Any tokens ``[..., 900]`` to clean canvases: the cropped grid, its end, padding."""
        tokens = np.asarray(tokens)
        grids = grids_of(tokens.reshape(-1, SIZE**2))
        return np.stack([canvas_of(grid) for grid in grids]).reshape(tokens.shape)

    def conflicts(self, question: np.ndarray, answer: np.ndarray) -> np.ndarray:
        """None: what is right, no rule says."""
        return np.zeros(np.shape(answer), bool)

    def sample_symmetry(self, rng: np.random.Generator, count: int) -> Symmetry:
        """`count` independent symmetries, uniformly from the published builder's group."""
        return Symmetry.sample(rng, count)
