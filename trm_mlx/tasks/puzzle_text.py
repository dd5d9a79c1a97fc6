"""Puzzles from text, in any common spelling: one or many, of a kind that the text itself shows.

A text is cut into blocks of lines, by blank lines, headings and comments; the characters of a block
tell its kind, and ``puzzle_cells.py`` finds its boards. ``registry.py`` makes puzzles of them.
``docs/solving.md`` lists the spellings.
"""

import json
import re
import unicodedata
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from typing import NamedTuple

from trm_mlx.errors import InputError
from trm_mlx.tasks.base import WrongCells
from trm_mlx.tasks.puzzle_cells import (
    BLANKS,
    BOX_ROWS,
    MAZE_LETTERS,
    SIDE_OF,
    SIDES,
    Board,
    compact,
    maze_boards,
    sudoku_boards,
    whole_boards,
)
from trm_mlx.tasks.puzzle_wrappings import arrays, is_labelled, plain_cell, unwrapped

_SUM = re.compile(r"\s*([0-9]+)\s*([+*x])\s*([0-9]+)\s*=?[\s?_.]*", re.IGNORECASE)
_EQUATION = re.compile(r"\s*-?\d[\d.,\s]*[-+*/xX\u00f7][-+*/xX\u00f7\d.,\s]*=[\d\s?_.]*")
_LETTERS = MAZE_LETTERS | set("xX")  # that stand in puzzles
# Names of the members of JSON objects.
_ANSWER = re.compile("answer|solution|solved|target|label|output|state|candidates", re.IGNORECASE)
_QUESTION = re.compile(
    "question|puzzle|quiz|problem|board|grid|sudoku|maze|mission|input|value", re.IGNORECASE
)


class FoundPuzzle(NamedTuple):
    """A puzzle found in a text, in plain characters.

    place: where it stands, such as ``line 3``; text: its lines; description: what it looks like;
    name: its task, where it looks like one; cells: its board, a character a cell, or a sum, for
    `Task.from_cells`; error: why it is none; shape: see `Board`.
    """

    place: str
    text: str
    description: str
    name: str | None
    cells: str
    error: InputError | None = None
    shape: tuple[int, int] | None = None


class Line(NamedTuple):
    """A line of a text in plain characters, without its comment."""

    number: int
    text: str


Block = list[Line]


def find_puzzles(text: str, wanted: str | None = None) -> list[FoundPuzzle]:
    """Find the puzzles of a text, in their order; what is none of them has an error.

    Args:
        wanted: the name of a task, if they are to be its puzzles, or a kind such as ``sudoku``; by
            default of any kind and size.

    Raises:
        InputError: nothing in it looks like a puzzle.
    """
    unit, blocks = _split_blocks(text)
    if wanted is not None and not blocks:
        blocks = [[Line(1, text.strip())]]
    found = [puzzle for block in blocks for puzzle in _read_block(block, unit, wanted)]
    if any(puzzle.error for puzzle in found) or not found:
        for otherwise in _split_otherwise(text, blocks, all(puzzle.error for puzzle in found)):
            others = [puzzle for block in otherwise for puzzle in _read_block(block, unit, wanted)]
            if any(puzzle.error is None for puzzle in others):
                found = others
                break
    if not found:
        raise InputError(
            f"{' '.join(text.split())!r} looks like no puzzle: write a Sudoku's cells, . for a "
            "blank, a maze's rows of # . S G, or 12+34="
        )
    return _without_variants(text, found)


def cells_of(text: str, name: str) -> str:
    """Return the cells of the one puzzle of a task in a text.

    Raises:
        InputError: it is none, with the cells in question as a `WrongCells`; or there are several.
    """
    found = find_puzzles(text, name)
    if found[0].error is not None:
        raise found[0].error
    if len(found) > 1:
        raise too_many(len(found))
    return found[0].cells


def too_many(count: int) -> InputError:
    return InputError(f"{count} puzzles where one is wanted; leave out all but one")


