"""Boards of several sizes on one padded board, from text to training, evaluation and answers."""

import json

import numpy as np
import pytest
from tiny import TINY

import trm_mlx
from trm_mlx.cli import main
from trm_mlx.demo.registry import ModelEntry
from trm_mlx.errors import InputError
from trm_mlx.models.checkpoint_files import read_config, save_model
from trm_mlx.tasks import get, task_of
from trm_mlx.tasks.base import WrongCells
from trm_mlx.tasks.padded_sudoku import PaddedSudoku
from trm_mlx.tasks.registry import read_puzzles
from trm_mlx.tasks.sudoku import Sudoku
from trm_mlx.train.batches import open_split_of
from trm_mlx.view.recording import first_frame
from trm_mlx.view.style import cells_of

PUZZLE = "...2.1..3.....2."  # 4x4


@pytest.fixture(scope="module")
def mixed():
    """The task and puzzles of both sizes."""
    task = get("sudoku6in7")
    return task, task.generate(40, np.random.default_rng(0))


def pad_and_encode(puzzle, solution, size, side):
    """nano-trm's ``SudokuDataset.pad_and_encode``, in its words."""
    puzzle_shifted = puzzle.copy()
    puzzle_shifted[puzzle == 0] = 2
    puzzle_shifted[puzzle > 0] = puzzle[puzzle > 0] + 2
    inp_padded = np.zeros((side, side), np.int32)
    labels_padded = np.zeros((side, side), np.int32) - 100
    inp_padded[:size, :size] = puzzle_shifted
    labels_padded[:size, :size] = solution + 2
    if side > size:
        inp_padded[size, 0] = 1
        labels_padded[size, 0] = 1
    return inp_padded.flatten(), labels_padded.flatten()


def test_built_datasets_are_as_of_nano_trm(tmp_path):
    """Tokens, labels and vocabulary; a set of the test split for each size."""
    folder = tmp_path / "d"
    built = trm_mlx.build_sudoku(
        folder, generate=[4, 6], max_grid_size=7, num_train=9, num_test=5, seed=3
    )
    assert built.summary.startswith("9 sudoku6in7 training puzzles")
    train, test = (trm_mlx.PuzzleDataset([folder], split) for split in ("train", "test"))
    assert (train.metadata.vocab_size, train.metadata.seq_len) == (3 + 6, 49)
    assert [part.name for part in test.parts] == ["4x4", "6x6"]
    task = task_of(test.metadata)
    for data, shares in ((train, [5, 4]), (test, [3, 2])):
        count = sum(shares)
        batch = data.batch(np.arange(count), np.arange(count), count)
        sizes = np.repeat([4, 6], shares)
        for inputs, labels, size in zip(batch["inputs"], batch["labels"], sizes, strict=True):
            plain, cells = Sudoku(size), np.arange(49).reshape(7, 7)[:size, :size]
            puzzle, solution = (np.maximum(tokens[cells], 2) - 2 for tokens in (inputs, labels))
            assert plain.check(puzzle.ravel(), solution.ravel())
            theirs = pad_and_encode(puzzle, solution, size, 7)
            np.testing.assert_array_equal((inputs, labels), theirs)
            assert task.sizes(task.decode(labels)) == size


def test_one_size_is_the_seeds(tmp_path):
    """``grid_size=4, max_grid_size=6``: its vocabulary of 7; sizes of tests may differ."""
    trm_mlx.build_sudoku(tmp_path / "a", generate=4, max_grid_size=6, num_train=8, num_test=4)
    data = trm_mlx.PuzzleDataset([tmp_path / "a"], "test")
    assert (data.metadata.vocab_size, data.metadata.seq_len) == (7, 36)
    assert (data.metadata.sets, data.metadata.task) == (["all"], "sudoku4in6")
    words = ["--generate", "4", "--test-sizes", "6", "--max-grid-size", "6", "--num-train", "3"]
    words += ["--num-test", "2", "--output-dir", str(tmp_path / "b")]
    assert main(["build", "sudoku", *words]) == 0
    splits = [trm_mlx.PuzzleDataset([tmp_path / "b"], split) for split in ("train", "test")]
    task = task_of(splits[0].metadata)
    assert task == PaddedSudoku(6, 6)
    for data, size in zip(splits, (4, 6), strict=True):
        assert (task.sizes(task.decode(data.parts[0].arrays.inputs)) == size).all()


