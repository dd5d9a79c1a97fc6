"""The Sudoku builder: its sources, what it writes, and what it refuses."""

import filecmp
import subprocess
import sys
import types
from functools import partial
from pathlib import Path

import building
import numpy as np
import pytest
from building import HEADER

from trm_mlx.builders import sudoku as builder
from trm_mlx.builders.tables import read_table
from trm_mlx.data.tables import Columns
from trm_mlx.errors import InputError
from trm_mlx.tasks.base import Permutation
from trm_mlx.tasks.sudoku import Sudoku

build = partial(building.build, "sudoku")
refusal = partial(building.refusal, "sudoku")
LAUNCHER = Path(__file__).resolve().parents[1] / "dataset" / "build_sudoku_dataset.py"


def read_csv(path):
    return read_table(path, Columns(), Sudoku, builder._boards_of)


def text_of(values):
    return "".join(map(str, values))


def puzzles_of(size, count, seed=0, **options):
    """Questions, answers and ratings, every puzzle from a grid of its own."""
    task, rng = Sudoku(size), np.random.default_rng(seed)
    grids = task.random_grids(count, rng)
    return task.generate(count, rng, grids=grids, **options)


def write_csv(path, puzzles):
    return building.write_csv(path, puzzles, lambda board: text_of(board).replace("0", "."))


def split_puzzles(puzzles, at):
    return [array[:at] for array in puzzles], [array[at:] for array in puzzles]


def boards(dataset):
    """Cell values of every example: (questions, answers)."""
    arrays = dataset.parts[0].arrays
    task = Sudoku({16: 4, 36: 6, 81: 9}[dataset.metadata.seq_len])
    return task.decode(arrays.inputs), task.decode(arrays.labels)


def rows_of(array):
    return {row.tobytes() for row in array}


def assert_sound(dataset):
    """Token ranges, and every answer the only solution of its question."""
    arrays, metadata = dataset.parts[0].arrays, dataset.metadata
    size = metadata.vocab_size - 2
    assert metadata.seq_len == size**2
    assert arrays.inputs.min() == 1
    assert arrays.inputs.max() <= size + 1
    assert (arrays.labels.min(), arrays.labels.max()) == (2, size + 1)
    questions, answers = boards(dataset)
    task = Sudoku(size)
    assert task.check(questions, answers).all()
    counts, solutions, _ = task.solve(questions)
    assert (counts == 1).all()
    np.testing.assert_array_equal(solutions, answers)


def assert_same_folder(first, second, same=True):
    names = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert names == sorted(path.relative_to(second) for path in second.rglob("*") if path.is_file())
    _, different, errors = filecmp.cmpfiles(first, second, map(str, names), shallow=False)
    assert not errors
    assert (not different) == same, different


# Sources


@pytest.mark.parametrize(("size", "train_count", "test_count"), [(4, 60, 20), (6, 7, 3), (9, 4, 2)])
def test_generator(tmp_path, size, train_count, test_count):
    train, test = build(
        tmp_path / "d", "--generate", size, "--num-train", train_count, "--num-test", test_count
    )
    for dataset, count in ((train, train_count), (test, test_count)):
        assert_sound(dataset)
        questions, _ = boards(dataset)
        assert len(rows_of(questions)) == len(questions) == count
    assert not rows_of(boards(train)[1]) & rows_of(boards(test)[1])


def test_generator_extra_givens_and_difficulty(tmp_path):
    minimal, _ = build(tmp_path / "a", "--generate", 6, "--num-train", 8, "--num-test", 1)
    easier, _ = build(
        tmp_path / "b", "--generate", 6, "--num-train", 8, "--num-test", 1, "--extra-givens", 9
    )
    assert (boards(easier)[0] > 0).sum() > (boards(minimal)[0] > 0).sum()
    hard, _ = build(
        tmp_path / "c", "--generate", 6, "--num-train", 3, "--num-test", 1, "--min-difficulty", 1
    )
    assert (Sudoku(6).solve(boards(hard)[0])[2] >= 1).all()