# Sudokus with further rules, by the words that such files and pages call them.
_VARIANT = re.compile(
    r"\b(jigsaw|windoku|(?:killer|samurai|hyper|irregular|diagonal|x)[ -]?sudoku|sudoku[ -]x)\b"
    r"|^#T(jigsaw)\b|^\s*\[(regions?|jigsaw|cages?|colou?rs)\]",
    re.IGNORECASE | re.MULTILINE,
)


def _without_variants(text: str, found: list[FoundPuzzle]) -> list[FoundPuzzle]:
    """Puzzles as they are; those of a text that names further rules have an error.

    So has a grid of the numbers of regions, and the puzzle that it belongs to.
    """
    match = _VARIANT.search(text)
    name = match and next(filter(None, match.groups()))
    lettered = _LETTERED_REGIONS.search(text)
    if not name and not lettered and not any(map(_are_regions, _grids_of(found))):
        return found
    problem = InputError(
        f"a variant ({name or 'regions in place of boxes'}) has rules that no model here knows; "
        "if it is a plain Sudoku, leave that out"
    )
    return [
        puzzle._replace(error=problem) if "Sudoku" in puzzle.description else puzzle
        for puzzle in found
    ]


_LETTERED_REGIONS = re.compile(r"(^[ \t]*[A-I]{9}[ \t]*$\s*){9}", re.IGNORECASE | re.MULTILINE)


def _grids_of(found: list[FoundPuzzle]) -> list[str]:
    return [puzzle.cells for puzzle in found if puzzle.name == "sudoku9x9"]


def _are_regions(cells: str) -> bool:
    """Whether each of nine digits stands in nine cells, one right of another in most."""
    counts = {cells.count(digit) for digit in "123456789"}
    return counts == {9} and sum(a == b for a, b in pairwise(cells)) > 27


# Blocks


def _plain_characters() -> dict[int, str | None]:
    """Other characters that stand for those that puzzles are written in."""
    plain = {code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)}  # full-width forms
    plain |= dict.fromkeys(range(0x2500, 0x2580), "+")  # box drawing
    plain |= {0x245F + digit: str(digit) for digit in range(1, 10)}  # in circles
    for characters, meaning in (
        ("─━═┄┅┈┉╌╍╴╶╸╺\u2010\u2011\u2012\u2013\u2014\u2212", "-"), ("│┃║┆┇┊┋╎╏╵╷╹╻\u2016", "|"),
        ("█▓▒■◼⬛▉🧱🟫", "#"), ("□▢◻⬜░·•∙⋅", "."), ("🟢🚶🐭🏠", "S"),
        ("🔴🏁🎯🧀", "G"), ("\u00d7✕", "x"), ("“”„", '"'),
        ("\u2018\u2019", "'"), ("\u00a0\u2002\u2003\u2007\u2009\u202f\u3000", " "),
        ("\ufeff\u200b\u200c\u200d\u2060\ufe0e\ufe0f\ufffe\u20e3", None),
    ):  # fmt: skip
        plain |= {ord(character): meaning for character in characters}
    return plain


_PLAIN = _plain_characters()


def _normalise(text: str) -> str:
    text = text.translate(_PLAIN)
    if text.isascii():
        return text
    digits = {ord(c): unicodedata.decimal(c, None) for c in set(text)}
    return text.translate({code: str(d) for code, d in digits.items() if d is not None})


def _split_blocks(text: str) -> tuple[str, list[Block]]:
    """What a number of a line counts, and the blocks of lines that may be puzzles."""
    text = _normalise(text)
    if text.lstrip()[:1] in ("[", "{", '"'):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            pass  # a heading such as [Puzzle], or lists of another language
        else:
            boards = enumerate(_json_boards(value), start=1)
            return "puzzle", [[Line(n, row) for row in rows] for n, rows in boards]
    sections = _sections(unwrapped(text))
    return "line", [block for section in sections for block in _split_section(section)]


def _split_otherwise(text: str, blocks: list[Block], unread: bool) -> Iterator[list[Block]]:
    """Other blocks of a text in which puzzles were not found; ``unread``: in none of its blocks."""
    if len(blocks) in BOX_ROWS and all(len(block) == 1 for block in blocks):
        rows = [line for block in blocks for line in block]  # blank lines between any two
        if {len(compact(row.text)) for row in rows} == {len(rows)}:
            yield [rows]
    if not unread:
        return
    with suppress(InputError, ValueError, RecursionError):  # a list of Python
        value = json.loads(unwrapped(_normalise(text)).replace("'", '"'))
        yield [[Line(1, row) for row in rows] for rows in _json_boards(value)]
    yield [[Line(*row) for row in rows] for rows in arrays(unwrapped(_normalise(text)))]