def test_tables_are_padded_too(tmp_path):
    puzzles = Sudoku(4).generate(6, np.random.default_rng(0))
    lines = [
        f"{Sudoku(4).line(question)},{Sudoku(4).line(answer)}"
        for question, answer, _ in zip(*puzzles, strict=True)
    ]
    (tmp_path / "in.csv").write_text("question,answer\n" + "\n".join(lines))
    trm_mlx.build_sudoku(
        tmp_path / "d", input=tmp_path / "in.csv", num_test=1, max_grid_size=5, num_aug=2
    )
    data = trm_mlx.PuzzleDataset([tmp_path / "d"], "train")
    task = task_of(data.metadata)
    arrays = data.parts[0].arrays
    boards = task.decode(arrays.inputs), task.decode(arrays.labels)
    assert (task.name, len(boards[0])) == ("sudoku4in5", 15)
    assert task.check(*boards).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"generate": [4, 6]}, "boards of 4 and 6 rows need one padded size: add max_grid_size=6"),
        ({"generate": 4, "test_sizes": [9]}, "boards of 4 and 9 rows need one padded size"),
        ({"generate": 6, "max_grid_size": 5}, "max_grid_size=5: a 6x6 Sudoku is padded to 6 to 29"),
        ({"generate": 6, "max_grid_size": 30}, "max_grid_size=30: a 6x6 Sudoku is padded to 6"),
        ({"generate": []}, "generate has no size"),
        ({"generate": [4, 6], "max_grid_size": 6, "num_test": 1}, "1 puzzles of 2 sizes"),
        ({"input": "x.csv", "test_sizes": [4]}, "test_sizes goes with generate"),
        ({"generate": [4, 6], "max_grid_size": 6, "num_aug": 1}, "num_aug with generate=4"),
    ],
)
def test_bad_sizes_are_refused(tmp_path, options, message):
    with pytest.raises(InputError, match=message.replace("(", r"\(")):
        trm_mlx.build_sudoku(tmp_path / "d", **options)
    assert not (tmp_path / "d").exists()


def test_rules_and_symmetries_are_those_of_the_boards(mixed):
    task, (questions, answers, _) = mixed
    sizes = task.sizes(questions)
    assert np.bincount(sizes)[[4, 6]].tolist() == [20, 20]
    assert task.check(questions, answers).all()
    assert not task.check(questions, questions).any()
    assert task.count_solutions(questions).tolist() == [1] * 40
    assert not task.conflicts(questions, answers).any()
    wrong = answers.copy()
    wrong[:, 0] = wrong[:, 1]
    assert not task.check(questions, wrong).any()
    assert task.conflicts(questions, wrong)[:, 1].all()
    rng = np.random.default_rng(1)
    symmetry = task.sample_symmetry(rng, 40)
    images = symmetry.apply(questions)
    assert (images != questions).any(axis=1).all()
    assert (task.outside(task.encode(images)) == task.outside(task.encode(questions))).all()
    assert task.check(images, symmetry.apply(answers)).all()
    np.testing.assert_array_equal(symmetry.inverse().apply(images), questions)
    assert task.image_keys(images) == task.image_keys(questions)
    assert task.are_images(images, questions).all()
    assert not task.are_images(questions, np.roll(questions, 1, axis=0)).all()
    cells = np.tile(np.arange(49), (40, 1))
    there = symmetry.move(cells, questions)
    np.testing.assert_array_equal(symmetry.inverse().move(there, images), cells)
    # A puzzle falls on the same side of a split with its padding and without.
    four = sizes == 4
    inside = np.arange(49).reshape(7, 7)[:4, :4].ravel()
    plain = [array[four][:, inside] for array in (questions, answers)]
    keys = task.split_keys(questions, answers)
    assert [key for key, is_four in zip(keys, four, strict=True) if is_four] == Sudoku(
        4
    ).split_keys(*plain)