def test_csv_file_is_split(tmp_path):
    puzzles = puzzles_of(4, 40)
    path = write_csv(tmp_path / "puzzles.csv", puzzles)
    train, test = build(tmp_path / "d", "--input", path, "--num-test", 10)
    assert_sound(train)
    assert len(boards(test)[0]) == 10
    every = rows_of(boards(train)[0]) | rows_of(boards(test)[0])
    assert every == rows_of(puzzles[0])


def test_csv_file_splits_no_solution(tmp_path):
    """Several puzzles of each grid: all with a test solution leave the training split."""
    task, rng = Sudoku(4), np.random.default_rng(0)
    grids = task.random_grids(10, rng)
    path = write_csv(tmp_path / "puzzles.csv", task.generate(60, rng, grids=grids))
    train, test = build(tmp_path / "d", "--input", path, "--num-test", 4)
    trained, held_out = rows_of(boards(train)[1]), rows_of(boards(test)[1])
    assert not trained & held_out
    assert len(trained) + len(held_out) == 10


def test_csv_folder_keeps_its_split_and_order(tmp_path):
    train_puzzles, test_puzzles = split_puzzles(puzzles_of(6, 9), 6)
    write_csv(tmp_path / "train.csv", train_puzzles)
    write_csv(tmp_path / "test.csv", test_puzzles)
    train, test = build(tmp_path / "d", "--input", tmp_path)
    np.testing.assert_array_equal(boards(train)[0], train_puzzles[0])
    np.testing.assert_array_equal(boards(test)[1], test_puzzles[1])


def test_spreadsheet_csv(tmp_path):
    """A byte-order mark, blank lines, zeros for blanks and another order of columns."""
    questions, answers, _ = puzzles_of(4, 3)
    lines = ["answer,question,rating"]
    for question, answer in zip(questions, answers, strict=True):
        lines += ["", f"{text_of(answer)},{text_of(question)},5"]
    path = tmp_path / "p.csv"
    path.write_text("\ufeff" + "\r\n".join(lines) + "\r\n", encoding="utf-8")
    _, puzzles = read_csv(path)
    np.testing.assert_array_equal(puzzles.questions, questions)
    assert puzzles.ratings.tolist() == [5, 5, 5]


@pytest.fixture
def hub(monkeypatch):
    """A stand-in for huggingface_hub that serves local files, or raises ``hub.failure``."""
    errors = types.ModuleType("huggingface_hub.errors")
    errors.HfHubHTTPError = type("HfHubHTTPError", (OSError,), {})
    errors.LocalEntryNotFoundError = type("LocalEntryNotFoundError", (FileNotFoundError,), {})
    fake = types.ModuleType("huggingface_hub")
    fake.errors, fake.folder, fake.failure, fake.calls = errors, None, None, []

    def download(repository, name, *, repo_type):
        fake.calls.append((repository, name, repo_type))
        if fake.failure is not None:
            raise fake.failure
        return str(fake.folder / name)

    fake.hf_hub_download = download
    monkeypatch.setitem(sys.modules, "huggingface_hub", fake)
    monkeypatch.setitem(sys.modules, "huggingface_hub.errors", errors)
    return fake


def test_hugging_face_hub(tmp_path, hub):
    train_puzzles, test_puzzles = split_puzzles(puzzles_of(4, 8), 5)
    write_csv(tmp_path / "train.csv", train_puzzles)
    write_csv(tmp_path / "test.csv", test_puzzles)
    hub.folder = tmp_path
    train, test = build(tmp_path / "d")
    assert hub.calls == [
        ("sapientinc/sudoku-extreme", name, "dataset") for name in ("train.csv", "test.csv")
    ]
    np.testing.assert_array_equal(boards(train)[1], train_puzzles[1])
    np.testing.assert_array_equal(boards(test)[1], test_puzzles[1])


# What is written