def _json_boards(value: object) -> Iterator[list[str]]:
    """The rows of every puzzle of a JSON value: strings, lists of cells or of rows, and objects."""
    if isinstance(value, str):
        yield value.splitlines()
    elif isinstance(value, dict):
        boards = {n: v for n, v in value.items() if isinstance(v, list | dict) or _is_long_text(v)}
        questions = [name for name in boards if not _ANSWER.search(name)]
        named = [name for name in questions if _QUESTION.search(name)] or questions
        if len(named) != 1:
            raise InputError(
                f"a JSON object of {', '.join(value) or 'nothing'}: put the puzzle into a member, "
                "as text or as a list of rows, and call it puzzle"
            )
        yield from _json_boards(boards[named[0]])
    elif isinstance(value, list) and value:
        strings = [member for member in value if isinstance(member, str) and len(member) > 1]
        if not all(isinstance(member, int | float | str | None) for member in value):
            if all(isinstance(row, list) and not any(map(_holds_more, row)) for row in value):
                yield [_json_row(row) for row in value]
            else:
                for member in value:
                    yield from _json_boards(member)
        elif any("\n" in string for string in strings):
            yield from map(str.splitlines, strings)
        else:
            yield list(map(str, value)) if strings else [_json_row(value)]


def _holds_more(member: object) -> bool:
    """Whether a member of a list is a board or a row, not a cell."""
    return isinstance(member, list | dict) or (isinstance(member, str) and len(member) > 1)


def _json_row(cells: list) -> str:
    cells = ["." if cell in (None, "", " ") or cell != cell else cell for cell in cells]  # NaN too
    for cell in cells:
        if isinstance(cell, bool) or len(plain_cell(str(cell))) > 1:
            raise InputError(f"a cell holds {cell!r}: write one digit or character a cell")
    return "".join(plain_cell(str(cell)) for cell in cells)


def _is_long_text(value: object) -> bool:
    return isinstance(value, str) and len(value) >= min(SIDE_OF) and not _is_heading(value)


def _sections(text: str) -> Iterator[Block]:
    """Lines between headings, without comments; of a file in sections, those of ``[Puzzle]``."""
    section, named = "puzzle", "[puzzle]" in text.lower()
    lines: Block = []
    for number, raw in enumerate(text.splitlines(), start=1):
        quoted = re.fullmatch(r"""\s*[\[(]?\s*r?(["'])([^"']+)\1\s*[,\])]*\s*""", raw)
        line = quoted[2] if quoted else raw  # of a list of strings in a program
        header = re.fullmatch(r"\s*\[([A-Za-z ]+)\]\s*", line)
        if header:
            section = header[1].lower()
        line = _without_comment(line)
        if header or line is None or _is_heading(line):
            yield lines
            lines = []
        elif re.fullmatch(r"""[\s,]*[\[\](){}"'][\[\](){}"'\s,;]*""", line):
            pass  # around a list or a text of several lines
        elif not named or section == "puzzle":
            lines.append(Line(number, line))
    yield lines


def _foreign(text: str) -> list[str]:
    """The letters that stand in no puzzle."""
    return [character for character in text if character.isalpha() and character not in _LETTERS]


def _is_heading(line: str) -> bool:
    """Whether a line is words, such as a name, rather than cells."""
    if line.strip().startswith("```"):
        return True
    letters, written = sum(map(str.isalpha, line)), len(compact(line))
    if not _foreign(line) or whole_boards(line) or is_labelled(line):
        return False
    word = re.search("[^\\W\\d_]{2}", line)  # as in "No. 7"
    return 2 * letters > written or (bool(word) and written - letters < 4)


