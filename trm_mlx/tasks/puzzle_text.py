"""Puzzles from text, in any common spelling: one or many, of a kind that the text itself shows.

A text is cut into blocks of lines, by blank lines, headings and comments; the characters of a block
tell its kind, and ``puzzle_cells.py`` finds its boards. ``registry.py`` makes puzzles of them.
``docs/solving.md`` lists the spellings.
"""

import json
import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

from trm_mlx.errors import InputError
from trm_mlx.tasks.base import WrongCells
from trm_mlx.tasks.puzzle_cells import (
    BLANKS,
    BOX_ROWS,
    MAZE_LETTERS,
    SIDE_OF,
    SIDES,
    Cells,
    compact,
    maze_boards,
    sudoku_boards,
    whole_boards,
)

_SUM = re.compile(r"\s*([0-9]+)\s*([+*x])\s*([0-9]+)\s*=?[\s?_.]*", re.IGNORECASE)
_LETTERS = MAZE_LETTERS | set("xX")  # that stand in puzzles


class Written(NamedTuple):
    """A puzzle as it is written in a text, in plain characters.

    place: where it stands, such as ``line 3``; text: the lines as they are written; looks: what it
    looks like, in words; name: its task, where it looks like one; cells: its board, a character a
    cell, or a sum, for `Task.from_cells`; error: why it is none.
    """

    place: str
    text: str
    looks: str
    name: str | None
    cells: str
    error: InputError | None = None


class Line(NamedTuple):
    """A line of a text in plain characters, without its comment."""

    number: int
    text: str


Block = list[Line]


def find_puzzles(text: str, wanted: str | None = None) -> list[Written]:
    """Find the puzzles of a text, in their order; what is none of them has an error.

    Args:
        wanted: the name of a task, if they are to be its puzzles, or a kind such as ``sudoku``; by
            default of any kind and size.

    Raises:
        InputError: nothing in it looks like a puzzle.
    """
    unit, blocks = _blocks(text)
    if wanted is not None and not blocks:
        blocks = [[Line(1, text.strip())]]
    found = [written for block in blocks for written in _read_block(block, unit, wanted)]
    if not found:
        raise InputError(
            f"{' '.join(text.split())!r} looks like no puzzle: write a Sudoku's cells, . for a "
            "blank, a maze's rows of # . S G, or 12+34="
        )
    return found


def cells_of(text: str, name: str) -> str:
    """Return the cells of the one puzzle of a task in a text.

    Raises:
        InputError: it is none, with the cells in question as a `WrongCells`; or there are several.
    """
    found = find_puzzles(text, name)
    if found[0].error is not None:
        raise found[0].error
    if len(found) > 1:
        raise InputError(f"{len(found)} puzzles where one is wanted; leave out all but one")
    return found[0].cells


# Blocks


def _plain_characters() -> dict[int, str | None]:
    """Other characters that stand for those that puzzles are written in."""
    plain = {code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)}  # full-width forms
    plain |= dict.fromkeys(range(0x2500, 0x2580), "+")  # box drawing
    for characters, meaning in (
        ("─━═┄┅┈┉╌╍╴╶╸╺\u2010\u2011\u2012\u2013\u2014\u2212", "-"), ("│┃║┆┇┊┋╎╏╵╷╹╻", "|"),
        ("█▓▒■◼⬛▉", "#"), ("□▢◻⬜░·•∙⋅", "."), ("\u00d7✕", "x"), ("“”„", '"'),
        ("\u2018\u2019", "'"), ("\u00a0\u2002\u2003\u2007\u2009\u202f\u3000", " "),
        ("\ufeff\u200b\u200c\u200d\u2060\ufe0e\ufe0f\ufffe", None),
    ):  # fmt: skip
        plain |= {ord(character): meaning for character in characters}
    return plain


_PLAIN = _plain_characters()


def _normalised(text: str) -> str:
    text = text.translate(_PLAIN)
    if not text.isascii():
        digits = {c: str(d) for c in set(text) if (d := unicodedata.decimal(c, None)) is not None}
        text = text.translate({ord(c): digit for c, digit in digits.items()})
    return text


def _blocks(text: str) -> tuple[str, list[Block]]:
    """What a number of a line counts, and the blocks of lines that may be puzzles."""
    text = _normalised(text)
    if text.lstrip()[:1] in ("[", "{", '"'):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            pass  # a heading such as [Puzzle], or lists of another language
        else:
            boards = enumerate(_json_boards(value), start=1)
            return "puzzle", [[Line(n, row) for row in rows] for n, rows in boards]
    blocks: list[Block] = []
    for group in _groups(text):
        blocks += _joined(group)
    return "line", blocks