def test_groups_are_originals_with_their_copies(tmp_path):
    """The published layout: group = original and its copies, one example a puzzle, test bare."""
    train_puzzles, test_puzzles = split_puzzles(puzzles_of(9, 5), 3)
    write_csv(tmp_path / "train.csv", train_puzzles)
    write_csv(tmp_path / "test.csv", test_puzzles)
    train, test = build(tmp_path / "d", "--input", tmp_path, "--num-aug", 4)
    np.testing.assert_array_equal(train.group_indices, [0, 5, 10, 15])
    np.testing.assert_array_equal(train.puzzle_indices, np.arange(16))
    np.testing.assert_array_equal(train.puzzle_identifiers, np.zeros(15))
    assert train.metadata.num_puzzle_identifiers == 1
    assert (train.metadata.total_groups, train.metadata.total_puzzles) == (3, 15)
    assert train.metadata.mean_puzzle_examples == 1
    np.testing.assert_array_equal(test.group_indices, [0, 1, 2])
    questions, answers = boards(train)
    np.testing.assert_array_equal(questions[::5], train_puzzles[0])
    np.testing.assert_array_equal(answers[::5], train_puzzles[1])
    np.testing.assert_array_equal(boards(test)[0], test_puzzles[0])


@pytest.mark.parametrize("size", [6, 9])
def test_copies_are_symmetric_images(tmp_path, size):
    train, _ = build(
        tmp_path / "d", "--generate", size, "--num-train", 3, "--num-test", 2, "--num-aug", 5
    )
    assert_sound(train)
    questions, _ = boards(train)
    assert len(rows_of(questions)) == len(questions)
    for group in questions.reshape(3, 6, -1):
        # Symmetries keep how often the digits occur, up to their names, and the number of givens.
        counts = [sorted(np.bincount(board, minlength=size + 1)[1:]) for board in group]
        assert all(count == counts[0] for count in counts)


def test_copies_show_no_test_solution(tmp_path, monkeypatch):
    """With symmetries that swap digits 1 and 2 or do nothing, half of all copies would collide."""
    questions, answers, ratings = puzzles_of(6, 8)
    swap = np.array([0, 2, 1, 3, 4, 5, 6], np.uint8)
    write_csv(tmp_path / "train.csv", (questions, answers, ratings))
    write_csv(tmp_path / "test.csv", (swap[questions], swap[answers], ratings))
    drawn = []

    def sample_symmetry(self, rng, count):
        swapped = rng.random(count) < 0.5
        drawn.append(int(swapped.sum()))
        digits = np.where(swapped[:, None], swap, np.arange(7, dtype=np.uint8))
        return Permutation(np.tile(np.arange(36, dtype=np.uint8), (count, 1)), digits)

    monkeypatch.setattr(Sudoku, "sample_symmetry", sample_symmetry)
    train, test = build(tmp_path / "d", "--input", tmp_path, "--num-aug", 6)
    assert sum(drawn) > 10
    assert not rows_of(boards(train)[1]) & rows_of(boards(test)[1])
    assert len(boards(train)[0]) == 8 * 7


def test_real_symmetries_show_no_test_solution(tmp_path):
    """4x4 grids are images of two of them: nearly every unchecked build would show some."""
    puzzles = puzzles_of(4, 60)
    path = write_csv(tmp_path / "p.csv", puzzles)
    train, test = build(tmp_path / "d", "--input", path, "--num-test", 30, "--num-aug", 20)
    trained = rows_of(boards(train)[1])
    assert len(trained) > 40  # the copies are new grids
    assert not trained & rows_of(boards(test)[1])
    assert_sound(train)


def test_augmentation_in_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(builder, "CHUNK", 4)
    train, _ = build(
        tmp_path / "d", "--generate", 6, "--num-train", 3, "--num-test", 1, "--num-aug", 3
    )
    assert len(boards(train)[0]) == 12
    assert_sound(train)


def test_same_seed_same_bytes(tmp_path):
    words = ["--generate", 6, "--num-train", 4, "--num-test", 2, "--num-aug", 2]
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        build(tmp_path / name, *words, "--seed", seed)
    assert_same_folder(tmp_path / "a", tmp_path / "b")
    assert_same_folder(tmp_path / "a", tmp_path / "c", same=False)


def test_subsample(tmp_path):
    puzzles = puzzles_of(4, 30)
    path = write_csv(tmp_path / "p.csv", puzzles)
    words = ["--input", path, "--num-test", 5, "--num-aug", 1]
    few, test = build(tmp_path / "a", *words, "--subsample-size", 6)
    assert few.metadata.total_groups == 6
    assert len(boards(test)[0]) == 5
    originals = boards(few)[0][::2]
    assert len(rows_of(originals)) == 6
    assert rows_of(originals) <= rows_of(puzzles[0])
    other, _ = build(tmp_path / "b", *words, "--subsample-size", 6, "--seed", 1)
    assert rows_of(boards(other)[0][::2]) != rows_of(originals)
    every, _ = build(tmp_path / "c", *words, "--subsample-size", 1000)
    assert every.metadata.total_groups == 25