def _without_comment(line: str) -> str | None:
    """A line as far as its comment; None where it is nothing else.

    ``#`` is also a wall, and a blank: a comment has words.
    """
    stripped = line.strip()
    if stripped.startswith(("//", "%")) and _foreign(stripped):
        return None
    if stripped.startswith("#"):
        words = _foreign(stripped) and ("#" not in stripped[1:] or _is_heading(stripped))
        if (words or re.fullmatch(r"#\s?(?!0+$)\d{1,2}", stripped)) and not whole_boards(line):
            return None
    for match in re.finditer(r"\s(#|//|;)", line):
        head, tail = line[: match.start()], line[match.end() :]
        words = _foreign(tail) and re.search(r"[A-Za-z]{2}", tail)
        if head.strip() and (words or whole_boards(head)):
            return head
    return line


def _split_section(section: Block) -> Iterator[Block]:
    """The blocks of a section: blank lines part them, unless they part the boxes of one board, or
    are rows of one whose blanks are spaces."""
    whole = [line for line in section if line.text]
    if _fills_square(whole):
        yield whole
        return
    parts: list[Block] = [[]]
    for line in section:
        if line.text.strip() or line.text.count("\t") > 2:  # a row of nothing but blanks
            parts[-1].append(line)
        elif parts[-1]:
            parts.append([])
    parts = [part for part in parts if part]
    while parts:
        count = _bands(parts)
        block = [line for part in parts[:count] for line in part]
        for end in range(2, min(len(parts), SIDES[-1]) + 1):
            first, last = parts[0][0].number, parts[end - 1][-1].number
            if last - first >= SIDES[-1]:
                break
            between = [line for line in section if first <= line.number <= last]
            if _fills_square(between):
                block, count = between, end
                break
        yield block
        del parts[:count]


