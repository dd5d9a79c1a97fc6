"""Puzzles as people write them: every spelling of a board reads back as the board."""

import json

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from trm_mlx import InputError, tasks
from trm_mlx.tasks.base import Task, WrongCells
from trm_mlx.tasks.registry import read_puzzles

GRID = "53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79"
OTHER = "..............3.85..1.2.......5.7.....4...1...9.......5......73..2.1........4...9"
MAZE = (
    "#..#..#.#.\n.....#..##\n.#.....#G.\n#..#.#..#.\n......#...\n"
    "#.#S#...##\n....#.#...\n...#.###.#\n#....#..#.\n......#.#."
)
REGIONS = ("AAABBBCCC" * 3 + "DDDEEEFFF" * 3 + "GGGHHHIII" * 3).translate(
    str.maketrans("ABCDEFGHI", "123456789")
)
BLANKS = ".0_x*?-#X"


def rows_of(text, side):
    return [text[start : start + side] for start in range(0, len(text), side)]


def read_all(text, task=None):
    """The names and boards of the puzzles of a text, each in one line, or their errors."""
    return [
        f"{p.place}: {p.error}" if p.error else f"{p.task.name} {p.task.line(p.values)}"
        for p in read_puzzles(text, task)
    ]


def read_puzzle(text, task=None):
    (puzzle,) = read_puzzles(text, task)
    if puzzle.error:
        raise puzzle.error
    return puzzle


def sudoku(*grids):
    return [f"sudoku9x9 {grid.replace('.', '0')}" for grid in grids]


# Spellings of one Sudoku: rows of digits and dots, the columns of a box, to text.


def in_one_line(rows, width, blank):
    return "".join(rows).replace(".", blank)


def in_rows(rows, width, blank):
    return "\n".join(rows).replace(".", blank)


def spaced(rows, width, blank):
    return "\n".join(" ".join(row) for row in rows).replace(".", blank)


def spaced_in_one_line(rows, width, blank):
    return " ".join("".join(rows)).replace(".", blank)


def joined_by(mark):
    def write(rows, width, blank):
        return "\n".join(mark.join(row) for row in rows).replace(".", blank)

    return write


def with_nothing_for_blanks(mark):
    def write(rows, width, blank):
        return "\n".join(mark.join("" if c == "." else c for c in row) for row in rows)

    return write