def test_min_difficulty(tmp_path):
    puzzles = puzzles_of(4, 12)
    ratings = np.arange(12) % 3
    train_puzzles, test_puzzles = split_puzzles(puzzles, 6)
    write_csv(tmp_path / "train.csv", (*train_puzzles[:2], ratings[:6]))
    write_csv(tmp_path / "test.csv", (*test_puzzles[:2], ratings[6:]))
    train, test = build(tmp_path / "d", "--input", tmp_path, "--min-difficulty", 2)
    np.testing.assert_array_equal(boards(train)[0], train_puzzles[0][ratings[:6] == 2])
    np.testing.assert_array_equal(boards(test)[0], test_puzzles[0][ratings[6:] == 2])


def test_overwrite_replaces_the_dataset(tmp_path):
    words = ["--generate", 4, "--num-train", 5, "--num-test", 2]
    build(tmp_path / "d", *words)
    train, _ = build(tmp_path / "d", *words[:3], 8, *words[4:], "--overwrite")
    assert len(boards(train)[0]) == 8
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


def test_says_what_it_built(tmp_path, capsys):
    build(tmp_path / "d", "--generate", 4, "--num-train", 5, "--num-test", 2)
    output = capsys.readouterr()
    assert output.out == (
        f"{tmp_path}/d: 5 sudoku4x4 training puzzles with 0 augmentations each, 2 test puzzles\n"
    )
    assert output.err == ""


# What is refused


GRID = "1234341221434321"
QUESTION = "1.3434122143432."


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], "is empty: its first line must name the columns"),
        (["source,question,rating", "x,1,2"], "has no column of answers that is known: name it"),
        ([HEADER], "has no puzzles after its header"),
        ([HEADER, f"x,{QUESTION},{GRID},0", f"x,{QUESTION[1:]},{GRID},0"], "line 3: 15 cells"),
        ([HEADER, "", f"x,{QUESTION},{GRID},0", "", "x,?,?,0"], "line 5: 1 cells where a 4x4"),
        (
            [HEADER, f"x,{QUESTION},{GRID},0", f"x,{QUESTION}"],
            "line 3 has no answer: the line is cut short",
        ),
        ([HEADER, f"x,{QUESTION},{GRID},hard"], "line 2: rating 'hard' is not a number"),
        (
            [HEADER, "x,12,34,0"],
            "line 2: looks like a Sudoku; 2 cells are no Sudoku; write 16, 36 or 81",
        ),
        (
            [HEADER, f"x,9{QUESTION[1:]},{GRID},0"],
            "line 2: looks like a 4x4 Sudoku; digit 9 at r1c1 does not fit",
        ),
        ([HEADER, f"x,{QUESTION},{'1' * 16},0"], "line 2: r1c1 and r1c2 both hold 1"),
        (
            [HEADER, f"x,{QUESTION},{GRID},0", "", f"x,21{'.' * 14},{GRID},0"],
            "line 4: the answer does not solve the question",
        ),
        ([HEADER, f"x,{QUESTION},.{GRID[1:]},0"], "line 2: the answer does not solve"),
        (
            [HEADER, f"x,{QUESTION},{GRID},0"] * 2,
            "line 3: rating 'rating' is not a number",
        ),
    ],
)
def test_bad_csv(tmp_path, capsys, lines, expected):
    path = tmp_path / "bad.csv"
    path.write_text("\n".join(lines))
    line = refusal(capsys, tmp_path / "d", "--input", path)
    assert line.startswith(str(path))
    assert expected in line


def test_csv_that_is_no_text(tmp_path, capsys):
    path = tmp_path / "bad.csv"
    path.write_bytes(b"PK\x03\x04")
    assert "export the sheet as CSV" in refusal(capsys, tmp_path / "d", "--input", path)
    path.write_text(HEADER + "\nx," + "1" * 200_000 + ",1,0\n")
    assert "line 2: field larger" in refusal(capsys, tmp_path / "d", "--input", path)


