"""Tables of puzzles in the forms people have them."""

import gzip
import json
import sys
import types

import numpy as np
import pytest

from trm_mlx import InputError
from trm_mlx.data.tables import Row, is_table, read_rows
from trm_mlx.data.text_files import open_text

QUESTION = "53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79"
ANSWER = "534678912672195348198342567859761423426853791713924856961537284287419635345286179"


def written(tmp_path, text, name="puzzles.csv", encoding="utf-8"):
    path = tmp_path / name
    path.write_bytes(text.encode(encoding))
    return path


def plain(row):
    return row.question.strip(), (row.answer or "").strip(), row.rating


PUBLISHED = f"source,question,answer,rating\nme,{QUESTION},{ANSWER},3\n"


@pytest.mark.parametrize(
    ("text", "rating"),
    [
        (PUBLISHED, 3),
        (PUBLISHED.replace(",", ";"), 3),
        (PUBLISHED.replace(",", "\t"), 3),
        (PUBLISHED.replace(",", ", "), 3),
        (PUBLISHED.replace("\n", "\r\n"), 3),
        (PUBLISHED.replace("\n", "\r"), 3),
        ("\ufeff" + PUBLISHED, 3),
        ("# from me\n\n" + PUBLISHED, 3),
        ("sep=;\n" + PUBLISHED.replace(",", ";"), 3),
        (PUBLISHED.replace(",3", ",3.0"), 3),
        (PUBLISHED.replace(",3", ","), None),
        (PUBLISHED.replace(",3", ",3,junk"), 3),
        (PUBLISHED.upper().replace("ME", "me"), 3),
        (PUBLISHED + "\n\n , , ,\n", 3),
        (f"quizzes,solutions\n{QUESTION},{ANSWER}\n", None),
        (f"id,puzzle,solution,clues,difficulty\n0,{QUESTION},{ANSWER},29,0.5\n", 0.5),
        (f" Puzzle , Solution \n{QUESTION},{ANSWER}\n", None),
        (f'"question","answer"\n"{QUESTION}","{ANSWER}"\n', None),
        (f"{QUESTION},{ANSWER}\n", None),
        (f"me,{QUESTION},{ANSWER},2\n", 2),
        (json.dumps({"puzzle": QUESTION, "solution": ANSWER, "rating": 4}) + "\n", 4),
        (json.dumps([{"Quizzes": QUESTION, "Solutions": ANSWER}]), None),
        ("[\n" + json.dumps({"question": QUESTION, "answer": ANSWER}) + "\n]", None),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-le"])
def test_any_dialect_gives_the_same_rows(tmp_path, text, rating, encoding):
    rows = list(read_rows(written(tmp_path, text, encoding=encoding)))
    assert [plain(row) for row in rows] == [(QUESTION, ANSWER, rating)]


def test_a_zipped_table_is_read_whatever_its_name(tmp_path):
    for name in ("puzzles.csv.gz", "puzzles.csv"):
        (tmp_path / name).write_bytes(gzip.compress(PUBLISHED.encode()))
        (row,) = read_rows(tmp_path / name)
        assert plain(row) == (QUESTION, ANSWER, 3)


def test_columns_of_other_names_are_named(tmp_path):
    path = written(tmp_path, f"solved_by,start grid,end\nme,{QUESTION},{ANSWER}\n")
    for columns in (("start grid", "end"), ("Start Grid", " END "), ("2", "3")):
        (row,) = read_rows(path, *columns)
        assert plain(row) == (QUESTION, ANSWER, None)
    with pytest.raises(InputError, match=r"no column for the question.*solved_by, start grid, end"):
        list(read_rows(path))
    with pytest.raises(InputError, match="no column 'begin'"):
        list(read_rows(path, "begin"))


def test_digits_of_numpy_pairs(tmp_path):
    boards = np.array([[int(c) for c in text.replace(".", "0")] for text in (QUESTION, ANSWER)])
    np.save(tmp_path / "sudoku_quizzes.npy", boards[:1].reshape(1, 9, 9))
    (row,) = read_rows(tmp_path / "sudoku_quizzes.npy")
    assert row == Row(1, QUESTION.replace(".", "0"))
    np.save(tmp_path / "sudoku_solutions.npy", boards[1:].reshape(1, 9, 9).astype(np.float32))
    (row,) = read_rows(tmp_path / "sudoku_quizzes.npy")
    assert row == Row(1, QUESTION.replace(".", "0"), ANSWER)
    np.save(tmp_path / "sudoku_solutions.npy", boards)
    with pytest.raises(InputError, match=r"quizzes.npy holds \(1, 81\) digits, but .*\(2, 81\)"):
        list(read_rows(tmp_path / "sudoku_quizzes.npy"))
    np.save(tmp_path / "quizzes.npy", boards / 9)
    with pytest.raises(InputError, match="other numbers than 0 to 9"):
        list(read_rows(tmp_path / "quizzes.npy"))


def test_parquet_needs_its_library(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"p.parquet: .*pip install pyarrow, or save it as CSV"):
        list(read_rows(tmp_path / "p.parquet"))


def test_parquet_is_read_where_its_library_is(tmp_path, monkeypatch):
    """With a stand-in for pyarrow, of the few names that are used."""

    class ParquetFile:
        schema_arrow = types.SimpleNamespace(names=["Puzzle", "solution", "difficulty"])

        def __init__(self, path):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *details):
            pass

        def iter_batches(self):
            columns = ([QUESTION, [[5, 3], [0, 0]]], [ANSWER, None], [1.5, None])
            cells = [types.SimpleNamespace(to_pylist=lambda c=c: c) for c in columns]
            yield types.SimpleNamespace(columns=cells)

    arrow = types.ModuleType("pyarrow")
    arrow.ArrowException = type("ArrowException", (Exception,), {})
    arrow.parquet = types.ModuleType("pyarrow.parquet")
    arrow.parquet.ParquetFile = ParquetFile
    monkeypatch.setitem(sys.modules, "pyarrow", arrow)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", arrow.parquet)
    assert list(read_rows(tmp_path / "p.parquet")) == [
        Row(1, QUESTION, ANSWER, 1.5), Row(2, "[[5, 3], [0, 0]]", ""),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (PUBLISHED + f"me,{QUESTION}\n", "line 3 has no answer: the line is cut short"),
        (PUBLISHED + "me\n", "line 3 has 1 fields, the question would be number 2"),
        (PUBLISHED + f"me,{QUESTION},{ANSWER},hard\n", "line 3: rating 'hard' is not a number"),
        (PUBLISHED + f"me,{QUESTION},{ANSWER},inf\n", "line 3: rating 'inf' is not a number"),
        (json.dumps({"puzzle": QUESTION}) + "\n{\n", "line 2 is not JSON"),
        (json.dumps({"puzzle": QUESTION}) + "\n[1]\n", "line 2 is no object"),
        (json.dumps({"puzzle": QUESTION}) + '\n{"a": 1}\n', "line 2 has no question, it has a"),
    ],
)
def test_a_broken_row_is_named_and_the_others_are_read(tmp_path, text, problem):
    path = written(tmp_path, text)
    good, bad = read_rows(path)
    assert good.question == QUESTION
    assert bad.problem.startswith(f"{path} {problem}")