def _json_boards(value: object) -> Iterator[list[str]]:
    """The rows of every puzzle of a JSON value: strings, lists of cells or of rows, and objects."""
    if isinstance(value, str):
        yield value.splitlines()
    elif isinstance(value, dict):
        boards = (v for v in value.values() if isinstance(v, list) or _is_long_text(v))
        board = next(boards, None)
        if board is None:
            raise InputError(
                f"a JSON object of {', '.join(value) or 'nothing'}: put the puzzle into a member, "
                "as text or as a list of rows"
            )
        yield from _json_boards(board)
    elif isinstance(value, list) and value:
        if all(isinstance(cell, int | str | None) for cell in value):
            strings = [cell for cell in value if isinstance(cell, str) and len(cell) > 1]
            if any("\n" in string for string in strings):
                for string in strings:
                    yield string.splitlines()
            elif strings:
                yield list(map(str, value))
            else:
                yield [_json_row(value)]
        elif all(isinstance(row, list) and not any(map(_holds_more, row)) for row in value):
            yield [_json_row(row) for row in value]
        else:
            for member in value:
                yield from _json_boards(member)


def _holds_more(member: object) -> bool:
    """Whether a member of a list is a board or a row, not a cell."""
    return isinstance(member, list | dict) or (isinstance(member, str) and len(member) > 1)


def _json_row(cells: list) -> str:
    for cell in cells:
        if isinstance(cell, bool | float) or (cell is not None and len(str(cell)) > 1):
            raise InputError(f"a cell holds {cell!r}: write one digit or character a cell")
    return "".join("." if cell in (None, "", " ") else str(cell) for cell in cells)


def _is_long_text(value: object) -> bool:
    return isinstance(value, str) and len(value) >= min(SIDE_OF) and not _is_heading(value)


def _groups(text: str) -> Iterator[Block]:
    """Lines between headings, without comments; of a file in sections, those of ``[Puzzle]``."""
    section, sections = "puzzle", "[puzzle]" in text.lower()
    group: Block = []
    for number, raw in enumerate(text.splitlines(), start=1):
        line = _unquoted(raw)
        header = re.fullmatch(r"\s*\[([A-Za-z ]+)\]\s*", line)
        if header:
            section = header[1].lower()
        line = _without_comment(line)
        if header or line is None or _is_heading(line):
            yield group
            group = []
        elif re.fullmatch(r"[\s,]*[\[\](){}][\[\](){}\s,]*", line):
            pass  # around a list
        elif not sections or section == "puzzle":
            group.append(Line(number, line))
    yield group


def _unquoted(line: str) -> str:
    """A line without the quotes of a list of strings in a program."""
    match = re.fullmatch(r"""\s*[\[(]?\s*r?(["'])([^"']+)\1\s*[,\])]*\s*""", line)
    return match[2] if match else line


def _foreign(text: str) -> list[str]:
    """The letters that stand in no puzzle."""
    return [character for character in text if character.isalpha() and character not in _LETTERS]


def _is_heading(line: str) -> bool:
    """Whether a line is words, such as a name, rather than cells."""
    if line.strip().startswith("```"):
        return True
    letters, written = sum(map(str.isalpha, line)), len("".join(line.split()))
    return bool(_foreign(line)) and 2 * letters > written and not whole_boards(line)


def _without_comment(line: str) -> str | None:
    """A line as far as its comment; None where it is nothing else.

    ``#`` is also a wall, and a blank: a comment has words.
    """
    stripped = line.strip()
    if stripped.startswith(("//", "%")) and _foreign(stripped):
        return None
    if stripped.startswith("#"):
        words = _foreign(stripped) and ("#" not in stripped[1:] or _is_heading(stripped))
        if (words or re.fullmatch(r"#\s?\d{1,2}", stripped)) and not whole_boards(line):
            return None
    for match in re.finditer(r"\s(#|//|;)", line):
        head, tail = line[: match.start()], line[match.end() :]
        words = _foreign(tail) and re.search(r"[A-Za-z]{2}", tail)
        if head.strip() and (words or whole_boards(head)):
            return head
    return line


