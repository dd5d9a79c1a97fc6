"""Files as people have them: small ones of each kind, kept beside the checkout where there are any.

The same kinds are made in ``test_puzzle_text.py`` and ``test_tables.py``, for everybody.
"""

from pathlib import Path

import numpy as np
import pytest

from trm_mlx import InputError
from trm_mlx.builders.maze import build_maze
from trm_mlx.builders.sudoku import build_sudoku
from trm_mlx.data.dataset import PuzzleDataset
from trm_mlx.data.tables import is_table, read_text
from trm_mlx.solve.questions import questions_of_table, questions_of_text

CASES = Path(__file__).resolve().parents[2] / "shared" / "cases"
pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason="no cases beside the checkout")

FIRST = "000431060010000840200000000000300490500890001401007000600900010987000602003500004"
SECOND = "800047000000600201502009780010006328000000070900080050000000507000003040080760013"
TEXTS = {
    "bom.txt": 2, "collection.sdm": 3, "crlf.txt": 2, "dash.txt": 2, "mixed.csv": 3,
    "one_bad_line.txt": 3, "trailing_comment.txt": 2, "two_grids.txt": 2, "utf16.txt": 2,
}  # fmt: skip


def names_of(folder):
    return sorted(path.name for path in (CASES / folder).glob("*")) if CASES.is_dir() else []


def read(path):
    if is_table(path):
        return list(questions_of_table(path))
    return questions_of_text(read_text(path), str(path))


def line_of(values):
    return "".join(map(str, values))


@pytest.mark.parametrize("name", names_of("01-sudoku-text"))
def test_sudoku_texts(name):
    path = CASES / "01-sudoku-text" / name
    found = read(path)
    bad = [question for question in found if question.error]
    if name == "candidates.txt":
        (question,) = bad
        assert "looks like a 9x9 Sudoku; a cell holds '12': these are candidates" in str(
            question.error
        )
        return
    assert len(found) == TEXTS.get(name, 1)
    if name in ("mixed.csv", "one_bad_line.txt"):
        (question,) = bad
        assert question.place == f"{path} line {3 if name == 'mixed.csv' else 2}"
        assert "80 cells where a 9x9 Sudoku has 81" in str(question.error)
        return
    assert not bad
    if name != "dash36.txt":
        assert line_of(found[0].values) == FIRST
    if len(found) == 2:
        assert line_of(found[1].values) == SECOND


@pytest.mark.parametrize("name", [n for n in names_of("04-mazes") if n.endswith(".txt")])
def test_maze_texts(name):
    path = CASES / "04-mazes" / name
    (question,) = read(path)
    if name == "rect.txt":
        assert "looks like a maze; 9 rows of 10 cells are no square maze" in str(question.error)
    elif name == "tilde_path.txt":
        assert "looks like a 10x10 maze; o at r3c10 marks an answer" in str(question.error)
    else:
        (plain,) = read(path.with_name("plain.txt"))
        assert np.array_equal(question.values, plain.values)


BROKEN = {
    "dup.csv": "leaves no training puzzle of 12",
    "empty.csv": "is empty",
    "excel.csv": "line 7: 7 cells .* a spreadsheet has rounded it to a number",
    "header_only.csv": "has no puzzles after its header",
    "list.sdm": "has no column of answers",
    "lost_zero.csv": "line 7: 78 cells .* if a spreadsheet dropped zeros at its start",
    "question_only.csv": "has no column of answers",
    "short_row.csv": "line 7 has no answer: the line is cut short",
    "wrong_answer.csv": "line 7: the answer does not solve the question",
    "hub_longer_path.csv": "line 2: the answer does not solve the question",
}


@pytest.mark.parametrize(
    ("folder", "name"),
    [("02-sudoku-csv", name) for name in names_of("02-sudoku-csv")]
    + [("04-mazes", name) for name in names_of("04-mazes") if name.endswith(".csv")],
)
def test_tables_become_datasets(tmp_path, folder, name):
    path = CASES / folder / name
    build = build_maze if folder == "04-mazes" else build_sudoku
    if name == "data.parquet":
        pytest.importorskip("pyarrow")
    if name in BROKEN:
        with pytest.raises(InputError, match=BROKEN[name]) as caught:
            build(tmp_path / "out", input=path, num_test=1)
        assert name in str(caught.value) or name == "dup.csv"
        assert not (tmp_path / "out").exists()
        return
    built = build(tmp_path / "out", input=path, num_test=1)
    train, test = (PuzzleDataset([tmp_path / "out"], split) for split in ("train", "test"))
    sizes = {"folder": (12, 3), "folder_gz": (12, 12)}
    expected = sizes.get(name, (2, 1) if folder == "04-mazes" else (11, 1))
    assert (train.puzzle_indices[-1], test.puzzle_indices[-1]) == expected
    if name == "multi_solution.csv":
        assert built.warnings[0].startswith("11 of 11 training questions have several solutions")
    else:
        assert not built.warnings
    original = CASES / folder / ("hub.csv" if folder == "04-mazes" else "good.csv")
    if expected in ((11, 1), (2, 1)) and name not in ("multi_solution.csv", "dash.csv"):
        build(tmp_path / "plain", input=original, num_test=1)
        plain = PuzzleDataset([tmp_path / "plain"], "train")
        for field in ("inputs", "labels"):
            ours, theirs = (getattr(d.parts[0].arrays, field) for d in (train, plain))
            assert np.array_equal(ours, theirs)