def test_lines_are_those_of_the_file(tmp_path):
    path = written(tmp_path, f'# mine\nquestion\n"{QUESTION[:9]}\n{QUESTION[9:]}"\n\n{QUESTION}\n')
    assert [row.line for row in read_rows(path)] == [3, 6]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"PK\x03\x04....", "is a zip archive or an Excel workbook: export the sheet as CSV"),
        (b"\x89PNG\r\n", "is a picture"),
        (b"\x1f\x8b\x08\x00", "is cut short"),
        (b"\x1f\x8b" + b"junk" * 9, "damaged"),
        (gzip.compress(PUBLISHED.encode())[:15] + b"junk" * 9, "damaged"),
        (b"name,age\nx,3\n", "has no column for the question"),
    ],
)
def test_what_is_no_table_is_named(tmp_path, data, message):
    path = tmp_path / "puzzles.csv"
    path.write_bytes(data)
    with pytest.raises(InputError, match=message) as caught:
        list(read_rows(path))
    assert str(path) in str(caught.value)


def test_a_missing_file_is_said_to_be_missing(tmp_path):
    with pytest.raises(InputError, match="there is no file"), open_text(tmp_path / "no.csv"):
        pass


@pytest.mark.parametrize(
    ("text", "table"),
    [
        (PUBLISHED, True),
        ("question\n", True),
        ('{"puzzle": "1"}\n', True),
        ('[{"puzzle": "1"}]', True),
        ("[[5, 3], [0, 0]]", False),
        ("[Puzzle]\n53..", False),
        (f"{QUESTION}\n", False),
        (f"{QUESTION},{ANSWER}\n", False),
        ("#..#\n.S.G\n", False),
        ("", False),
    ],
)
def test_tables_are_told_from_puzzles(tmp_path, text, table):
    assert is_table(written(tmp_path, text)) is table


def test_arrays_of_a_numpy_archive(tmp_path):
    question = QUESTION.replace(".", "0")
    digits = [np.array([[*map(int, text)]], np.int64) for text in (question, ANSWER)]
    for names in (("quizzes", "solutions"), ("clue_grid", "solved_grid")):
        path = tmp_path / "sudoku.npz"
        np.savez_compressed(path, **dict(zip(names, digits, strict=True)))
        (row,) = read_rows(path)
        assert (row.question, row.answer) == (question, ANSWER)
    np.savez(path, x=digits[0])
    with pytest.raises(InputError, match="has no array question, it has x: name yours with"):
        next(read_rows(path))
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match=r"sudoku\.npz is damaged"):
        next(read_rows(path))


@pytest.mark.parametrize("rating", ["", "NaN", "None", "2,5", "2.5"])
def test_ratings_as_programs_write_them(tmp_path, rating):
    (row,) = read_rows(written(tmp_path, f"puzzle;solution;rating\n{QUESTION};{ANSWER};{rating}\n"))
    assert row.rating == (2.5 if "5" in rating else None)


@pytest.mark.parametrize(
    "header", ["Puzzle Grid,Solution Grid", "unsolved_sudoku,solved_sudoku", "givens,solution"]
)
def test_names_of_columns_in_several_words(tmp_path, header):
    (row,) = read_rows(written(tmp_path, f"puzzle_id,{header}\n7,{QUESTION},{ANSWER}\n"))
    assert (row.question, row.answer) == (QUESTION, ANSWER)
