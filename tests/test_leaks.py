"""Test puzzles that are trained on, as they are or as images, are counted while building."""

import re

import numpy as np
import pytest

from trm_mlx.builders.maze import build_maze
from trm_mlx.builders.sudoku import build_sudoku
from trm_mlx.cli import main
from trm_mlx.data.dataset import PuzzleDataset
from trm_mlx.tasks import sudoku_images
from trm_mlx.tasks.maze import Maze
from trm_mlx.tasks.sudoku import Sudoku

SPLITS = ("train", "test")
KINDS = [Sudoku(9), Sudoku(6), Sudoku(4), Maze(7)]


def table(path, task, puzzles):
    lines = ["question,answer"]
    for question, answer in zip(puzzles.questions, puzzles.answers, strict=True):
        lines.append(f"{task.line(question)},{task.line(answer)}")
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("task", KINDS, ids=lambda task: task.name)
def test_images_have_one_key_and_are_found(task):
    rng = np.random.default_rng(0)
    puzzles = task.generate(40, rng)
    questions = puzzles.questions
    images = task.sample_symmetry(rng, 40).apply(questions)
    assert task.image_keys(questions) == task.image_keys(images)
    assert task.are_images(questions, images).all()


@pytest.mark.parametrize("task", KINDS[:3], ids=lambda task: task.name)
def test_what_is_no_image_is_told_apart(task):
    """Also where the invariant alone would not do: one given moved, one digit exchanged."""
    rng = np.random.default_rng(1)
    questions = task.generate(20, rng).questions
    changed = task.sample_symmetry(rng, 20).apply(questions)
    for board in changed:
        first, blank = np.flatnonzero(board)[0], np.flatnonzero(board == 0)[0]
        board[blank], board[first] = board[first], 0
        board[np.flatnonzero(board)[1]] = task.size  # as likely as not another digit
    exact = task.are_images(questions, changed)
    same_givens = np.sort((questions > 0).sum(axis=1)) == np.sort((changed > 0).sum(axis=1))
    assert same_givens.all()
    if task.size == 9:
        assert not exact.any()
        assert not set(task.image_keys(questions)) & set(task.image_keys(changed))
    for question, other, found in zip(questions, changed, exact, strict=True):
        if found:
            assert task.image_keys(question[None]) == task.image_keys(other[None])


def test_boards_of_many_symmetries():
    task, board = Sudoku(9), np.zeros((3, 81), np.uint8)
    board[1, [0, 30, 60]] = 1, 2, 3  # on the diagonal: one in each of three boxes
    board[2, [0, 30, 70]] = 1, 2, 3
    rng = np.random.default_rng(2)
    images = task.sample_symmetry(rng, 3).apply(board)
    assert task.are_images(board, images).all()
    assert task.image_keys(board) == task.image_keys(images)
    twice = board[[1, 1]].copy()
    twice[1, 60] = 1  # a digit twice
    assert not task.are_images(twice[:1], twice[1:]).any()


def test_the_comparison_is_exact_where_the_invariant_is_not(monkeypatch):
    monkeypatch.setattr(sudoku_images, "ROUNDS", 1)  # which sees no digits
    board = np.zeros((2, 16), np.uint8)
    board[0, [0, 5]], board[1, [0, 5]] = (1, 2), (1, 1)
    assert sudoku_images.keys(board, 4, (2, 2))[0] == sudoku_images.keys(board, 4, (2, 2))[1]
    assert not sudoku_images.are_images(board[:1], board[1:], 4, (2, 2)).any()
    # Lines that would leave their band.
    blank, lines = np.zeros((1, 4, 4), np.uint8), np.arange(4, dtype=np.uint64)[None]
    for order, found in (([1, 0, 3, 2], True), ([2, 3, 0, 1], True), ([0, 2, 1, 3], False)):
        others = (lines[:, order], lines)
        assert sudoku_images._carries(blank, blank, (lines, lines), others, (2, 2))[0] == found


@pytest.mark.parametrize(
    ("build", "task"), [(build_sudoku, Sudoku(6)), (build_maze, Maze(7))], ids=["sudoku", "maze"]
)
def test_the_builders_count_leaks(tmp_path, build, task):
    rng = np.random.default_rng(3)
    train, others = (task.generate(10, rng) for _ in range(2))
    symmetry = task.sample_symmetry(rng, 10)
    images = train._replace(
        questions=symmetry.apply(train.questions), answers=symmetry.apply(train.answers)
    )
    table(tmp_path / "in" / "train.csv", task, train)
    table(tmp_path / "in" / "test.csv", task, others)
    assert build(tmp_path / "clean", input=tmp_path / "in").warnings == ()
    both = type(train)(
        *(np.concatenate([a[:4], b[:3]]) for a, b in zip(others, images, strict=True))
    )
    table(tmp_path / "in" / "test.csv", task, both)
    (warning,) = build(tmp_path / "leaky", input=tmp_path / "in").warnings
    assert warning.startswith("3 of 7 test puzzles (the first is number 5) are trained on")