def test_missing_files(tmp_path, capsys):
    line = refusal(capsys, tmp_path / "d", "--input", tmp_path / "absent.csv")
    assert "absent.csv does not exist" in line
    line = refusal(capsys, tmp_path / "d", "--input", tmp_path)
    assert line.startswith(f"{tmp_path} has no train.csv, it has no table")


def test_folder_of_two_sizes(tmp_path, capsys):
    write_csv(tmp_path / "train.csv", puzzles_of(4, 2))
    write_csv(tmp_path / "test.csv", puzzles_of(6, 2))
    line = refusal(capsys, tmp_path / "d", "--input", tmp_path)
    assert "train.csv holds sudoku4x4 but" in line


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--num-train", 0], "num_train=0: must be at least 1"),
        (["--num-test", 0], "num_test=0: must be at least 1"),
        (["--subsample-size", 0], "subsample_size=0: must be at least 1"),
        (["--num-aug", -1], "num_aug=-1: must be at least 0"),
        (["--extra-givens", -1], "extra_givens=-1: must be at least 0"),
        (["--seed", -1], "seed=-1: must be at least 0"),
        (["--num-train", "many"], "argument --num-train: invalid int value: 'many'"),
        (["--generate", 5], "argument --generate: invalid choice: 5"),
        (["--input", "x.csv"], "argument --input: not allowed with argument --generate"),
        (["--colour", "red"], "unrecognized arguments: --colour red"),
        (["--num-aug", 1], "num_aug with generate=4"),
        (
            ["--min-difficulty", 9],
            "no sudoku4x4 puzzle rated 9 or more in 10000 tries; ask for easier ones",
        ),
    ],
)
def test_bad_options(tmp_path, capsys, words, expected):
    assert expected in refusal(capsys, tmp_path / "d", "--generate", 4, *words)


def test_nothing_left(tmp_path, capsys):
    path = write_csv(tmp_path / "p.csv", (*puzzles_of(4, 6)[:2], np.arange(6)))
    line = refusal(capsys, tmp_path / "d", "--input", path, "--num-test", 6)
    assert line == "num_test=6 leaves no training puzzle of 6: lower it"
    words = ["--input", path, "--num-test", 2, "--min-difficulty", 40]
    line = refusal(capsys, tmp_path / "d", *words)
    assert line.startswith("min_difficulty=40 leaves no training puzzle; the highest rating is ")


def test_folder_in_use(tmp_path, capsys):
    folder = tmp_path / "d"
    words = ["--generate", 4, "--num-train", 3, "--num-test", 1]
    build(folder, *words)
    capsys.readouterr()
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert "set overwrite" in refusal(capsys, folder, *words, "--seed", 5)
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "chapter1.txt").write_text("precious")
    assert "something other than a dataset" in refusal(capsys, other, *words, "--overwrite")
    assert (other / "chapter1.txt").read_text() == "precious"


def test_hub_failures(tmp_path, capsys, hub, monkeypatch):
    hub.failure = hub.errors.HfHubHTTPError("404\nnot found")
    line = refusal(capsys, tmp_path / "d", "--source-repo", "me/none")
    assert line == "cannot download train.csv of me/none: 404 not found"
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert "pip install 'trm-mlx[hub]'" in refusal(capsys, tmp_path / "d")


def test_read_csv_is_an_input_error_in_python(tmp_path):
    with pytest.raises(InputError, match="there is no file"):
        read_csv(tmp_path / "absent.csv")


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["--generate", "4", "--num-train", "4", "--num-test", "2", "--output-dir", "d"], 0),
        (["--input", "absent.csv", "--output-dir", "d"], 2),
        (["--generate", "4"], 2),
    ],
)
def test_launcher(tmp_path, words, status):
    done = subprocess.run(
        [sys.executable, LAUNCHER, *words],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == status, done.stderr
    assert (tmp_path / "d").exists() == (status == 0)
    if status:
        (line,) = done.stderr.splitlines()
        assert line.startswith("error: ")
    else:
        assert done.stderr == ""