def test_tokens_and_values(mixed):
    task, (questions, _, _) = mixed
    np.testing.assert_array_equal(task.decode(task.encode(questions)), questions)
    assert task.decode(np.array([-100])) == task.decode(np.array([0]))
    assert get("sudoku9in9").seq_len == 81  # no padding: no end either
    full = get("sudoku6in6").pad(np.zeros((1, 36), np.uint8))
    assert not full.any()
    assert get("sudoku6in6").sizes(full) == 6
    with pytest.raises(InputError, match="sizes=5: sudoku6in7 has the sizes 4\\+6"):
        task.generate(2, np.random.default_rng(0), sizes=5)
    assert set(task.sizes(task.generate(5, np.random.default_rng(0), "6").questions)) == {6}
    # What a model says may be no board at all.
    rng = np.random.default_rng(0)
    for tokens in rng.integers(0, task.vocab_size, (50, 49)):
        values = task.decode(tokens)
        assert task.line(values)
        assert task.render(values)
        assert task.render(values, questions[0])
        assert not task.check(questions[0], values)


def test_text_of_every_size(mixed):
    task, _ = mixed
    rows = "\n".join(PUZZLE[start : start + 4] for start in range(0, 16, 4))
    text = f"{rows}\n\n{'5' + '.' * 35}\n\n{PUZZLE}"
    found = read_puzzles(text, task)
    assert [puzzle.error for puzzle in found] == [None] * 3
    assert [int(task.sizes(puzzle.values)) for puzzle in found] == [4, 6, 4]
    assert task.line(found[0].values) == PUZZLE.replace(".", "0")
    np.testing.assert_array_equal(found[0].values, task.parse(PUZZLE))
    assert task.render(found[0].values).splitlines()[1] == " . 1 | . ."
    (nine,) = read_puzzles("1" + "." * 80, task)
    assert str(nine.error) == "a board of 81 cells, where sudoku6in7 has 4x4, 6x6"
    (maze,) = read_puzzles("#####\n#S.G#\n#####\n#####\n#####", task)
    assert str(maze.error) == "looks like a 5x5 maze, where sudoku is wanted"
    with pytest.raises(WrongCells, match="digit 5 at r2c1") as caught:
        task.parse("....5...........")
    assert caught.value.cells == (7,)
    assert task.reads(Sudoku(4))
    assert task.reads(task)
    assert not task.reads(Sudoku(9))


def test_drawn_as_the_board_alone(mixed):
    task, (questions, _, _) = mixed
    small = task.parse(PUZZLE)
    style = task.board_style(small[None])
    shown = cells_of(style, *first_frame(small)[1:3])
    assert next([cell.symbol or "." for cell in row] for row in shown) == [".", ".", ".", "2"]
    assert (style.rows, style.box) == (4, (2, 2))
    both = task.board_style(questions)
    assert (both.rows, both.stride, both.box) == (6, 7, (0, 0))