def test_wrong_lines_are_counted(tmp_path):
    task = Sudoku(4)
    puzzles = task.generate(6, np.random.default_rng(0))
    puzzles.answers[[2, 4]] = puzzles.answers[[4, 2]][:, ::-1]
    table(tmp_path / "in.csv", task, puzzles)
    with pytest.raises(ValueError, match=r"line 4: the answer does not .*; 2 of 6 lines are wrong"):
        build_sudoku(tmp_path / "d", input=tmp_path / "in.csv", num_test=1)


def test_generated_puzzles_are_compared_too(tmp_path):
    """4x4 grids are images of two, so puzzles have images on both sides, which is no fault."""
    built = build_sudoku(tmp_path / "a", generate=4, num_train=300, num_test=20)
    assert built.warnings == ()
    (note,) = built.notes
    assert re.search(
        r"no test puzzle is trained on, .* but \d+ of 20 become training puzzles", note
    )
    train, test = (np.load(tmp_path / "a" / split / "all__inputs.npy") for split in SPLITS)
    assert not {row.tobytes() for row in train} & {row.tobytes() for row in test}
    assert build_sudoku(tmp_path / "b", generate=6, num_train=30, num_test=10).warnings == ()
    assert build_maze(tmp_path / "c", generate=7, num_train=30, num_test=10).warnings == ()
    sizes = {"generate": [4, 6], "max_grid_size": 6}
    built = build_sudoku(tmp_path / "d", **sizes, num_train=400, num_test=20)
    (warning,), notes = built.warnings, built.notes
    assert notes == ()
    assert warning.endswith("are images of two, only larger boards test what is new")
    assert int(warning.split()[0]) <= 10  # those of 4x4


def test_rows_that_cannot_be_used_are_left_out(tmp_path, capsys):
    """Unreadable, wrong, unsolvable ones, of another kind: each is counted, the rest is built."""
    task = Sudoku(4)
    puzzles = task.generate(9, np.random.default_rng(0))
    table(tmp_path / "in.csv", task, puzzles)
    lines = (tmp_path / "in.csv").read_text().splitlines()
    broken = {
        1: "what,ever",
        3: f"{lines[3][:15]},{lines[3][17:]}",
        4: f"{lines[4][:16]},{lines[5][17:]}",
        6: f"{'12.....3.......4'},{lines[6][17:]}",
        8: f"{'.' * 81},{'1' * 81}",
    }
    for number, line in broken.items():
        lines[number] = line
    (tmp_path / "in.csv").write_text("\n".join(lines))
    with pytest.raises(
        ValueError, match=r"line 2: .*; or leave such puzzles out with --skip-invalid"
    ):
        build_sudoku(tmp_path / "d", input=tmp_path / "in.csv", num_test=1)
    words = ["--input", str(tmp_path / "in.csv"), "--num-test", "1", "--skip-invalid"]
    assert main(["build", "sudoku", "--output-dir", str(tmp_path / "d"), *words]) == 0
    output = capsys.readouterr()
    assert f"warning: 5 puzzles are left out, the first: {tmp_path}/in.csv line 2: " in output.err
    assert "3 sudoku4x4 training puzzles" in output.out
    data = [PuzzleDataset([tmp_path / "d"], split).parts[0].arrays for split in ("train", "test")]
    kept = {task.line(row) for part in data for row in task.decode(part.inputs)}
    good = [row for number, row in enumerate(puzzles.questions, start=1) if number not in broken]
    assert kept == {task.line(row) for row in good}
    # Nothing else is left.
    (tmp_path / "in.csv").write_text("question,answer\n" + "\n".join(broken.values()))
    with pytest.raises(ValueError, match=r"holds no puzzle that can be used: .*in\.csv line 2: "):
        build_sudoku(tmp_path / "e", input=tmp_path / "in.csv", skip_invalid=True)


def test_maze_rows_are_left_out_as_well(tmp_path):
    task = Maze(5)
    table(tmp_path / "in.csv", task, task.generate(4, np.random.default_rng(0)))
    with (tmp_path / "in.csv").open("a") as file:
        file.write(f"{'#' * 23}SG,{'#' * 25}\nS#G{'#' * 22},S#G{'#' * 22}\n")
    built = build_maze(tmp_path / "d", input=tmp_path / "in.csv", num_test=1, skip_invalid=True)
    assert built.warnings[0].startswith("2 puzzles are left out, the first: ")
    assert built.summary.startswith("3 maze5x5 training puzzles")
