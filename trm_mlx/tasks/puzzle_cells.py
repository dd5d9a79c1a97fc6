"""The cells of boards that stand as lines of text: every common way to lay out a Sudoku or maze.

``puzzle_text.py`` cuts a text into blocks of lines; here a block becomes boards of one character a
cell, in reading order, or the error that says what is wrong with it.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator
from itertools import combinations
from typing import NamedTuple

from trm_mlx.errors import InputError
from trm_mlx.tasks.base import WrongCells
from trm_mlx.tasks.puzzle_wrappings import decimals, plain_cell, without_labels

BOX_ROWS = {4: 2, 6: 2, 9: 3}  # rows of a box, by the size of a Sudoku
SIDES = range(5, 100)  # of mazes; a 4x4 one would look like a 4x4 Sudoku to `registry.fitting`
PARTING = 20  # spaces at every second place that part the cells of a maze, and are none
LEAST = 3  # rows and columns of a maze that is surrounded with walls
BLANKS = frozenset("._xX*?-#")  # of a Sudoku, beside 0
SIDE_OF = {size**2: size for size in BOX_ROWS}  # the sides of boards, by their cells
MAZE_LETTERS = frozenset("SsGgEeOo")

_DIGITS = frozenset("0123456789")
_SEPARATORS = str.maketrans("", "", "|+,;:&\"'`[](){}/\\ \t")  # between cells
_RULE = re.compile(r"""(?=.*[-=].*[-=])[-=+*|:.'`\s]+""")
_BARE_RULE = re.compile(r"[-|\s]+")  # it could as well be a row of blanks
_MARKDOWN_RULE = re.compile(r"\s*\|?(\s*:?-+:?\s*\|)+(\s*:?-+:?)?\s*")
_ROUNDED = re.compile(r"\s*\d([.,]\d+)?E\+?\d+\s*", re.IGNORECASE)
_WRITE_ALL = "write every cell, blanks as . or 0"
_EXPORT = "a spreadsheet has rounded it to a number, export that column as text"
_TOKENS = re.compile(r"""[\s,;:=|&"'`\[\](){}/\\]+""")

Rows = list[str]


class Board(NamedTuple):
    """A board found in a block of lines: one character a cell, or what is wrong with it.

    line: the index of its first line in the block; side: of the board it is, or looks like; 0
    where it looks like none; shape: the rows and columns of a maze at the top left of a board of
    that side, where walls fill the rest; None: all of it.
    """

    line: int
    side: int
    cells: str
    error: InputError | None = None
    shape: tuple[int, int] | None = None


def compact(line: str) -> str:
    """The cells of a line whose blanks are written."""
    return line.translate(_SEPARATORS)


def whole_boards(line: str) -> list[str]:
    """The words of a line that are Sudokus of their own: all of its longest ones of such a length.

    Other words are names and ratings. A second board without blanks is the answer of the first.
    """
    words = [word for word in _TOKENS.split(line) if len(word) in SIDE_OF and _has_cells(word)]
    longest = [word for word in words if len(word) == max(map(len, words))]
    return longest[:1] + [word for word in longest[1:] if set(word) & (BLANKS | {"0"})]


def _has_cells(word: str) -> bool:
    others = set(word) - _DIGITS
    return len(others) < 2 or others <= BLANKS


def _is_spaced(row: str) -> bool:
    """Whether every second character is a space, so that one stands between any two cells."""
    return not row[1::2].strip()


# Sudoku


def sudoku_boards(lines: Rows, size: int | None = None) -> list[Board]:
    """The Sudokus of a block: lines of one board, or one board a line.

    Args:
        size: the side of the boards wanted, for messages about what is none.
    """
    lines = [line.rstrip(" ") for line in lines]
    fixed = [_fixed_line(line) for line in lines]
    if len(lines) == 1 and fixed[0]:
        return _boards(fixed)
    if problem := _larger_board(lines):
        return [Board(0, 0, "", problem)]
    if any(map(whole_boards, lines)):
        return list(_one_a_line(lines, fixed))
    if problem := _pencil_marks(lines):
        return [Board(0, size or 9, "", problem)]
    for numbers in _without_borders(lines):
        rows = [lines[number] for number in numbers]
        for layout in (_compact, _delimited, _boxed, _fixed_width, _fixed_width_spaced, decimals):
            if boards := _boards(layout(rows)):
                return [board._replace(line=numbers[board.line]) for board in boards]
    if all(fixed):
        return [Board(number, SIDE_OF[len(cells)], cells) for number, cells in enumerate(fixed)]
    if board := _labelled(lines):
        return [board]
    return list(_explain_invalid_sudoku(lines, size))


def _larger_board(lines: Rows) -> InputError | None:
    """What to say of 16 rows of 16 cells that are not 16 boards of 4x4."""
    rows = [compact(line) for line in lines]
    if [*map(len, rows)] != [16] * 16 or not set("".join(rows)) - set("01234") - BLANKS:
        return None
    return InputError("16 rows of 16 cells are a 16x16 Sudoku; no model here knows it")


def _labelled(lines: Rows) -> Board | None:
    """The board of rows that letters or numbers lead, or decimals; None if they are none."""
    for numbers in _without_borders(lines):
        rows = without_labels([lines[number] for number in numbers])
        for layout in (_compact, _delimited, _boxed, decimals) if rows else ():
            boards = _boards(layout(rows))
            if len(boards) == 1 and boards[0].side == len(rows):
                return boards[0]._replace(line=numbers[-len(rows)])
    return None


def _one_a_line(lines: Rows, fixed: list[str | None]) -> Iterator[Board]:
    """A board a line, such as a collection; lines that hold none keep their places."""
    found = [whole_boards(line) for line in lines]
    side = Counter(SIDE_OF[len(boards[0])] for boards in found if boards).most_common(1)[0][0]
    for number, line in enumerate(lines):
        cells = compact(line)
        boards = found[number] or [board for board in (fixed[number], cells) if board][:1]
        if found[number] or fixed[number] or len(cells) in SIDE_OF:
            yield from (Board(number, SIDE_OF[len(board)], board) for board in boards)
        elif cells != str(len(lines) - 1):  # the number of puzzles leads some collections
            yield Board(number, side, cells, _wrong_count(cells, side, line))


def _without_borders(lines: Rows) -> Iterator[list[int]]:
    """The numbers of the lines that may be rows, if lines between boxes are left out.

    Where a blank is written ``-``, a line of dashes may be a row.
    """
    rules = {n for n, line in enumerate(lines) if _RULE.fullmatch(line)}
    bare = {n for n, line in enumerate(lines) if _BARE_RULE.fullmatch(line)}
    seen = []
    for left_out in (rules, rules - bare, set()):
        numbers = [n for n in range(len(lines)) if n not in left_out]
        if numbers and numbers not in seen:
            seen.append(numbers)
            yield numbers
            if len(numbers) > 1 and 1 in rules and _MARKDOWN_RULE.fullmatch(lines[1]):
                yield numbers[1:]  # the first line of a Markdown table names its columns


def _boards(rows: Rows | None) -> list[Board]:
    """Boards of rows of cells, if all rows are alike and no cell is left over."""
    if not rows:
        return []
    width, cells = len(rows[0]), "".join(rows)
    alike = all(len(row) == width for row in rows)
    if alike and width in SIDE_OF:
        return [Board(number, SIDE_OF[width], row) for number, row in enumerate(rows)]
    if alike and width in BOX_ROWS and len(rows) % width == 0:
        starts = range(0, len(rows), width)
        return [Board(start, width, "".join(rows[start : start + width])) for start in starts]
    side = SIDE_OF.get(len(cells), 0)
    wrapped = all(len(row) == width for row in rows[:-1]) and len(rows[-1]) <= width
    # Four rows of nine are what is left of a 9x9 board whose other rows look like lines.
    if side and wrapped and (width == 1 or (width > side and width not in BOX_ROWS)):
        return [Board(0, side, cells)]  # one cell a line, or lines broken at some length
    return []


def _compact(rows: Rows) -> Rows:
    """Every cell is a character, whatever stands between them."""
    return [compact(row) for row in rows]


def _delimited(rows: Rows) -> Rows | None:
    """Cells between commas, tabs or bars; a blank may be nothing."""
    for mark in "\t,;|&":
        if all(mark in row for row in rows):
            split = [[*map(plain_cell, _unframed(row, mark))] for row in rows]
            if all(len(cell) <= 1 for row in split for cell in row):
                return ["".join(cell or "." for cell in row) for row in split]
    return None


def _unframed(row: str, mark: str) -> list[str]:
    cells = row.strip(" ").removesuffix("\\\\").split(mark)
    if mark == "|" and not cells[0] and not cells[-1]:
        return cells[1:-1]
    # A list of numbers may end in a comma.
    return cells[:-1] if len(cells) - 1 in BOX_ROWS and not cells[-1].strip() else cells


def _boxed(rows: Rows) -> Rows | None:
    """Boxes between bars whose blanks are spaces: ``|53 | 7 |   |``, or a space around each."""
    found = []
    for row in rows:
        boxes = row.strip().strip("|").split("|") if "|" in row else []
        widths = set(map(len, boxes[:-1]))
        if len(widths) != 1 or not widths <= {2, 3, 5, 7}:
            return None
        width = widths.pop()
        boxes[-1] = boxes[-1].ljust(width)
        if width > 3:
            if any(box[::2].strip() for box in boxes):
                return None
            boxes = [box[1::2] for box in boxes]
        found.append("".join(boxes).replace(" ", "."))
    return found


def _fixed_width(rows: Rows) -> Rows | None:
    """As many characters as rows, blanks as spaces, those at the end of a row perhaps lost."""
    side = len(rows)
    if side not in BOX_ROWS or set("".join(rows)) - _DIGITS - {" "}:
        return None
    indent = max(0, max(map(len, rows)) - side)
    if any(row[:indent].strip() for row in rows):
        return None
    return [row[indent:].ljust(side).replace(" ", ".") for row in rows]


def _fixed_width_spaced(rows: Rows) -> Rows | None:
    """As `_fixed_width`, with a space between any two cells."""
    margin = min(len(row) - len(row.lstrip(" ")) for row in rows) % 2
    rows = [row[margin:] for row in rows]
    return _fixed_width([row[::2].rstrip() for row in rows]) if all(map(_is_spaced, rows)) else None


def _fixed_line(line: str) -> str | None:
    """The cells of a board in one line, blanks as spaces, those at the end perhaps lost."""
    digits = line.replace(" ", "")
    if not digits.isdecimal() or digits == line:
        return None
    if SIDE_OF.get(len(digits), 0) >= int(max(digits)):
        return None  # spaces between the cells
    for cells, side in SIDE_OF.items():
        if cells - side < len(line) <= cells:
            return line.ljust(cells).replace(" ", ".")
    return None


def _pencil_marks(lines: Rows) -> InputError | None:
    """What to say of rows whose cells hold several digits, as those of a half solved puzzle."""
    rows = [re.split(r"[\s|,]+", line.strip(" |,")) for line in lines]
    rows = [row for row in rows if "".join(row).isdecimal()]
    counts = set(map(len, rows))
    if len(counts) != 1 or not counts <= {*BOX_ROWS, *SIDE_OF} or _fixed_width(lines):
        return None
    cells = [cell for row in rows for cell in row]
    several = max(cells, key=len)
    rising = all(list(cell) == sorted(set(cell)) and cell[:1] != "0" for cell in cells)
    if not rising or len(several) == 1:
        return None
    return InputError(
        f"a cell holds {several!r}: these are candidates (pencil marks), which no model reads; "
        "write one digit a cell, . for those not yet known"
    )


def _explain_invalid_sudoku(lines: Rows, size: int | None) -> Iterator[Board]:
    """What a block that holds no board looks like."""
    numbers = next(_without_borders(lines), [])
    rows = [compact(lines[number]) for number in numbers]
    if not any(rows) and size is None:
        return
    width = Counter(map(len, rows)).most_common(1)[0][0]
    if width in SIDE_OF and len(rows) > 1:
        for number, row in zip(numbers, rows, strict=True):
            side = SIDE_OF.get(len(row))
            problem = None if side else _wrong_count(row, SIDE_OF[width], lines[number])
            yield Board(number, side or SIDE_OF[width], row, problem)
        return
    count, left_over = divmod(width, len(rows))
    if len(rows) in BOX_ROWS and count > 1 and not left_over and {*map(len, rows)} == {width}:
        problem = InputError(f"{count} boards side by side: write one below the other")
        yield Board(numbers[0], len(rows), "", problem)
        return
    cells, first = "".join(rows), lines[numbers[0]]
    near = [side for side in BOX_ROWS if abs(len(cells) - side**2) <= side]
    side = size or (width if len(rows) > 1 and width in BOX_ROWS else max(near, default=0))
    if not side:
        remedy = _EXPORT if _ROUNDED.fullmatch(first) else "blanks as . or 0"
        problem = InputError(f"{len(cells)} cells are no Sudoku; write 16, 36 or 81, {remedy}")
    elif len(rows) == side and len(cells) != side**2:
        row, found = next((n, r) for n, r in enumerate(rows) if len(r) != side)
        message = f"row {row + 1} has {len(found)} cells where a {side}x{side} Sudoku has {side}"
        cell = side * row + min(len(found), side - 1)
        problem = WrongCells(f"{message}; {_WRITE_ALL}", [cell])
    else:
        problem = _wrong_count(cells, side, first)
    yield Board(numbers[0], side, cells, problem)


def _wrong_count(cells: str, side: int, line: str) -> WrongCells:
    remedy = _WRITE_ALL
    if _ROUNDED.fullmatch(line):
        remedy = _EXPORT
    elif cells.isdecimal() and side**2 - side <= len(cells) < side**2 and "0" in cells:
        remedy += "; if a spreadsheet dropped zeros at its start, export that column as text"
    return WrongCells(
        f"{len(cells)} cells where a {side}x{side} Sudoku has {side**2}; {remedy}",
        [min(len(cells), side**2 - 1)],
    )


# Mazes


def maze_boards(rows: Rows, side: int | None = None) -> list[Board]:
    """The mazes of a block, in the characters ``# SGo``: lines of a board, or one a line.

    Args:
        side: of the boards wanted; what is smaller is surrounded with walls, by default to a
            square.
    """
    if len(rows) == 1 and "/" in rows[0]:  # as `Maze.line` writes what is no square
        rows = rows[0].strip().split("/")
    margin = min(len(row) - len(row.lstrip()) for row in rows)
    trimmed = max(len(row.rstrip()) for row in rows)
    dedented = [row[margin:trimmed] for row in rows]
    spaced, unlabelled = _maze_spaced(dedented), without_labels(rows)
    spaces_are_cells = not set("".join(rows)) & set("._0")
    if spaces_are_cells and sum(len(row) // 2 for row in dedented) < PARTING:
        spaced = None
    squares = others = [_maze_delimited(rows) or spaced]
    if not any(squares):
        others = [unlabelled, dedented]
        squares = [rows, dedented, unlabelled] if spaces_are_cells else [dedented, unlabelled]
    for cut, layouts in ((_squares, squares), (_rectangle, others)):
        for layout in filter(None, layouts):
            if found := list(cut(layout)):
                return [_surrounded(line, board, side) for line, board in found]
    return [_explain_invalid_maze(rows if len(rows) == 1 else dedented, side)]


def _maze_spaced(rows: Rows) -> Rows | None:
    """A space between any two cells."""
    return [row[::2] for row in rows] if all(row and _is_spaced(row) for row in rows) else None


def _maze_delimited(rows: Rows) -> Rows | None:
    """Cells between commas or tabs."""
    for mark in ",\t":
        if all(mark in row for row in rows):
            split = [row.strip(" []").rstrip(",").split(mark) for row in rows]
            cells = [[cell.strip(" \"'") or " " for cell in row] for row in split]
            if all(len(cell) == 1 for row in cells for cell in row):
                return ["".join(row) for row in cells]
    return None


def _squares(rows: Rows) -> Iterator[tuple[int, Rows]]:
    """The square boards that rows are cut into, with their first lines, if nothing is left over."""
    sides = [_side_of(row) for row in rows]
    if all(sides) and (len(rows) == 1 or all(map(_has_ends, rows))):
        for number, (row, side) in enumerate(zip(rows, sides, strict=True)):
            cells = row[-(side**2) :]
            yield number, [cells[start : start + side] for start in range(0, len(cells), side)]
        return
    rows = _restored(rows)
    width = len(rows[0])
    if width not in SIDES or len(rows) % width or any(len(row) != width for row in rows):
        return
    boards = [rows[start : start + width] for start in range(0, len(rows), width)]
    if len(boards) == 1 or all(_has_ends("".join(board)) for board in boards):
        for number, board in enumerate(boards):
            yield number * width, board


def _rectangle(rows: Rows) -> Iterator[tuple[int, Rows]]:
    """The one board of rows of any equal length."""
    rows = _restored(rows)
    widths = {*map(len, rows)}
    if len(widths) == 1 and all(LEAST <= n < SIDES.stop for n in (len(rows), *widths)):
        yield 0, rows


def _restored(rows: Rows) -> Rows:
    """Rows with the open cells at their ends that an editor drops, where these are spaces."""
    if " " not in "".join(rows) or len({*map(len, rows)}) == 1:
        return rows
    trimmed, longest = max(len(row.rstrip()) for row in rows), max(map(len, rows))
    width = len(rows) if trimmed <= len(rows) <= longest else longest
    return [row.rstrip().ljust(width) for row in rows]


def _side_of(row: str) -> int:
    """The side of a maze in one line, which a space may lead; 0 if it is none."""
    for cells in (len(row), len(row) - 1 if row.startswith(" ") else 0):
        side = math.isqrt(cells)
        if side**2 == cells and side in SIDES:
            return side
    return 0


def _has_ends(board: str) -> bool:
    letters = set(board.upper())
    return "S" in letters and bool(letters & set("GE"))


_OTHER_ENDS = ("A", "B"), ("a", "b"), ("S", "F"), ("2", "3")
_MAZE_SYMBOLS = {"#": "#", "X": "#", "1": "#", "S": "S", "G": "G", "E": "G", "O": "o"}
_MAZE_SYMBOLS |= dict.fromkeys(" ._0-", " ")


def _surrounded(line: int, rows: Rows, wanted: int | None) -> Board:
    """A maze in the characters ``# SGo`` on a square board; the error names a cell that none has.

    Args:
        wanted: the side of the board, if the maze is no larger.
    """
    height, width = len(rows), len(rows[0])
    side = max(height, width, wanted or SIDES.start)
    shape = None if height == width == side else (height, width)
    cells = "".join(rows)
    for start, goal in _OTHER_ENDS:
        if cells.count(start) == cells.count(goal) == 1 and not set(cells) & set("SGEsge") - {
            start
        }:
            cells = cells.replace(start, "S").replace(goal, "G")

    def place(cell: int) -> str:
        return f"r{cell // width + 1}c{cell % width + 1}"

    walls = [marks for marks in ("#", "xX", "1") if set(cells) & set(marks)]
    for first, second in combinations(walls, 2):
        cell = min(cells.index(mark) for mark in second if mark in cells)
        problem = InputError(
            f"{cells[cell]!r} at {place(cell)} beside walls of {first[0]!r} could be a wall or "
            "not; use # . S G"
        )
        return Board(line, side, cells, problem, shape)
    for cell, character in enumerate(cells):
        if character.upper() not in _MAZE_SYMBOLS:
            problem = WrongCells(
                f"character {character!r} at {place(cell)} is no maze cell; use # . S G, and o "
                "for an answer's path",
                [cell // width * side + cell % width],
            )
            return Board(line, side, cells, problem, shape)
    halves = ["".join(row[:height] for row in rows), "".join(row[-height:] for row in rows)]
    if width >= 2 * height and all(map(_has_ends, halves)):
        problem = InputError("two mazes side by side: write one below the other")
        return Board(line, side, cells, problem, shape)
    cells = "".join(_MAZE_SYMBOLS[c.upper()] for c in cells)
    rows = [cells[start : start + width].ljust(side, "#") for start in range(0, len(cells), width)]
    return Board(line, side, "".join(rows).ljust(side**2, "#"), None, shape)


def _explain_invalid_maze(rows: Rows, side: int | None) -> Board:
    """Why a block is no maze."""
    width, cells, remedy = len(rows[0]), sum(map(len, rows)), "open cells as . or space"
    for number, row in enumerate(rows[1:], start=1):
        if len(row) != width:
            columns = side or width
            place = number * columns + min(len(row), columns - 1)
            problem = f"row {number + 1} has {len(row)} cells, row 1 has {width}: make them equal"
            return Board(0, columns, "", WrongCells(f"{problem}, {remedy}", [place]))
    if side is not None:
        whole = len(rows) == 1 or width == side
        place = min(cells, side**2 - 1) if whole else min(width, side - 1)
        problem = f"{cells} cells in {len(rows)} rows where a {side}x{side} maze has {side**2}"
        return Board(0, side, "", WrongCells(f"{problem}; write every cell", [place]))
    shape, known = f"{len(rows)} rows of {width} cells", f"maze of {LEAST}x{LEAST}"
    if len(rows) == 1:
        shape, known = f"{cells} cells", f"square maze of {SIDES.start}x{SIDES.start}"
    problem = InputError(
        f"{shape} are no {known} to {SIDES[-1]}x{SIDES[-1]}: write every cell, {remedy}"
    )
    return Board(0, 0, "", problem)
