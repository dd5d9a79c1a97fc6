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
from trm_mlx.tasks.base import BoardStyle, Task

SIZE = 30  # rows and columns of a canvas
COLOURS = 10
PAD, END, FIRST_COLOUR = 0, 1, 2
FILLS = (
    "#ffffff", "#ffffff",  # padding, end
    "#000000", "#0074d9", "#ff4136", "#2ecc40", "#ffdc00",
    "#aaaaaa", "#f012be", "#ff851b", "#7fdbff", "#870c25",
)  # fmt: skip
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
    """Return the image ``[rows, columns]`` of a grid under transform 0..7, a view."""
    transposed, rows, columns = _TRANSFORMS[number]
    return (grid.T if transposed else grid)[::rows, ::columns]


# Grids and canvases


def check_grid(cells: object) -> np.ndarray:
    """Return the grid that nested lists, as JSON has them, hold.

    Raises:
        InputError: not a rectangle of 1x1 to 30x30 whole numbers 0..9.
    """
    try:
        grid = np.array(cells)
    except ValueError as error:
        raise InputError("the rows differ in length; make it a rectangle") from error
    if grid.ndim != 2 or not grid.size or grid.dtype.kind not in "iu":
        raise InputError(
            f"{_odd_cell(cells)}not a grid; write rows of whole numbers from 0 to 9, at least 1x1"
        )
    if max(grid.shape) > SIZE:
        raise InputError(
            f"a grid of {grid.shape[0]}x{grid.shape[1]} cells is larger than {SIZE}x{SIZE}"
        )
    for colour in grid[(grid < 0) | (grid >= COLOURS)]:
        raise InputError(f"{colour} is no colour; use 0 to {COLOURS - 1}")
    return grid.astype(np.uint8)


def _odd_cell(cells: object) -> str:
    """The first cell that is no whole number, and its place, to begin a message with."""
    if cells is None:
        return "missing, "
    rows = cells if isinstance(cells, list) else []
    for number, row in enumerate(rows, start=1):
        for column, cell in enumerate(row if isinstance(row, list) else [], start=1):
            if type(cell) is not int:
                return f"row {number}, column {column} is {cell!r}: "
    return ""


