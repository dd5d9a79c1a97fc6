"""Boards as other languages write them: web pages, arrays in programs, files of tables.

Each is put into the lines of cells that ``puzzle_cells.py`` reads.
"""

import html
import re
from collections.abc import Iterator
from itertools import pairwise

# What programs write for a cell without a value, alone between marks.
_NOTHING = re.compile(r"(?<![^\s,;|(\[{])(?:NaN|nan|null|NULL|None|nil|<NA>)(?![^\s,;|)\]}])")
# Tags of a page that end a line.
_TAG = re.compile(
    r"</?(?:table|thead|tbody|tr|br|p|div|h\d|title|pre|code|body|head)\b[^<>]*>", re.IGNORECASE
)
# Two brackets open, as they do around the rows of an array.
_ARRAY = re.compile(r"[\[{(]\s*(?=[\[{(][^\[{(]*[\])}])")
_ROW = re.compile(r"[\[{(]([^\[\](){}]*)[\])}]")
_CELL = re.compile(r"(?:\*\*)?(\d)(?:\.0*)?(?:\*\*)?")  # bold, or written as a decimal


def unwrapped(text: str) -> str:
    """A text without the tags of a web page, with line ends for ``\\n`` and dots for ``None``."""
    if _TAG.search(text):
        text = re.sub(r"\s*</t[dh]>\s*(?=<t[dh]\b)", "\t", text, flags=re.IGNORECASE)
        text = re.sub(rf"\s*(?:{_TAG.pattern}\s*)+", "\n", text, flags=re.IGNORECASE)
        text = html.unescape(re.sub(r"</?[a-z][^<>]*>", "", text, flags=re.IGNORECASE))
    if "\n" not in text:
        text = text.replace("\\n", "\n")
    return _NOTHING.sub(".", text)


def arrays(text: str) -> Iterator[list[tuple[int, str]]]:
    """The arrays of rows in a program, such as ``{{5, 3, 0}, {6, 0, 0}}``.

    Yields:
        The number of its line and the cells of each row.
    """
    end = 0
    for match in _ARRAY.finditer(text):
        if match.start() < end:
            continue
        end, depth = match.start(), 0
        for end in range(match.start(), len(text)):
            depth += (text[end] in "[({") - (text[end] in "])}")
            if not depth:
                break
        body = text[match.end() : end]
        start = text.count("\n", 0, match.end()) + 1
        rows = [
            (start + body.count("\n", 0, row.start()), row[1].strip().rstrip(","))
            for row in _ROW.finditer(body)
        ]
        if rows:
            yield rows


def plain_cell(cell: str) -> str:
    """A cell of a table as one character, if it is one digit, however written."""
    cell = cell.strip(" \"'")
    match = _CELL.fullmatch(cell)
    return match[1] if match else cell


def decimals(rows: list[str]) -> list[str] | None:
    """Rows of as many decimals as there are rows, such as ``5. 3. 0.``; None if they are not."""
    words = [re.split(r"[\s,;|]+", row.strip(" \t,;|[]()")) for row in rows]
    if any(len(row) != len(rows) for row in words):
        return None
    if not all(word == "." or re.fullmatch(r"\d\.0*", word) for row in words for word in row):
        return None
    return ["".join(word[0] for word in row) for row in words]


_LABEL = re.compile(
    r"\s*\|?\s*(?:(?:row|line|r)?\s*([a-p]|\d\d?)[:.)\]]?|[>*-])(?:\s*[|,;\t]|\s+|(?<=:))(.*)",
    re.IGNORECASE,
)


def is_labelled(row: str) -> bool:
    """Whether a row is a name such as ``A`` or ``row 3:`` and cells."""
    match = _LABEL.fullmatch(row)
    cells = re.sub(r"[\s|,;+]", "", match[2]) if match else ""
    return len(cells) >= 4 and bool(re.fullmatch(r"[\d._xX*?#-]*", cells))


def without_labels(rows: list[str]) -> list[str] | None:
    """Rows without what leads them: A, B, C, or numbers from 0 or 1 on, or a mark such as ``>``.

    A first row that names the columns so is left out. None where there are no such names.
    """
    names = re.split(r"[\s|,;+]+", rows[0].strip(" \t|,;+"))
    names = list(names[0]) if len(names) == 1 else [name.lstrip("cC") or name for name in names]
    headed = len(names) == len(rows) - 1 and _is_sequence(names)
    rows = rows[headed:]
    found = [_LABEL.fullmatch(row) for row in rows]
    if not all(found):
        return rows if headed else None
    labels = [match[1] or "" for match in found]
    if not _is_sequence(labels) and any(labels):
        return rows if headed else None
    framed = all(row.lstrip().startswith("|") for row in rows)
    return ["|" * framed + match[2] for match in found]


def _is_sequence(labels: list[str]) -> bool:
    """Whether labels count, from A, 0 or 1."""
    if len(labels) < 4:
        return False
    if all(map(str.isdecimal, labels)):
        numbers = [*map(int, labels)]
    elif all(len(label) == 1 for label in labels):
        numbers = [ord(label.upper()) - ord("A") for label in labels]
    else:
        return False
    return numbers[0] in (0, 1) and all(b == a + 1 for a, b in pairwise(numbers))
