"""Sudoku: text, tokens, rules, symmetries, the search, and the puzzles it generates."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trm_mlx.errors import InputError
from trm_mlx.tasks import fitting
from trm_mlx.tasks.registry import read_puzzles
from trm_mlx.tasks.sudoku import Sudoku

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = Path(__file__).resolve().parents[2] / "shared"
SIZES = (4, 6, 9)

# Arto Inkala's puzzle of 2012, "the world's hardest", and its solution.
HARD = "8..........36......7..9.2...5...7.......457.....1...3...1....68..85...1..9....4.."
HARD_ANSWER = "812753649943682175675491283154237896369845721287169534521974368438526917796318452"

RENDERED = """\
 8 . . | . . . | . . .
 . . 3 | 6 . . | . . .
 . 7 . | . 9 . | 2 . .
-------+-------+-------
 . 5 . | . . 7 | . . .
 . . . | . 4 5 | 7 . .
 . . . | 1 . . | . 3 .
-------+-------+-------
 . . 1 | . . . | . 6 8
 . . 8 | 5 . . | . 1 .
 . 9 . | . . . | 4 . ."""


def solved(size, count=3, seed=0):
    return Sudoku(size).random_grids(count, np.random.default_rng(seed))


def brute_force_count(values):
    """All solutions of a 4x4 board, counted without any of the code under test."""
    board = [int(value) for value in values]
    if 0 not in board:
        return 1
    cell = board.index(0)
    row, column = divmod(cell, 4)
    taken = set()
    for other in range(16):
        other_row, other_column = divmod(other, 4)
        same_box = (row // 2, column // 2) == (other_row // 2, other_column // 2)
        if row == other_row or column == other_column or same_box:
            taken.add(board[other])
    return sum(
        brute_force_count([*board[:cell], digit, *board[cell + 1 :]])
        for digit in range(1, 5)
        if digit not in taken
    )


# Shape and vocabulary


@pytest.mark.parametrize(
    ("size", "box", "peers"), [(4, (2, 2), 7), (6, (2, 3), 12), (9, (3, 3), 20)]
)
def test_geometry(size, box, peers):
    task = Sudoku(size)
    assert (task.box_rows, task.box_columns) == box
    assert (task.vocab_size, task.seq_len) == (size + 2, size * size)
    assert task.name == f"sudoku{size}x{size}"
    assert task.units.shape == (3 * size, size)
    assert (np.bincount(task.units.ravel()) == 3).all()
    assert task.peers.shape == (size * size, peers)
    corner_box = [row * size + column for row in range(box[0]) for column in range(box[1])]
    assert task.units[2 * size].tolist() == corner_box
    assert fitting(task.vocab_size, task.seq_len) == task


def test_sizes_that_do_not_exist():
    with pytest.raises(InputError, match="no Sudoku of size 5; use 4, 6 or 9"):
        Sudoku(5)
    with pytest.raises(InputError, match=r"no known task has vocab_size 11 and seq_len 36 "):
        fitting(11, 36)


def test_tokens():
    task = Sudoku()
    values = np.arange(10)
    assert task.encode(values).tolist() == list(range(1, 11))
    assert task.encode(values).dtype == np.uint8
    assert task.decode(np.arange(11)).tolist() == [0, *range(10)]
    assert task.decode(task.encode(values)).tolist() == values.tolist()


def test_reading_a_board_does_not_load_numba():
    code = "import sys, trm_mlx.tasks.sudoku as s; s.Sudoku(4); assert 'numba' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY)


def test_search_needs_no_writable_folder():
    # The only place left to look for a cache is one that this module does not have.
    environment = os.environ | {"NUMBA_CACHE_LOCATOR_CLASSES": "ZipCacheLocator"}
    code = "import trm_mlx.tasks.sudoku_solver"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY, env=environment)


# Text


def test_parse_and_render():
    task = Sudoku()
    values = task.parse(HARD)
    assert values.dtype == np.uint8
    assert values[[0, 11, 1]].tolist() == [8, 3, 0]
    assert task.render(values) == RENDERED
    assert (task.parse(HARD.replace(".", "0")) == values).all()
    assert (task.parse(RENDERED) == values).all()


@pytest.mark.parametrize("size", SIZES)
def test_a_rendered_answer_reads_back(size):
    task = Sudoku(size)
    answer = solved(size)[0]
    question = np.where(np.arange(task.seq_len) % 3 == 0, answer, 0)
    text = task.render(answer, question)
    assert text.startswith(f" {answer[0]}+{answer[1]}")
    lines = [line for line in text.splitlines() if not line.startswith("-")]
    assert "".join(lines).count("+") == (question == 0).sum()
    (found,) = read_puzzles(text)
    assert found.task == task
    assert (found.values == answer).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1.. .a... .... ....", r"r2c1 holds 'a': write 1 to 4, and . or 0 for a blank"),
        ("²" + "." * 15, r"r1c1 holds '²'"),
        ("1" * 15, r"15 cells where a 4x4 Sudoku has 16; write every cell"),
        ("", r"0 cells where a 4x4 Sudoku has 16"),
        ("....|....|.7..|....", r"digit 7 at r3c2 does not fit a 4x4 Sudoku; use 1 to 4"),
        ("3..3" + "." * 12, r"r1c1 and r1c4 both hold 3; change or blank one"),
        (".2..........." + "2..", r"r1c2 and r4c2 both hold 2"),
        ("1....1" + "." * 10, r"r1c1 and r2c2 both hold 1"),
    ],
)
def test_parse_errors(text, message):
    with pytest.raises(InputError, match=message) as caught:
        Sudoku(4).parse(text)
    assert "\n" not in str(caught.value)


def test_parse_batch():
    task = Sudoku()
    values = task.parse_batch([HARD, HARD_ANSWER, HARD.replace(".", "0"), RENDERED])
    assert values.dtype == np.uint8
    assert (values[[0, 2, 3]] == task.parse(HARD)).all()
    assert (values[1] == task.parse(HARD_ANSWER)).all()
    assert task.parse_batch([]).shape == (0, 81)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (HARD[:-1], "row 2: 80 cells where a 9x9 Sudoku has 81"),
        ("%" + HARD[1:], "row 2: r1c1 holds '%'"),
        ("é" + HARD[1:], "row 2: r1c1 holds 'é'"),
        ("88" + HARD[2:], "row 2: r1c1 and r1c2 both hold 8"),
    ],
)
def test_parse_batch_names_the_first_bad_row(bad, message):
    with pytest.raises(InputError, match=message):
        Sudoku().parse_batch([HARD, HARD_ANSWER, bad, "no board at all"])


# RulesEvaluator


def test_violations_and_check():
    task = Sudoku()
    question, answer = task.parse(HARD), task.parse(HARD_ANSWER)
    wrong = answer.copy()
    wrong[80] = 5  # was 2
    clashing = {80} | {int(peer) for peer in task.peers[80] if answer[peer] == 5}
    assert set(np.flatnonzero(task.violations(wrong)).tolist()) == clashing
    assert len(clashing) > 1
    incomplete = np.where(np.arange(81) == 1, 0, answer)
    renamed = answer % 9 + 1  # a valid grid, but not this question's
    too_large = np.where(answer == 9, 10, answer)
    answers = np.stack([answer, wrong, incomplete, renamed, too_large])
    assert not task.violations(answers[[0, 2, 3]]).any()
    assert task.check(np.stack([question] * 5), answers).tolist() == [True] + [False] * 4
    assert task.check(question, answers).tolist() == [True] + [False] * 4
    assert task.check(question, answer)


# Symmetries


@settings(max_examples=30, deadline=None)
@given(size=st.sampled_from(SIZES), seed=st.integers(0, 2**32 - 1), count=st.integers(0, 20))
def test_symmetries_keep_solutions_and_can_be_undone(size, seed, count):
    task = Sudoku(size)
    rng = np.random.default_rng(seed)
    answers = np.tile(solved(size), (7, 1))[:count]
    questions = answers * (rng.random(answers.shape) < 0.4)
    symmetry = task.sample_symmetry(rng, count)
    new_questions, new_answers = symmetry.apply(questions), symmetry.apply(answers)
    assert new_answers.dtype == np.uint8
    assert task.check(new_questions, new_answers).all()
    assert ((new_questions > 0).sum(axis=1) == (questions > 0).sum(axis=1)).all()
    assert (symmetry.inverse().apply(new_questions) == questions).all()
    assert (symmetry.apply(symmetry.inverse().apply(answers)) == answers).all()


def test_one_board_has_many_images():
    symmetry = Sudoku().sample_symmetry(np.random.default_rng(0), 5)
    board = Sudoku().parse(HARD)
    assert (symmetry.apply(board) == symmetry.apply(np.stack([board] * 5))).all()


def test_symmetries_are_those_of_the_published_builder():
    count = 60_000
    cells = Sudoku().sample_symmetry(np.random.default_rng(0), count).cells.reshape(count, 9, 9)
    transposed = (cells[:, 0, 0] // 9) != (cells[:, 0, 1] // 9)
    assert abs(transposed.mean() - 0.5) < 0.01
    for board in (cells[~transposed], cells[transposed].swapaxes(1, 2)):
        rows, columns = board[:, :, 0] // 9, board[:, 0, :] % 9
        assert (board == rows[:, :, None] * 9 + columns[:, None, :]).all()
        for lines in (rows, columns):
            bands = lines.reshape(-1, 3, 3) // 3
            assert (bands == bands[:, :, :1]).all()  # lines stay together in their band
            _, counts = np.unique(lines, axis=0, return_counts=True)
            assert len(counts) == 6 * 6**3
            expected = len(lines) / len(counts)
            chi_square = ((counts - expected) ** 2 / expected).sum() / (len(counts) - 1)
            assert 0.8 < chi_square < 1.2  # five standard deviations
    rows, columns = cells[~transposed][:, :, 0] // 9, cells[~transposed][:, 0, :] % 9
    assert abs((rows[:, 0] == columns[:, 0]).mean() - 1 / 9) < 0.01  # drawn independently


@pytest.mark.parametrize(("size", "arrangements"), [(4, 2 * 8 * 8), (6, (6 * 2**3) * (2 * 6**2))])
def test_number_of_symmetries(size, arrangements):
    symmetry = Sudoku(size).sample_symmetry(np.random.default_rng(0), 60_000)
    assert len(np.unique(symmetry.cells, axis=0)) == arrangements
    assert (symmetry.values[:, 0] == 0).all()
    _, counts = np.unique(symmetry.values, axis=0, return_counts=True)
    assert len(counts) == {4: 24, 6: 720}[size]
    expected = 60_000 / len(counts)
    assert abs(counts - expected).max() < 5 * expected**0.5  # five standard deviations


# SearchConfig


def test_known_hard_puzzle():
    task = Sudoku()
    question = task.parse(HARD)[None]
    counts, answers, ratings = task.solve(question)
    assert counts.tolist() == [1]
    assert (answers[0] == task.parse(HARD_ANSWER)).all()
    assert ratings[0] > 10
    # Renaming digits changes the order of the guesses, but not how many are wrong.
    _, _, renamed = task.solve(np.where(question > 0, question % 9 + 1, 0))
    assert renamed.tolist() == ratings.tolist()


def test_solve_counts_none_one_and_many():
    task = Sudoku(4)
    grid = solved(4)[0]
    twice = np.zeros(16, np.uint8)
    twice[:2] = 1
    no_way = task.parse("123. .... .... ...4")  # r1c4 can take no digit
    one_gap = np.where(np.arange(16) == 5, 0, grid)
    questions = np.stack([twice, no_way, grid, one_gap, np.zeros_like(grid)])
    counts, answers, ratings = task.solve(questions)
    assert counts.tolist() == [0, 0, 1, 1, 2]
    assert not answers[:2].any()
    assert (answers[2:4] == grid).all()
    assert task.check(questions[4], answers[4])
    assert ratings[:4].tolist() == [0] * 4
    for before, after in zip(task.solve(questions), (counts, answers, ratings), strict=True):
        assert (before == after).all()


@pytest.mark.parametrize("size", SIZES)
def test_solver_agrees_with_itself_on_every_clue_count(size):
    task = Sudoku(size)
    rng = np.random.default_rng(1)
    answers = solved(size, 50)
    questions = answers * (rng.random(answers.shape) < rng.random((50, 1)))
    counts, found, _ = task.solve(questions)
    assert (counts > 0).all()
    assert task.check(questions, found).all()
    assert ((found == answers).all(axis=1) | (counts == 2)).all()
    if size == 4:
        expected = [min(2, brute_force_count(question)) for question in questions]
        assert counts.tolist() == expected


def test_solve_errors():
    with pytest.raises(InputError, match=r"questions of shape \(81,\) are no sudoku9x9 boards"):
        Sudoku().solve(np.zeros(81, int))
    with pytest.raises(InputError, match=r"question 1 has a cell outside 0..4; decode tokens"):
        Sudoku(4).solve(np.arange(2)[:, None] * np.full(16, 5))


def test_real_hard_puzzles():
    path = SHARED / "data" / "sudoku" / "test.csv"
    if not path.exists():
        pytest.skip(f"no {path}: the development data is not part of the project")
    task = Sudoku()
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))[::10]
    counts, answers, ratings = task.solve(task.parse_batch([row["question"] for row in rows]))
    assert (counts == 1).all()
    assert (answers == task.parse_batch([row["answer"] for row in rows])).all()
    assert ratings.tolist() == [int(row["rating"]) for row in rows]


# Grids and puzzles


def test_all_grids():
    grids = Sudoku(4).all_grids()
    assert len(np.unique(grids, axis=0)) == len(grids) == 288
    assert brute_force_count(np.zeros(16)) == 288
    assert Sudoku(4).check(np.zeros(16), grids).all()
    assert (grids == Sudoku(4).all_grids()).all()
    with pytest.raises(InputError, match=r"too many sudoku6x6 grids to list; .* random_grids"):
        Sudoku(6).all_grids()


@pytest.mark.parametrize("size", SIZES)
def test_random_grids(size):
    task = Sudoku(size)
    grids = solved(size, 200)
    assert len(np.unique(grids, axis=0)) == 200
    assert task.check(np.zeros(task.seq_len), grids).all()
    assert (grids == solved(size, 200)).all()
    assert (grids != solved(size, 200, seed=1)).any()
    # No digit is favoured in any cell: 200 / size each, give or take six standard deviations.
    shown = np.stack([(grids == digit).sum(axis=0) for digit in range(1, size + 1)])
    assert abs(shown - 200 / size).max() < 6 * (200 / size) ** 0.5
    assert task.random_grids(0, np.random.default_rng(0)).shape == (0, task.seq_len)


def test_more_grids_than_there_are():
    assert len(solved(4, 288)) == 288
    with pytest.raises(InputError, match="289 sudoku4x4 grids wanted, but there are 288; ask"):
        solved(4, 289)


@pytest.mark.parametrize("size", SIZES)
def test_generated_puzzles_are_unique_and_minimal(size):
    task = Sudoku(size)
    questions, answers, ratings = task.generate(20, np.random.default_rng(0))
    counts, found, rated = task.solve(questions)
    assert (counts == 1).all()
    assert (found == answers).all()
    assert ratings.tolist() == rated.tolist()
    assert task.check(questions, answers).all()
    if size == 4:
        assert [brute_force_count(question) for question in questions] == [1] * 20
    for question in questions:
        givens = np.flatnonzero(question)
        fewer = np.tile(question, (len(givens), 1))
        fewer[np.arange(len(givens)), givens] = 0
        assert (task.solve(fewer)[0] == 2).all()


def test_generate_is_determined_by_the_rng():
    first, again, other = (
        Sudoku(9).generate(5, np.random.default_rng(seed), extra_givens=5) for seed in (3, 3, 4)
    )
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert (first[0] != other[0]).any()


def test_generate_hard_puzzles():
    questions, answers, ratings = Sudoku(9).generate(10, np.random.default_rng(0), min_rating=5)
    assert ratings.min() >= 5
    counts, found, rated = Sudoku(9).solve(questions)
    assert (counts == 1).all()
    assert (found == answers).all()
    assert (rated == ratings).all()


def test_extra_givens_make_a_mix():
    _, _, minimal = Sudoku(9).generate(60, np.random.default_rng(0))
    questions, answers, ratings = Sudoku(9).generate(60, np.random.default_rng(0), extra_givens=40)
    givens = (questions > 0).sum(axis=1)
    assert givens.min() < 30
    assert 50 < givens.max() <= 81
    assert ratings.mean() < minimal.mean()
    counts, found, rated = Sudoku(9).solve(questions)
    assert (counts == 1).all()
    assert (found == answers).all()
    assert (rated == ratings).all()


def test_puzzles_come_from_the_given_grids_in_turns():
    grids = Sudoku(4).all_grids()[::30]
    _, answers, _ = Sudoku(4).generate(3 * len(grids), np.random.default_rng(0), grids=grids)
    _, counts = np.unique(answers, axis=0, return_counts=True)
    assert counts.tolist() == [3] * len(grids)
    assert {row.tobytes() for row in answers} == {row.tobytes() for row in grids}


def test_generate_nothing():
    questions, answers, ratings = Sudoku().generate(0, np.random.default_rng(0))
    assert questions.shape == answers.shape == (0, 81)
    assert ratings.shape == (0,)


def test_generate_errors():
    rng = np.random.default_rng(0)
    grids = Sudoku(4).all_grids()
    with pytest.raises(InputError, match="no sudoku4x4 puzzle rated 9 or more in 10000 tries"):
        Sudoku(4).generate(1, rng, min_rating=9)
    with pytest.raises(InputError, match="grids is empty, 1 puzzles wanted; pass at least one"):
        Sudoku(4).generate(1, rng, grids=grids[:0])
    grids[7, 3] = 0
    with pytest.raises(InputError, match="grid 7 is not a solved sudoku4x4; pass solved grids"):
        Sudoku(4).generate(1, rng, grids=grids)
    with pytest.raises(InputError, match=r"grids of shape \(288, 16\) are no sudoku6x6 boards"):
        Sudoku(6).generate(1, rng, grids=grids)