def pairs_of(puzzle: object, kind: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the pairs of grids, "train" or "test" ones, of a puzzle as JSON has it.

    Raises:
        InputError: it has none, or they are no grids; see `check_grid`.
    """
    pairs = puzzle.get(kind) if isinstance(puzzle, dict) else None
    listed = isinstance(pairs, list) and pairs and all(isinstance(pair, dict) for pair in pairs)
    if not listed:
        noun = {"train": "training pairs", "test": "tests"}[kind]
        raise InputError(f"has no list of {noun}; rebuild the dataset")
    return [(check_grid(pair.get("input")), check_grid(pair.get("output"))) for pair in pairs]


def grid_key(grid: np.ndarray) -> bytes:
    """Return a key that only equal grids share: the number of rows, then the cells."""
    return bytes([len(grid)]) + grid.tobytes()


def grid_of_key(key: bytes) -> np.ndarray:
    """Return the grid of a `grid_key`; without cells, ``[0, 0]``."""
    return np.frombuffer(key, np.uint8, offset=1).reshape(key[0], -1 if key[0] else 0)


def canvas_of(grid: np.ndarray) -> np.ndarray:
    """Return a canvas ``[900]`` with a grid at its top left."""
    rows, columns = grid.shape
    canvas = np.full((SIZE + 1, SIZE + 1), PAD, np.uint8)
    canvas[rows, :columns] = END
    canvas[:rows, columns] = END
    canvas[:rows, :columns] = grid + np.uint8(FIRST_COLOUR)
    return canvas[:SIZE, :SIZE].ravel()


def crop_sizes(canvases: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows and columns of the largest coloured rectangle at each canvas's top left.

    Of several largest it is the one with the fewest rows; (0, 0) where the corner has no colour.

    Args:
        canvases: any tokens ``[N, 900]``, such as a model's answers.
    """
    cells = canvases.reshape(-1, SIZE, SIZE)
    coloured = (cells >= FIRST_COLOUR) & (cells < FIRST_COLOUR + COLOURS)
    unbroken = np.logical_and.accumulate(coloured, axis=2).sum(axis=2)
    widths = np.minimum.accumulate(unbroken, axis=1)
    rows = (widths * np.arange(1, SIZE + 1)).argmax(axis=1)
    columns = widths[np.arange(len(cells)), rows]
    return np.where(columns > 0, rows + 1, 0), columns


def grids_of(canvases: np.ndarray) -> list[np.ndarray]:
    """Return the grid at the top left of each canvas ``[N, 900]``, see `crop_sizes`."""
    sizes = zip(*crop_sizes(canvases), strict=True)
    colours = (canvases - FIRST_COLOUR).astype(np.uint8).reshape(-1, SIZE, SIZE)
    return [c[:rows, :columns] for c, (rows, columns) in zip(colours, sizes, strict=True)]


# Symmetries


@dataclass(frozen=True)
class Symmetry:
    """N symmetries: each recolours a grid, then rotates or reflects it.

    transforms: [N], numbers 0..7 for `transform`.
    colours: [N, 10] uint8, the new colour of each colour.
    """

    transforms: np.ndarray
    colours: np.ndarray

    @classmethod
    def identity(cls) -> "Symmetry":
        """Return the identity, N = 1."""
        return cls(np.zeros(1, np.int64), np.arange(COLOURS, dtype=np.uint8)[None])

    @classmethod
    def sample(cls, rng: np.random.Generator, count: int) -> "Symmetry":
        """Draw ``count`` independent symmetries, uniformly; colour 0, the background, stays."""
        colours = np.tile(np.arange(COLOURS, dtype=np.uint8), (count, 1))
        rng.permuted(colours[:, 1:], axis=1, out=colours[:, 1:])
        return cls(rng.integers(TRANSFORMS, size=count), colours)

    def __len__(self) -> int:
        return len(self.transforms)

    def __getitem__(self, rows) -> "Symmetry":
        """Return those of the given rows: a slice, a mask or an array of indices."""
        return Symmetry(self.transforms[rows], self.colours[rows])

    def joined(self, other: "Symmetry") -> "Symmetry":
        """Return these, followed by the other ones."""
        return Symmetry(
            np.concatenate([self.transforms, other.transforms]),
            np.concatenate([self.colours, other.colours]),
        )

    @property
    def transposes(self) -> np.ndarray:
        """Which of them turn rows into columns, bool ``[N]``."""
        return _TRANSPOSES[self.transforms]

    def image(self, grid: np.ndarray, row: int = 0) -> np.ndarray:
        """Return the image of one grid under symmetry ``row``."""
        return transform(self.colours[row][grid], self.transforms[row])

    def apply(self, canvases: np.ndarray) -> np.ndarray:
        """Return the images ``[N, 900]`` of canvases ``[N, 900]`` or ``[900]``.

        Only the grid at the top left of a canvas counts; its image is at the top left again.
        """
        grids = grids_of(np.broadcast_to(canvases, (len(self), SIZE**2)))
        return np.stack([canvas_of(self.image(grid, row)) for row, grid in enumerate(grids)])

    def move(self, numbers: np.ndarray, canvases: np.ndarray) -> np.ndarray:
        """Move numbers ``[N, 900]`` about the cells of the grids of ``canvases``; 0 elsewhere."""
        moved = np.zeros((len(self), SIZE, SIZE), numbers.dtype)
        sizes = zip(*crop_sizes(canvases), strict=True)
        for row, (rows, columns) in enumerate(sizes):
            grid = numbers[row].reshape(SIZE, SIZE)[:rows, :columns]
            image = transform(grid, self.transforms[row])
            moved[row, : image.shape[0], : image.shape[1]] = image
        return moved.reshape(len(self), -1)

    def inverse(self) -> "Symmetry":
        """Return the inverses: ``s.inverse().image(s.image(grid)) == grid``."""
        return Symmetry(
            _INVERSES[self.transforms], np.argsort(self.colours, axis=1).astype(np.uint8)
        )

    def names(self, puzzle: str) -> list[str]:
        """Return the names of the images of a puzzle, ``PUZZLE|||t{0-7}|||{10 digits}``."""
        digits = (self.colours + ord("0")).tobytes().decode("ascii")
        return [
            f"{puzzle}{SEPARATOR}t{number}{SEPARATOR}{digits[COLOURS * row : COLOURS * (row + 1)]}"
            for row, number in enumerate(self.transforms)
        ]


def read_name(name: str) -> tuple[str, Symmetry]:
    """Return the original puzzle and the symmetry that a puzzle's name stands for.

    Raises:
        InputError: it has parts that `Symmetry.names` does not write.
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
class ARC(Task):
    """ARC, without `generate` and `check`: people make its puzzles, labels decide.

    It is not registered, as whoever asks the registry for a task may generate and check. Boards
    and their cell values are canvases with the grid at the top left.
    """

    name = "arc"
    seq_len = SIZE**2
    vocab_size = FIRST_COLOUR + COLOURS
    has_rules = False

    def parse(self, text: str) -> np.ndarray:
        """Read a grid, a line a row, a digit a cell; spaces and commas are ignored.

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
        """Return a grid as rows of digits; with ``givens``, cells unlike that grid have a ``+``."""
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
        """Return a grid in one line, its rows of digits separated by slashes."""
        return self.render(values).replace(" ", "").replace("\n", "/")

    def encode(self, values: np.ndarray) -> np.ndarray:
        """Return canvases ``[..., 900]`` as uint8 tokens, which they are."""
        return np.asarray(values, np.uint8)

    def decode(self, tokens: np.ndarray) -> np.ndarray:
        """Turn any tokens ``[..., 900]`` into canvases: the cropped grid, its end, padding."""
        tokens = np.asarray(tokens)
        grids = grids_of(tokens.reshape(-1, SIZE**2))
        return np.stack([canvas_of(grid) for grid in grids]).reshape(tokens.shape)

    def sample_symmetry(self, rng: np.random.Generator, count: int) -> Symmetry:
        """Draw ``count`` independent symmetries, uniformly from the published builder's group."""
        return Symmetry.sample(rng, count)

    def board_style(self, boards: np.ndarray) -> BoardStyle:
        """Show as many rows and columns as the largest grid of the boards ``[N, 900]`` has."""
        rows, columns = (max(int(sizes.max()), 1) for sizes in crop_sizes(boards))
        symbols = "  0123456789"
        return BoardStyle(
            rows, columns, symbols, fills=FILLS, shows_marks=False, hidden=symbols, stride=SIZE
        )
