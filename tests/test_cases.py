"""Files as people have them: small ones of each kind, kept beside the checkout where there are any.

The same kinds are made in ``test_puzzle_text.py`` and ``test_tables.py``, for everybody.
"""

from pathlib import Path

import numpy as np
import pytest

from trm_mlx import InputError
from trm_mlx.builders.arc import build_arc
from trm_mlx.builders.maze import build_maze
from trm_mlx.builders.sudoku import build_sudoku
from trm_mlx.config_io import train_config
from trm_mlx.data.dataset import PuzzleDataset
from trm_mlx.solve.questions import find_source, read_questions
from trm_mlx.tasks import task_of
from trm_mlx.tasks.maze import Maze
from trm_mlx.train.batches import open_data

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
    return list(read_questions(find_source(None, str(path))))


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
        assert question.task == Maze(10, shown=(9, 10))
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
    elif name == "folder_gz":  # its two files are the same
        assert built.warnings[0].startswith("12 of 12 test puzzles (the first is number 1) are")
    elif name == "folder":
        assert built.warnings[0].startswith("3 of 3 test puzzles")
    else:
        assert not built.warnings
    original = CASES / folder / ("hub.csv" if folder == "04-mazes" else "good.csv")
    if expected in ((11, 1), (2, 1)) and name not in ("multi_solution.csv", "dash.csv"):
        build(tmp_path / "plain", input=original, num_test=1)
        plain = PuzzleDataset([tmp_path / "plain"], "train")
        for field in ("inputs", "labels"):
            ours, theirs = (getattr(d.parts[0].arrays, field) for d in (train, plain))
            assert np.array_equal(ours, theirs)


ARC_BROKEN = {
    "color10": "puzzle 00000000, train[2], input: 10 is no colour; use 0 to 9",
    "emptygrid": "train[2], input: not a grid",
    "emptyrow": "train[2], input: not a grid",
    "flat1d": "train[2], input: not a grid",
    "floatcolor": "train[2], input: row 1, column 1 is 1.0: not a grid",
    "missing_solution": "a_training_solutions.json: puzzle 00000000 has no solution",
    "nan": "train[0], input: row 1, column 1 is nan: not a grid",
    "neg": "train[2], input: -1 is no colour",
    "notest": "puzzle 00000000 has no 'test' examples",
    "ragged": "train[2], input: the rows differ in length",
    "sol_fewer": "puzzle e0000002 needs a list of 3 outputs",
    "strcolor": "train[2], input: row 1, column 1 is '1': not a grid",
    "truncated": "a_training_challenges.json is not JSON",
}


@pytest.mark.parametrize("name", names_of("03-arc"))
def test_arc_files(tmp_path, name):
    folder, out = CASES / "03-arc" / name, tmp_path / "out"
    kaggle = (folder / "a_training_challenges.json").exists()
    options = {"input_file_prefix": folder / "a" if kaggle else folder, "num_aug": 1}
    if name == "rearc":
        options["input_file_prefix"] = folder / "tasks"
    if name in ARC_BROKEN:
        with pytest.raises(InputError) as caught:
            build_arc(out, **options)
        assert ARC_BROKEN[name] in str(caught.value)
        assert not out.exists()
        if name == "truncated":
            return
        built = build_arc(out, **options, skip_invalid=True)
        assert "1 puzzles are left out, the first: " in built.warnings[0]
        assert built.summary.startswith("6 ARC puzzles, ")
        return
    built = build_arc(out, **options)
    expected = {
        "nosol_eval": "a_evaluation_solutions.json not found: tests without an output get [[0]]",
        "rearc": "nothing is held out",
        "samegrid_in_eval": "the answers of 4 test puzzles (e0000001, ...) are trained on",
        "sol_null": "a_evaluation_challenges.json: tests without an output get [[0]]",
    }
    warnings = " ".join(built.warnings)
    # These evaluation puzzles are copies of the training puzzles under other names.
    assert expected.get(name, "the answers of 3 test puzzles (") in warnings
    counts = {"rearc": (4, 0), "samegrid_in_eval": (8, 4)}
    total, held_out = counts.get(name, (7, 3))
    assert built.summary.startswith(f"{total} ARC puzzles, {held_out} of them held out")
    if name == "repo":  # as it is from the competition's files
        build_arc(tmp_path / "same", **{**options, "input_file_prefix": folder / "data"})
        build_arc(tmp_path / "kaggle", **{**options, "input_file_prefix": folder.parent / "case/a"})
        for split in ("train", "test"):
            one, other, third = (
                PuzzleDataset([tmp_path / d], split) for d in ("out", "same", "kaggle")
            )
            for data in (other, third):
                assert np.array_equal(one.parts[0].arrays.inputs, data.parts[0].arrays.inputs)


def test_a_test_split_that_is_trained_on(tmp_path):
    built = build_sudoku(tmp_path / "out", input=CASES / "10-leak")
    assert built.warnings[0].startswith("12 of 12 test puzzles (the first is number 1) are trained")


@pytest.mark.parametrize("split", ["data", "nan"])
def test_counts_that_are_wrong(split):
    folder = CASES / "06-total-groups" / split
    match = (
        r"dataset.json: 'mean_puzzle_examples' is nan"
        if split == "nan"
        else (r"dataset.json: 'total_groups' is 3, but the arrays hold 300; correct it")
    )
    with pytest.raises(InputError, match=match):
        PuzzleDataset([folder], "train")


def test_datasets_of_hrm(tmp_path):
    data = PuzzleDataset([CASES / "08-hrm-metadata" / "data"], "train")
    assert data.metadata.total_puzzles == 300
    assert task_of(data.metadata).name == "sudoku4x4"
    training = {"data_paths": [str(CASES / "08-hrm-metadata" / "data")]}
    assert open_data(train_config(training))[1].metadata.total_puzzles == 40


def test_a_dataset_without_a_test_split():
    folder = str(CASES / "11-train-only" / "data")
    train, test = open_data(train_config({"data_paths": [folder]}))
    assert (train.metadata.total_puzzles, test) == (300, None)


def test_a_dataset_whose_labels_are_ignored():
    folder = str(CASES / "12-all-ignored" / "data")
    with pytest.raises(InputError, match=r"train/all__labels.npy: every label is ignored"):
        open_data(train_config({"data_paths": [folder]}))


def test_identifiers_of_another_order():
    first, second = (str(CASES / "05-identifiers" / name) for name in "AB")
    with pytest.raises(InputError, match=r"identifier 1 is puzzle0 in .*/A but puzzle9 in .*/B"):
        open_data(train_config({"data_paths": [first], "data_paths_test": [second]}))