def test_trained_evaluated_and_solved(tmp_path, capsys, monkeypatch):
    """The whole way: both sizes in one run, metrics by size, and an answer without padding."""
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run"
    words = ["data=generate:sudoku6in6/sizes=4+6", "puzzles_per_epoch=16", "test_puzzles=8"]
    words += [
        "evaluators=[rules]",
        "keep_best=6x6/exact_accuracy",
        "keep_checkpoints=1",
        "arch.puzzle_emb_ndim=0",
    ]
    assert main(["train", *TINY, *words, f"checkpoint_path={run}"]) == 0
    log = (run / "metrics.jsonl").read_text()
    assert all(f'"{name}"' in log for name in ("4x4/exact_accuracy", "6x6/exact_accuracy"))
    capsys.readouterr()
    assert main(["eval", str(run), "--json"]) == 0
    results = json.loads(capsys.readouterr().out)
    assert results["4x4"]["count"] + results["6x6"]["count"] == 8
    assert main(["eval", str(run), "--json", "--max-steps", "1", "--count", "6"]) == 0
    assert json.loads(capsys.readouterr().out).keys() == {"4x4", "6x6"}
    # A dataset of one of the sizes.
    data = tmp_path / "d"
    options = {"generate": 4, "test_sizes": [6], "max_grid_size": 6}
    trm_mlx.build_sudoku(data, **options, num_train=8, num_test=3)
    assert main(["eval", str(run), "--json", "--data", str(data)]) == 0
    assert json.loads(capsys.readouterr().out)["all"]["count"] == 3
    words = ["--checkpoint", str(run), "--trajectories", "2", "--restarts", "--symmetries"]
    assert main(["solve", PUZZLE, *words, "--select", "mode", "--max-steps", "2"]) in (0, 1)
    shown = capsys.readouterr().out.split("\n\n")
    assert shown[0] == " . . | . 2\n . 1 | . .\n-----+-----\n 3 . | . .\n . . | 2 ."
    steps = [line for line in shown[1].splitlines() if line.startswith("step")]
    assert steps
    assert all(len(line.split()[-1]) == 16 for line in steps)
    assert len(shown[2].replace("+", " ").splitlines()) == 5  # 4 rows and a rule
    (tmp_path / "p.txt").write_text(f"{PUZZLE}\n{'.' * 36}\n")
    assert main(["solve", "--file", "p.txt", "-o", "a.csv", *words]) == 0
    rows = [line.split(",") for line in (tmp_path / "a.csv").read_text().splitlines()[1:]]
    assert [len(row[1]) for row in rows] == [16, 36]
    answer = trm_mlx.solve(PUZZLE, str(run))
    assert len(answer.text) == 16


def test_augmented_while_training(tmp_path):
    """Padding has no label, which does not keep boards from being augmented."""
    data = tmp_path / "d"
    trm_mlx.build_sudoku(data, generate=6, max_grid_size=7, num_train=8, num_test=2)
    words = [*TINY, f"data={data}", "augment=true", "reveal_cells=2", f"checkpoint_path={tmp_path}"]
    trainer = trm_mlx.Trainer(trm_mlx.load_config(words))
    batch, _ = next(iter(trainer.stream))
    task = get("sudoku6in7")
    assert ((batch["labels"] == -100) == (batch["inputs"] == 0)).all()
    assert task.check(task.decode(batch["inputs"]), task.decode(batch["labels"])).all()


def test_generated_tests_are_sets_by_size():
    data = open_split_of(["generate:sudoku6in6"], None, 12)
    assert [part.name for part in data.parts] == ["4x4", "6x6"]
    single = open_split_of(["generate:sudoku6in6/sizes=6"], None, 2)
    assert [part.name for part in single.parts] == ["all"]


def test_on_the_page(tmp_path):
    arch = trm_mlx.arch_config("trm", hidden_size=16, num_heads=2, puzzle_emb_ndim=0)
    sizes = {"vocab_size": 9, "seq_len": 49, "num_puzzle_identifiers": 1}
    model = trm_mlx.build_model(trm_mlx.ModelConfig.of(arch, **sizes))
    save_model(tmp_path, model)
    entry = ModelEntry.of("padded", tmp_path, read_config(tmp_path))
    assert entry.task == PaddedSudoku(6, 7)
    assert entry.to_dict()["keys"] == []
    for text in (PUZZLE, entry.input.blank, entry.input.example):
        assert entry.read_board(text).problem is None
    assert "digit 5" in entry.read_board("5" * 16).problem
    assert entry.read_board("12").problem
