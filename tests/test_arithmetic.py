"""Sums and products: text, the rule, the swap of operands, and the datasets built of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trm_mlx.cli import main
from trm_mlx.data.dataset import PuzzleDataset
from trm_mlx.errors import InputError
from trm_mlx.tasks import get
from trm_mlx.tasks.arithmetic import ADDITION, MULTIPLICATION, Arithmetic

TASKS = st.builds(Arithmetic, st.sampled_from([ADDITION, MULTIPLICATION]), st.integers(1, 9))


def build(folder, *words):
    words = [str(word) for word in words]
    assert main(["build", "arithmetic", "--output-dir", str(folder), *words]) == 0
    return [PuzzleDataset([folder], split) for split in ("train", "test")]


def test_shorter_numbers_are_read_too():
    task = get("addition3")
    read = {name: task.reads(get(name)) for name in ("addition2", "addition3", "addition4")}
    assert read == {"addition2": True, "addition3": True, "addition4": False}
    assert not task.reads(get("multiplication2"))
    assert not task.reads(get("sudoku4x4"))


def test_sizes():
    addition, multiplication = Arithmetic(ADDITION, 3), Arithmetic(MULTIPLICATION, 2)
    assert (addition.name, addition.seq_len, addition.vocab_size) == ("addition3", 12, 14)
    assert (multiplication.name, multiplication.seq_len) == ("multiplication2", 10)
    assert multiplication.vocab_size == 15
    with pytest.raises(InputError, match="no addition of 10 digits; use 1 to 9"):
        Arithmetic(ADDITION, 10)


def test_a_line():
    task = Arithmetic(ADDITION, 3)
    question = task.parse("23 + 456 =")
    #                            0  2  3   +  4  5  6   =
    assert question.tolist() == [1, 3, 4, 12, 5, 6, 7, 11, 0, 0, 0, 0]
    assert task.render(question) == "23+456="
    answer = np.array([1, 3, 4, 12, 5, 6, 7, 11, 1, 5, 8, 10], np.uint8)
    assert task.render(answer, givens=question) == "23+456=479"
    assert task.check(question, answer)
    assert (task.parse("23+456") == question).all()
    assert task.render(task.parse("0+0")) == "0+0="
    assert (task.parse("0" * 5000 + "23+456") == question).all()
    gap = np.where(np.arange(12) == 9, 0, answer)
    assert task.render(gap) == "23+456=0?79"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("12", r"'12' is no addition: write 12\+345"),
        ("", "'' is no addition"),
        ("12*34", "looks like a multiplication, where addition3 is wanted"),
        ("1+2=3", r"'1\+2=3' is no addition"),
        ("²+1", "is no addition"),
        ("1234+1", "1234 has more than 3 digits, as addition3 has"),
    ],
)
def test_parse_errors(text, message):
    with pytest.raises(InputError, match=message):
        get("addition3").parse(text)


@settings(max_examples=40, deadline=None)
@given(task=TASKS, seed=st.integers(0, 2**32 - 1))
def test_generated_lines_are_right_in_plain_arithmetic(task, seed):
    puzzles = task.generate(20, np.random.default_rng(seed))
    for question, answer, rating in zip(*puzzles, strict=True):
        assert question.dtype == answer.dtype == np.uint8
        assert len(answer) == task.seq_len
        assert task.encode(answer).max() < task.vocab_size
        left, right = task.render(answer).split("=")
        assert eval(left) == int(right)
        assert rating == len(right) - 1
        assert task.render(question) == f"{left}="
        assert (task.parse(task.render(question)) == question).all()
    assert task.check(*puzzles[:2]).all()


@settings(max_examples=40, deadline=None)
@given(task=TASKS, seed=st.integers(0, 2**32 - 1))
def test_one_wrong_cell_is_wrong(task, seed):
    rng = np.random.default_rng(seed)
    questions, answers, _ = task.generate(20, rng)
    cells = rng.integers(task.seq_len, size=20)
    wrong = answers.copy()
    wrong[np.arange(20), cells] = (answers[np.arange(20), cells] + 1) % (task.vocab_size - 1)
    assert not task.check(questions, wrong).any()
    assert task.check(questions[0], answers[0]).shape == ()


@settings(max_examples=40, deadline=None)
@given(task=TASKS, seed=st.integers(0, 2**32 - 1))
def test_symmetries_keep_solutions_and_can_be_undone(task, seed):
    rng = np.random.default_rng(seed)
    questions, answers, _ = task.generate(20, rng)
    symmetry = task.sample_symmetry(rng, 20)
    swapped = symmetry.apply(answers)
    assert task.check(symmetry.apply(questions), swapped).all()
    assert (symmetry.inverse().apply(swapped) == answers).all()
    assert (symmetry.apply(symmetry.inverse().apply(questions)) == questions).all()
    keys = task.split_keys(questions, answers)
    assert task.split_keys(symmetry.apply(questions), swapped) == keys


def test_half_of_the_symmetries_swap():
    task = get("addition2")
    images = task.sample_symmetry(np.random.default_rng(0), 1000).apply(task.parse("12+34"))
    assert {task.render(image) for image in images} == {"12+34=", "34+12="}
    swapped = sum(task.render(image) == "34+12=" for image in images)
    assert 420 < swapped < 580  # five standard deviations


# Datasets


@pytest.mark.parametrize(("operation", "count"), [("addition", 60), ("multiplication", 40)])
def test_build(tmp_path, capsys, operation, count):
    words = ["--operation", operation, "--n-digits", 2, "--num-train", count, "--num-test", 20]
    train, test = build(tmp_path / "d", *words)
    task = get(f"{operation}2")
    assert capsys.readouterr().out.endswith(
        f"d: {count} {operation}2 training puzzles with 0 augmentations each, 20 test puzzles\n"
    )
    keys = []
    for dataset, expected in ((train, count), (test, 20)):
        assert dataset.metadata.task == task.name
        arrays = dataset.parts[0].arrays
        questions, answers = task.decode(arrays.inputs), task.decode(arrays.labels)
        assert task.check(questions, answers).all()
        assert len(np.unique(questions, axis=0)) == expected
        keys.append(set(task.split_keys(questions, answers)))
    assert not keys[0] & keys[1]


def test_more_than_there_are(tmp_path, capsys):
    words = ["--n-digits", "1", "--num-train", "100", "--output-dir", str(tmp_path / "d")]
    assert main(["build", "arithmetic", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "different addition1 training puzzles found where 100 are wanted: ask for fewer" in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--n-digits", "10"], "no addition of 10 digits; use 1 to 9"),
        (["--operation", "division"], "invalid choice: 'division'"),
        (["--num-test", "0"], "num_test=0: must be at least 1"),
    ],
)
def test_bad_options(tmp_path, capsys, words, expected):
    assert main(["build", "arithmetic", "--output-dir", str(tmp_path / "d"), *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert expected in line