def boxed(bar="|", dash="-", cross="+", framed=True, apart=" "):
    def write(rows, width, blank):
        lines = []
        for number, row in enumerate(rows):
            if number % (len(rows) // width) == 0 and (number or framed):
                lines.append(cross.join([dash * (2 * width + 1)] * (len(rows) // width)))
                lines[-1] = f"{cross}{lines[-1]}{cross}" if framed else lines[-1]
            boxes = [apart.join(["", *row[c : c + width], ""]) for c in range(0, len(row), width)]
            line = bar.join(boxes).replace(".", blank)
            lines.append(f"{bar}{line}{bar}" if framed else line)
        return "\n".join([*lines, lines[0]] if framed else lines)

    return write


def blanks_as_spaces(rows, width, blank):
    return "\n".join(row.replace(".", " ") for row in rows)


def blanks_as_lost_spaces(rows, width, blank):
    lines = [row.replace(".", " ") for row in rows]
    return "\n".join([line.rstrip() or line for line in lines])


def boxes_of_spaces(rows, width, blank):
    boxes = [[row[c : c + width] for c in range(0, len(row), width)] for row in rows]
    return "\n".join(f"|{'|'.join(row)}|".replace(".", " ") for row in boxes)


def in_bands(rows, width, blank):
    height = len(rows) // width
    bands = ["\n".join(rows[r : r + height]) for r in range(0, len(rows), height)]
    return "\n\n".join(bands).replace(".", blank)


def markdown(rows, width, blank):
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|" + "---|" * len(rows))
    return "\n".join(lines).replace(".", blank if blank not in "|-" else " ")


def markdown_with_names(rows, width, blank):
    names = "| " + " | ".join(f"c{n}" for n in range(1, len(rows) + 1)) + " |"
    lines = [names, "|" + ":-:|" * len(rows)]
    lines += ["|" + "|".join(" " if c == "." else c for c in row) + "|" for row in rows]
    return "\n".join(lines)


def full_width(rows, width, blank):
    text = "\n".join(rows).replace(".", blank)
    return "".join(chr(ord(c) + 0xFEE0) if c.isdigit() else c for c in text)


def numbers_in_json(rows, width, blank):
    return json.dumps([[0 if c == "." else int(c) for c in row] for row in rows])


def nulls_in_json(rows, width, blank):
    return json.dumps([[None if c == "." else int(c) for c in row] for row in rows])


def strings_in_json(rows, width, blank):
    return json.dumps([row.replace(".", blank) for row in rows])


def one_string_in_json(rows, width, blank):
    return json.dumps({"puzzle": in_one_line(rows, width, blank)})


def numpy_prints(rows, width, blank):
    return str(np.array([[0 if c == "." else int(c) for c in row] for row in rows]))


def strings_in_python(rows, width, blank):
    return "\n".join(f"    '{row}'," for row in rows).replace(".", blank)


def sadman(rows, width, blank):
    state = "\n".join("." * len(row) for row in rows)
    return "[Puzzle]\n" + in_rows(rows, width, blank) + "\n[State]\n" + state


def sudocue(rows, width, blank):
    return "#AMe\n#DTest puzzle\n#B01-01-2026\n" + in_rows(rows, width, blank)


def with_comments(rows, width, blank):
    lines = [f"{row}  # row {number}" for number, row in enumerate(rows, start=1)]
    return "// from a newspaper\n" + "\n".join(lines).replace(".", blank)


def one_cell_a_line(rows, width, blank):
    return "\n".join("".join(rows)).replace(".", blank)


def between_slashes(rows, width, blank):
    return "/".join(rows).replace(".", blank)


def lettered(rows, width, blank):
    names = "   " + " ".join(map(str, range(1, len(rows) + 1)))
    lines = [f"{'ABCDEFGHI'[n]}  {' '.join(row)}" for n, row in enumerate(rows)]
    return "\n".join([names, *lines]).replace(".", blank)


def numbered(rows, width, blank):
    lines = ["," + ",".join(map(str, range(len(rows))))]
    lines += [f"{n}," + ",".join(row).replace(".", "0") for n, row in enumerate(rows)]
    return "\n".join(lines)


def named_rows(rows, width, blank):
    return "\n".join(f"row {n}: {row}" for n, row in enumerate(rows, start=1)).replace(".", blank)


def in_a_mail(rows, width, blank):
    return "\n".join(f"> {row}" for row in rows).replace(".", blank)


def in_c(rows, width, blank):
    lines = ", ".join("{" + ", ".join(row).replace(".", "0") + "}" for row in rows)
    return f"int board[{len(rows)}][{len(rows)}] = {{{lines}}};"


def in_torch(rows, width, blank):
    lines = ",\n        ".join("[" + ", ".join(row).replace(".", "0") + "]" for row in rows)
    return f"tensor([{lines}], device='cuda:0')"


def in_prolog(rows, width, blank):
    lines = ",\n  ".join("[" + ",".join(row).replace(".", "_") + "]" for row in rows)
    return f"problem(1, [{lines}])."


def lists_of_python(rows, width, blank):
    return f"board = {[[None if cell == '.' else int(cell) for cell in row] for row in rows]}"


def floats_of_numpy(rows, width, blank):
    return str(np.array([[0.0 if c == "." else float(c) for c in row] for row in rows]))


def in_pandas(rows, width, blank):
    lines = ["".join(f"{n:>5}" for n in range(len(rows)))]
    for number, row in enumerate(rows):
        lines.append(f"{number}" + "".join(f"{'NaN' if c == '.' else c + '.0':>5}" for c in row))
    return "\n".join(lines)


def floats_in_csv(rows, width, blank):
    return "\n".join(",".join("" if c == "." else c + ".0" for c in row) for row in rows)


def in_html(rows, width, blank):
    cells = ["".join(f"<td>{c}</td>" for c in row).replace(".", "&nbsp;") for row in rows]
    table = f'<table class="grid">\n<tr>{"</tr><tr>".join(cells)}</tr></table>'
    return f"<title>Sudoku</title><h1>No. 7</h1>{table}<p>Hard (3 of 5)</p>"


def in_toml(rows, width, blank):
    quotes = '"' * 3
    return "\n".join([f"puzzle = {quotes}", *rows, quotes]).replace(".", blank)


def markdown_in_bold(rows, width, blank):
    lines = ["|" * (len(rows) + 1), "|-" * len(rows) + "|"]
    bold = (" | ".join(" " if c == "." else f"**{c}**" for c in row) for row in rows)
    return "\n".join(lines + [f"| {row} |" for row in bold])


def apart(rows, width, blank):
    return "\n\n".join(rows).replace(".", blank)


SPELLINGS = [
    lettered, numbered, named_rows, in_a_mail, in_c, in_torch, in_prolog, lists_of_python,
    floats_of_numpy, in_pandas, floats_in_csv, in_html, in_toml, markdown_in_bold, apart,
    in_one_line, in_rows, spaced, spaced_in_one_line, blanks_as_spaces, blanks_as_lost_spaces,
    boxes_of_spaces, in_bands, markdown, markdown_with_names, full_width, numbers_in_json,
    nulls_in_json, strings_in_json, one_string_in_json, numpy_prints, strings_in_python, sadman,
    sudocue, with_comments, one_cell_a_line, between_slashes,
    *(joined_by(mark) for mark in (",", ", ", ";", "\t", " , ")),
    *(with_nothing_for_blanks(mark) for mark in (",", ";", "\t")),
    boxed(), boxed(framed=False), boxed(apart=""), boxed("│", "─", "┼"), boxed("║", "═", "╬"),
    boxed(framed=False, apart=""), boxed("|", "-", "*"), boxed("|", "=", "+"),
]  # fmt: skip


@st.composite
def boards(draw):
    """A random puzzle: its side, the columns of a box, rows of digits and dots."""
    side, width = draw(st.sampled_from([(4, 2), (6, 3), (9, 3)]))
    task = tasks.get(f"sudoku{side}x{side}")
    (grid,) = task.random_grids(1, np.random.default_rng(draw(st.integers(0, 999))))
    kept = draw(st.integers(side, side**2 - side))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    grid[rng.permutation(side**2)[kept:]] = 0
    return task, width, rows_of(task.line(grid).replace("0", "."), side)


def test_rows_of_dashes_in_boxes_are_rows():
    """They are no rule of a Markdown table whose first row would be names."""
    rows = [".........", ".........", "6........", "....8....", "..6......", "...1764.3"]
    rows += [".........", ".........", "........5"]
    few = ["7.865....", *["........."] * 2, "...9.1...", ".........", "....7..9.", "....3...."]
    for board in (rows, few + ["........."] * 2):
        expected = [f"sudoku9x9 {''.join(board).replace('.', '0')}"]
        assert read_all(boxed()(board, 3, "-")) == expected


@settings(max_examples=600, deadline=None)
@given(boards(), st.sampled_from(SPELLINGS), st.sampled_from(BLANKS), st.booleans(), st.booleans())
def test_any_spelling_of_a_sudoku_is_the_sudoku(board, spell, blank, windows, known):
    task, width, rows = board
    text = spell(rows, width, blank)
    if windows:
        text = "\ufeff" + text.replace("\n", "\r\n") + "\r\n"
    assert read_all(text, task if known else None) == [
        f"{task.name} {''.join(rows).replace('.', '0')}"
    ], text


# Spellings of one maze.


def maze_rows(wall, opened, ends="SG"):
    def write(rows):
        plain = str.maketrans({"#": wall, ".": opened, "S": ends[0], "G": ends[1]})
        return "\n".join(rows).translate(plain)

    return write


def maze_with_lost_spaces(rows):
    lines = [row.replace(".", " ") for row in rows]
    return "\n".join([line.rstrip() or line for line in lines])


def maze_indented(rows):
    return "\n".join(f"    {row}" for row in rows)


def maze_in_one_line(rows):
    return "".join(rows)


def maze_listed(mark):
    return lambda rows: "\n".join(mark.join(row) for row in rows)


def maze_in_json(rows):
    return json.dumps(rows)


def maze_cells_in_json(rows):
    return json.dumps([list(row) for row in rows])


def maze_in_python(rows):
    return "[\n" + "\n".join(f'    "{row}",' for row in rows) + "\n]"


def maze_under_a_name(rows):
    return "Maze 7\n" + "\n".join(rows) + "\n\n# found in a book\n"


MAZE_SPELLINGS = [
    maze_rows("#", "."), maze_rows("#", " "), maze_rows("X", "."), maze_rows("x", " "),
    maze_rows("█", " "), maze_rows("1", "0"), maze_rows("#", "_", "SE"), maze_rows("#", "0", "sg"),
    maze_rows("█", "░", "se"), maze_listed(" "), maze_listed(","), maze_listed("\t"),
    maze_with_lost_spaces, maze_indented, maze_in_one_line, maze_in_json, maze_cells_in_json,
    maze_in_python, maze_under_a_name,
]  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(
    st.integers(5, 14), st.integers(0, 999), st.sampled_from(MAZE_SPELLINGS), st.booleans(),
    st.booleans(),
)  # fmt: skip
def test_any_spelling_of_a_maze_is_the_maze(side, seed, spell, windows, known):
    task = tasks.get(f"maze{side}x{side}")
    (question,) = task.generate(1, np.random.default_rng(seed)).questions
    rows = task.render(question).splitlines()
    # Where the ends of all rows are lost, nothing tells how wide the maze was.
    assume(spell is not maze_with_lost_spaces or any(not row.endswith(".") for row in rows))
    text = spell(rows)
    if windows:
        text = "\ufeff" + text.replace("\n", "\r\n") + "\r\n"
    expected = [f"{task.name} {task.line(question)}"]
    assert read_all(text, task if known else None) == expected, text


def random_maze(height, width, seed):
    """The rows of a maze with a way from S to G."""
    rng = np.random.default_rng(seed)
    board = rng.choice(list("#.."), (height, width))
    (top, first), (bottom, last) = (divmod(c, width) for c in rng.choice(board.size, 2, False))
    board[min(top, bottom) : max(top, bottom) + 1, first] = "."
    board[bottom, min(first, last) : max(first, last) + 1] = "."
    board[top, first], board[bottom, last] = "SG"
    return ["".join(row) for row in board]


@settings(max_examples=200, deadline=None)
@given(
    st.integers(3, 14), st.integers(3, 14), st.integers(0, 999),
    st.sampled_from([*MAZE_SPELLINGS, "/".join]), st.booleans(), st.booleans(),
)  # fmt: skip
def test_any_spelling_of_a_maze_of_any_size_is_the_maze(height, width, seed, spell, windows, known):
    rows = random_maze(height, width, seed)
    square = height == width >= 5
    assume(square or spell is not maze_in_one_line)
    text = spell(rows)
    if windows:
        text = "\ufeff" + text.replace("\n", "\r\n") + "\r\n"
    if not set(text) & set(".0_░"):  # open cells are spaces
        assume(all(row.strip(".") for row in rows))  # a blank line parts puzzles
        assume(any(not row.startswith(".") for row in rows))  # nor is a blank column seen
        assume(any(not row.endswith(".") for row in rows))
        assume(any(row[1::2].strip(".") for row in rows))  # or these part the others
    side = max(height, width, 5) + known
    expected = f"maze{side}x{side} {''.join(rows) if square else '/'.join(rows)}"
    assert read_all(text, tasks.get(f"maze{side}x{side}") if known else None) == [expected], text


@given(
    st.sampled_from("+*x\u00d7"), st.integers(0, 10**9 - 1), st.integers(0, 10**9 - 1),
    st.sampled_from(["", "=", " = ", "=?"]), st.sampled_from(["", " "]),
)  # fmt: skip
def test_any_spelling_of_a_sum_is_the_sum(sign, first, second, end, space):
    name = "addition9" if sign == "+" else "multiplication9"
    (found,) = read_puzzles(f"{first}{space}{sign}{space}{second}{end}", tasks.get(name))
    plain = "+" if sign == "+" else "*"
    assert found.error is None
    assert found.task.render(found.values) == f"{first}{plain}{second}="


# Files


def some_of(text):
    return "\n".join(read_all(text))


def test_many_puzzles_of_a_text_are_read_in_order():
    both = sudoku(GRID, OTHER)
    rows, others = ("\n".join(rows_of(grid, 9)) for grid in (GRID, OTHER))
    for text in (
        f"{GRID}\n{OTHER}\n",
        f"2\n{GRID}\n{OTHER}\n",
        f"{GRID} # easy\n\n{OTHER} 7.1 by me",
        f"{GRID},{'1' * 81}\n{OTHER},{'2' * 81}",
        f"{GRID}  # rating 7.1\n{OTHER}\t(hard)",
        f"{rows}\n\n{others}",
        f"{rows}\n{others}",
        f"Grid 01\n{rows}\nGrid 02\n{others}",
        f"{rows}\n# the second\n{others}",
        json.dumps([GRID, OTHER]),
        json.dumps({"puzzles": [rows, others]}),
        json.dumps([rows_of(GRID, 9), rows_of(OTHER, 9)]),
    ):
        assert read_all(text) == both, text


def test_several_mazes_of_a_text_are_read():
    for text in (
        f"{MAZE}\n\n{MAZE}", f"{MAZE}\n{MAZE}", f"one\n{MAZE}\nand another\n{MAZE}",
        MAZE.replace("\n", "") + "\n" + MAZE.replace("\n", ""), json.dumps([MAZE, MAZE]),
    ):  # fmt: skip
        assert read_all(text) == [f"maze10x10 {MAZE}".replace("\n", "")] * 2, text


@pytest.mark.parametrize("regions", [REGIONS, "\n".join(["AABBCDEFG"] * 9)])
def test_a_grid_of_regions_makes_the_puzzle_another(regions):
    for line in read_all("\n".join(rows_of(GRID, 9)) + f"\n\n{regions}"):
        assert "a variant (regions in place of boxes) has rules that no model here knows" in line


def test_the_answer_beside_a_puzzle_is_none():
    answer = "1234341221434321"
    for puzzle in (
        {"solution": answer, "puzzle": "1.34341221434321"},
        {"level": "hard", "answer": answer, "mission": "1.34341221434321"},
        {"newboard": {"grids": [{"solution": [[1] * 4] * 4, "value": "1.34341221434321"}]}},
    ):
        assert read_all(json.dumps(puzzle)) == ["sudoku4x4 1034341221434321"]


@pytest.mark.parametrize(
    "spell",
    [
        lambda m: m.replace("S", "A").replace("G", "B"),
        lambda m: m.replace("G", "F"),
        lambda m: m.translate(str.maketrans("#.SG", "1023")),
        lambda m: m.translate(str.maketrans("#.SG", "\u2b1b\u2b1c\U0001f7e2\U0001f3c1")),
        lambda m: str([[*row] for row in m.split()]),
        lambda m: str(m.split()),
        lambda m: str([[".#SG".index(cell) for cell in row] for row in m.split()]),
        lambda m: "\n".join(f"{n} {row}" for n, row in enumerate(m.split())),
        lambda m: f"<pre>\n{m}\n</pre>",
    ],
)  # fmt: skip
def test_other_spellings_of_a_maze(spell):
    assert read_all(spell(MAZE)) == [f"maze10x10 {MAZE}".replace("\n", "")]


def test_kinds_may_stand_together():
    assert read_all(f"{GRID}\n\n{MAZE}\n\n12+345=\n\n1234341221434321") == [
        *sudoku(GRID), f"maze10x10 {MAZE}".replace("\n", ""), "addition3 12+345=",
        "sudoku4x4 1234341221434321",
    ]  # fmt: skip


def test_a_bad_puzzle_of_a_list_is_named_and_the_others_are_read():
    assert read_all(f"{GRID}\n{GRID[1:]}\n{OTHER}") == [
        *sudoku(GRID),
        "line 2: looks like a 9x9 Sudoku; 80 cells where a 9x9 Sudoku has 81; write every cell, "
        "blanks as . or 0",
        *sudoku(OTHER),
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (GRID.replace("6", "A", 1), "looks like a 9x9 Sudoku; r2c1 holds 'A': write 1 to 9"),
        (GRID.replace("7", "3", 1), "looks like a 9x9 Sudoku; r1c2 and r1c5 both hold 3"),
        (GRID[:-9], "looks like a 9x9 Sudoku; 72 cells where a 9x9 Sudoku has 81"),
        ("\n".join(rows_of(GRID, 9)[:8]), "looks like a 9x9 Sudoku; 72 cells where a 9x9"),
        ("\n".join(rows_of(GRID, 9))[:-1], "a 9x9 Sudoku; row 9 has 8 cells where"),
        ("4.31E+80", "a spreadsheet has rounded it to a number, export that column as text"),
        (GRID.replace(".", "0")[2:].lstrip("0"), "if a spreadsheet dropped zeros at its start"),
        ("5...2.1..3.....2", "looks like a 4x4 Sudoku; digit 5 at r1c1 does not fit"),
        ("12 34 5 6 7 8 9 1 2", "looks like a 9x9 Sudoku; .*'12': these are candidates"),
        ("\t2\t3\t1\n1\tx\t4\t2", "looks like a Sudoku; 7 cells are no Sudoku"),
        ("1 2 3 4", "4 cells are no Sudoku; write 16, 36 or 81"),
        (MAZE.replace("G", "."), "looks like a 10x10 maze; 0 cells hold G"),
        (MAZE.replace("G", "G~").replace("..S", ".S"), "looks like a 10x10 maze; row 3 has 11"),
        (MAZE.replace("#G", "~G"), "looks like a 10x10 maze; character '~' at r3c8"),
        (MAZE.replace("#G", "XG"), "looks like a 10x10 maze; 'X' at r3c8 beside walls of '#'"),
        (MAZE.replace("G.", "Go"), "looks like a 10x10 maze; o at r3c10 marks an answer"),
        ("\n".join(f"{row}  {row}" for row in rows_of(GRID, 9)), "9x9 Sudoku; 2 boards side by"),
        ("\n".join(f"{row} | {row}" for row in rows_of(GRID, 9)), "9x9 Sudoku; 2 boards side by"),
        ("\n".join(f"{row}  {row}" for row in MAZE.split()), "looks like a 10x22 maze; two mazes"),
        ("S.#\n..G", "looks like a maze; 2 rows of 3 cells are no maze of 3x3 to 99x99"),
        ("123456789012+1", "looks like an addition; no addition of 12 digits; use 1 to 9"),
        ("hello", "'hello' looks like no puzzle"),
        ("", "looks like no puzzle"),
        ("12+34=46", "looks like arithmetic; write two numbers with"),
        ("0123230110323.10", "r1c1 holds 0 beside blanks '.', and no cell 4: write 1 to 4"),
        (f"[Puzzle]\n{GRID}\n[Regions]\n{REGIONS}", r"a variant \(Regions\) has rules that no"),
        (f"Killer Sudoku\n{GRID}", r"a variant \(Killer Sudoku\) has rules that no model here"),
        ("\n".join(["1.......A......G"] * 16), "16 rows of 16 cells are a 16x16 Sudoku"),
        ("[[5, 3], [10, 1]]", "a cell holds 10: write one digit"),
        ('{"name": 3}', "a JSON object of name: put the puzzle into a member"),
        (json.dumps({"a": GRID, "b": OTHER}), "a JSON object of a, b: put the puzzle into a"),
    ],
)
def test_what_cannot_be_read_is_told_as_what_it_looks_like(text, problem):
    with pytest.raises(InputError, match=problem):
        read_puzzle(text)


def test_the_cells_of_a_problem_are_told():
    with pytest.raises(WrongCells) as caught:
        read_puzzle(GRID.replace("6", "A", 1))
    assert caught.value.cells == (9,)


@pytest.mark.parametrize(
    ("text", "name", "problem"),
    [
        (MAZE, "sudoku9x9", "looks like a 10x10 maze, where sudoku9x9 is wanted"),
        ("12+34=46", "sudoku9x9", "looks like arithmetic, where sudoku9x9 is wanted"),
        ("5*3=15", "maze10x10", "looks like arithmetic, where maze10x10 is wanted"),
        ("12+34=46", "addition2", "'12.34=46' is no addition: write 12.345"),
        (GRID, "maze10x10", "looks like a 9x9 Sudoku, where maze10x10 is wanted"),
        (MAZE, "maze9x9", "looks like a 10x10 maze, where maze9x9 is wanted"),
        (GRID, "sudoku4x4", "looks like a 9x9 Sudoku, where sudoku4x4 is wanted"),
        ("1+2=", "sudoku4x4", "looks like an addition, where sudoku4x4 is wanted"),
        ("1*2", "addition3", "looks like a multiplication, where addition3 is wanted"),
        (GRID, "addition3", r"is no addition: write 12\+345"),
        (GRID[1:], "sudoku9x9", "^80 cells where a 9x9 Sudoku has 81"),
    ],
)
def test_a_task_limits_what_is_read(text, name, problem):
    with pytest.raises(InputError, match=problem):
        read_puzzle(text, tasks.get(name))


def test_a_task_of_ones_own_reads_its_puzzles_itself():
    class Word(Task):
        name = "word"

        def parse(self, text):
            if not text.strip().islower():
                raise InputError(f"{text!r} is no word")
            return np.array([ord(character) for character in text.strip()], np.uint8)

    found = read_puzzles("ab\nCD\n\nef\n", Word())
    assert [p.place for p in found] == ["line 1", "line 2", "line 4"]
    assert [p.error is None for p in found] == [True, False, True]


def test_rows_of_dashes_are_rows_of_blanks():
    rows = [*["-" * 9] * 2, "--------2", "------2--", "--6------", "--21-64--", "-6----7--"]
    rows += ["-" * 9] * 2
    (board,) = read_all("\n".join(rows))
    assert board == "sudoku9x9 " + "".join(rows).replace("-", "0")