def _joined(group: Block) -> list[Block]:
    """The blocks of a group: blank lines part them, unless they part the boxes of one board, or
    are rows of one whose blanks are spaces."""
    whole = [line for line in group if line.text]
    if _fills_square(whole):
        return [whole]
    parts: list[Block] = [[]]
    for line in group:
        if line.text.strip() or line.text.count("\t") > 2:  # a row of nothing but blanks
            parts[-1].append(line)
        elif parts[-1]:
            parts.append([])
    parts = [part for part in parts if part]
    blocks: list[Block] = []
    start = 0
    while start < len(parts):
        stop = start + 1
        rows = len(parts[start])
        for side, band in BOX_ROWS.items():
            bands = parts[start : start + side // band]
            if rows == band and _are_bands(bands, side, band):
                stop = start + side // band
        for end in range(start + 2, min(len(parts), start + SIDES[-1]) + 1):
            first, last = parts[start][0].number, parts[end - 1][-1].number
            if last - first >= SIDES[-1]:
                break
            between = [line for line in group if first <= line.number <= last]
            if _fills_square(between):
                parts[start], stop = between, end
                break
        else:
            parts[start] = [line for part in parts[start:stop] for line in part]
        blocks.append(parts[start])
        start = stop
    return blocks


def _are_bands(parts: list[Block], side: int, band: int) -> bool:
    """Whether parts between blank lines are the bands of boxes of one Sudoku."""
    lines = [line for part in parts for line in part]
    return (
        len(lines) == side
        and all(len(part) == band for part in parts)
        and all(len(compact(line.text)) == side for line in lines)
    )


def _fills_square(lines: Block) -> bool:
    """Whether lines, some of them blank, are the rows of one board whose blanks are spaces."""
    texts = [line.text for line in lines]
    side, width = len(texts), max(map(len, texts), default=0)
    if all(map(str.strip, texts)) or side < 4 or not side - side // 3 <= width <= side:
        return False
    symbols = set("".join(texts))
    if side in BOX_ROWS and " " in symbols and symbols <= set("0123456789 "):
        return True
    ends = "".join(texts).upper()
    return " " in symbols and ends.count("S") == 1 and ends.count("G") + ends.count("E") == 1


# Kinds


def _read_block(block: Block, unit: str, wanted: str | None) -> Iterator[Written]:
    """Find the puzzles of one block."""
    lines = [line.text for line in block]
    places = [f"{unit} {line.number}" for line in block]
    kind, size = _parts(wanted)
    if _are_sums(lines, kind):
        for place, line in zip(places, lines, strict=True):
            yield _wanted(_read_sum(place, line, wanted), wanted)
        return
    if _looks_like_maze("".join(lines), kind):
        noun, boards = "maze", maze_boards(lines, (size or None) if kind == "maze" else None)
    else:
        noun, boards = "Sudoku", sudoku_boards(lines, (size or None) if kind == "sudoku" else None)
    ends = [*(board.line for board in boards[1:]), len(lines)]
    for board, end in zip(boards, ends, strict=False):
        size = f"{board.side}x{board.side}"
        looks, name = (
            (f"a {size} {noun}", noun.lower() + size) if board.side else (f"a {noun}", None)
        )
        if noun == "Sudoku" and board.error is None:
            board = _with_blanks(board)
        text = "\n".join(lines[board.line : max(end, board.line + 1)])
        place = places[board.line]
        yield _wanted(Written(place, text, looks, name, board.cells, board.error), wanted)


def _parts(name: str | None) -> tuple[str | None, int]:
    """The kind and the size in the name of a task; 0 where it has none."""
    match = re.match(r"([a-z]+)(\d*)", name or "")
    return (match[1], int(match[2] or 0)) if match else (None, 0)


def _wanted(found: Written, wanted: str | None) -> Written:
    """A puzzle with the error that it is not of the task wanted, if so."""
    same_kind = found.name is None or _parts(found.name)[0] == _parts(wanted)[0]
    if wanted in (None, found.name) or (same_kind and (found.error or not _parts(wanted)[1])):
        return found
    return found._replace(error=InputError(f"looks like {found.looks}, where {wanted} is wanted"))


def _are_sums(lines: list[str], kind: str | None) -> bool:
    """Whether every line is a question of arithmetic, rather than a row with one blank."""
    if kind in ("addition", "multiplication"):
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
    has_walls, has_digits = bool(symbols & {"#"}), bool(symbols & set("23456789"))
    if has_start and has_goal:
        return has_walls or not has_digits
    if has_digits:
        return False
    if kind == "sudoku":
        return has_walls and (has_start or has_goal)
    return kind == "maze" or (has_walls and ("1" not in symbols or has_start or has_goal))


def _with_blanks(board: Cells) -> Cells:
    """A Sudoku with 0 for a blank. What else stands there is a blank if it is one sign."""
    others = set(board.cells) - set("0123456789")
    unknown = others - BLANKS
    if unknown and (len(others) > 1 or "0" in board.cells):
        wrong = [number for number, sign in enumerate(board.cells) if sign in unknown]
        row, column = divmod(wrong[0], board.side)
        problem = WrongCells(
            f"r{row + 1}c{column + 1} holds {board.cells[wrong[0]]!r}: write 1 to {board.side}, "
            "and . or 0 for a blank",
            wrong,
        )
        return board._replace(error=problem)
    return board._replace(cells=board.cells.translate(dict.fromkeys(map(ord, others), "0")))


def _read_sum(place: str, text: str, wanted: str | None) -> Written:
    """A line of arithmetic."""
    question = re.sub("[xX]", "*", text).rstrip(" ?_.")
    match = _SUM.fullmatch(text)
    if match is None:
        return Written(place, text, "no arithmetic", wanted, question)
    noun = "addition" if match[2] == "+" else "multiplication"
    name = f"{noun}{max(1, *(len(number.lstrip('0')) for number in match.group(1, 3)))}"
    if _parts(wanted)[0] == noun:
        name = wanted
    return Written(place, text, f"a{'n' * (noun == 'addition')} {noun}", name, question)