def _bands(parts: list[Block]) -> int:
    """How many parts, from the first, are the bands of boxes of one Sudoku; at least 1."""
    for side, band in BOX_ROWS.items():
        bands = parts[: side // band]
        rows = [compact(line.text) for part in bands for line in part]
        if [*map(len, bands)] == [band] * (side // band) and {*map(len, rows)} == {side}:
            return len(bands)
    return 1


def _fills_square(lines: Block) -> bool:
    """Whether lines, some of them blank, are the rows of one board whose blanks are spaces."""
    texts = [line.text for line in lines]
    side, width = len(texts), max(map(len, texts), default=0)
    if all(map(str.strip, texts)) or side < 4 or not side - side // 3 <= width <= side:
        return False
    cells = "".join(texts).upper()
    if side in BOX_ROWS and set(cells) <= set("0123456789 "):
        return " " in cells
    ends = cells.count("G") + cells.count("E")
    return " " in cells and cells.count("S") == 1 and ends == 1


# Kinds


def _read_block(block: Block, unit: str, wanted: str | None) -> Iterator[FoundPuzzle]:
    """Find the puzzles of one block."""
    lines = [line.text for line in block]
    places = [f"{unit} {line.number}" for line in block]
    kind, size = _kind_and_size(wanted)
    if _are_sums(lines, kind):
        for place, line in zip(places, lines, strict=True):
            yield _of_task(_read_sum(place, line, wanted), wanted)
        return
    if _looks_like_maze("".join(lines), kind):
        noun, boards = "maze", maze_boards(lines, (size or None) if kind == "maze" else None)
    else:
        noun, boards = "Sudoku", sudoku_boards(lines, (size or None) if kind == "sudoku" else None)
    ends = [*(board.line for board in boards[1:]), len(lines)]
    for board, end in zip(boards, ends, strict=False):  # there may be no board
        description, name = f"a {noun}", None
        if board.side:
            rows, columns = board.shape or (board.side, board.side)
            description = f"a {rows}x{columns} {noun}"
            name = f"{noun.lower()}{board.side}x{board.side}"
        cells, error = board.cells, board.error
        if noun == "Sudoku" and error is None:
            cells, error = _with_blanks(board)
        text = "\n".join(lines[board.line : max(end, board.line + 1)])
        found = FoundPuzzle(places[board.line], text, description, name, cells, error, board.shape)
        yield _of_task(found, wanted)


def _kind_and_size(name: str | None) -> tuple[str | None, int]:
    """The kind and the size in the name of a task; 0 where it has none."""
    match = re.match(r"([a-z]+)(\d*)", name or "")
    return (match[1], int(match[2] or 0)) if match else (None, 0)


def _of_task(found: FoundPuzzle, wanted: str | None) -> FoundPuzzle:
    """A puzzle with the error that it is not of the task wanted, if so."""
    kind, size = _kind_and_size(wanted)
    same_kind = found.name is None or _kind_and_size(found.name)[0] == kind
    if wanted in (None, found.name) or (same_kind and (found.error is not None or not size)):
        return found
    return found._replace(
        error=InputError(f"looks like {found.description}, where {wanted} is wanted")
    )


def _are_sums(lines: list[str], kind: str | None) -> bool:
    """Whether every line is a question of arithmetic, rather than a row with one blank."""
    if kind in ("addition", "multiplication"):
        return True
    if all(map(_EQUATION.fullmatch, lines)):
        return True
    if not all(map(_SUM.fullmatch, lines)):
        return False
    if any("+" in line or "=" in line for line in lines):
        return True
    rows = [compact(line) for line in lines]
    width = len(rows[0])
    side = SIDE_OF.get(width) or (width if width in BOX_ROWS and len(rows) % width == 0 else 0)
    return not side or max(filter(str.isdecimal, "".join(rows))) > str(side)


def _looks_like_maze(text: str, kind: str | None) -> bool:
    symbols = set(text.upper())
    has_start, has_goal = "S" in symbols, bool(symbols & {"G", "E"})
    has_walls, has_digits = "#" in symbols, bool(symbols & set("23456789"))
    if text.count("2") == text.count("3") == 1 and text.count("1") > 9:  # in no Sudoku
        return not symbols & set("456789")
    if has_start and has_goal:
        return has_walls or not has_digits
    if has_digits:
        return False
    if kind == "sudoku":
        return has_walls and (has_start or has_goal)
    return kind == "maze" or (has_walls and ("1" not in symbols or has_start or has_goal))


def _with_blanks(board: Board) -> tuple[str, InputError | None]:
    """The cells of a Sudoku with 0 for a blank, and what is wrong with them.

    What else than `BLANKS` stands there is a blank if it is one sign.
    """
    others = set(board.cells) - set("0123456789")
    unknown = others - BLANKS
    if others and "0" in board.cells and str(board.side) not in board.cells:
        sign, cell = min(others), divmod(board.cells.index("0"), board.side)
        message = f"r{cell[0] + 1}c{cell[1] + 1} holds 0 beside blanks {sign!r}, and no cell "
        message += f"{board.side}: write 1 to {board.side}, and one sign for a blank"
        return board.cells, WrongCells(message, [board.cells.index("0")])
    if not unknown or (len(others) == 1 and "0" not in board.cells):
        return board.cells.translate(dict.fromkeys(map(ord, others), "0")), None
    wrong = [number for number, sign in enumerate(board.cells) if sign in unknown]
    row, column = divmod(wrong[0], board.side)
    message = f"r{row + 1}c{column + 1} holds {board.cells[wrong[0]]!r}: write 1 to {board.side}"
    return board.cells, WrongCells(f"{message}, and . or 0 for a blank", wrong)


def _read_sum(place: str, text: str, wanted: str | None) -> FoundPuzzle:
    """A line of arithmetic."""
    question = re.sub("[xX]", "*", text).rstrip(" ?_.")
    match = _SUM.fullmatch(text)
    if match is None and _kind_and_size(wanted)[0] not in ("addition", "multiplication"):
        remedy = "write two numbers with + or * between them, such as 12+34="
        problem = f"looks like arithmetic, where {wanted} is wanted" if wanted else remedy
        return FoundPuzzle(place, text, "arithmetic", None, "", InputError(problem))
    if match is None:
        return FoundPuzzle(place, text, "no arithmetic", wanted, question)
    noun = "addition" if match[2] == "+" else "multiplication"
    name = f"{noun}{max(1, *(len(number.lstrip('0')) for number in match.group(1, 3)))}"
    if _kind_and_size(wanted)[0] == noun:
        name = wanted
    return FoundPuzzle(place, text, f"a{'n' * (noun == 'addition')} {noun}", name, question)
