"""Mazes: text, the rule for answers, symmetries, and what is generated."""

from collections import deque

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trm_mlx.errors import InputError
from trm_mlx.tasks.maze import CHARSET, GOAL, OPEN, PATH, START, WALL, Maze
from trm_mlx.tasks.registry import read_puzzles

# Two shortest paths around the wall in the middle, and a longer way at the bottom.
QUESTION = """\
S...#
.##.#
.##.#
...G#
....."""


def marked(question, *cells):
    answer = question.copy()
    answer[list(cells)] = PATH
    return answer


def shortest_path(board, side):
    """Steps from S to G, in plain Python; None where there is no way."""
    cells = [CHARSET[value] for value in board]
    start = cells.index("S")
    distances, queue = {start: 0}, deque([start])
    while queue:
        cell = queue.popleft()
        if cells[cell] == "G":
            return distances[cell]
        row, column = divmod(cell, side)
        for r, c in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
            other = r * side + c
            inside = 0 <= r < side and 0 <= c < side
            if inside and cells[other] != "#" and other not in distances:
                distances[other] = distances[cell] + 1
                queue.append(other)
    return None


# Text


def test_tokens_are_the_published_ones():
    task = Maze(5)
    assert CHARSET == "# SGo"
    assert (task.name, task.vocab_size, task.seq_len) == ("maze5x5", 6, 25)
    assert task.encode(np.arange(5)).tolist() == [1, 2, 3, 4, 5]
    assert task.decode(np.arange(6)).tolist() == [0, 0, 1, 2, 3, 4]


def test_parse_and_render():
    task = Maze(5)
    board = task.parse(QUESTION)
    assert board[:5].tolist() == [START, OPEN, OPEN, OPEN, WALL]
    assert task.render(board) == QUESTION
    assert (task.parse(QUESTION.replace(".", " ") + "\n") == board).all()
    assert (task.parse(QUESTION.replace("\n", "")) == board).all()
    (found,) = read_puzzles(QUESTION)
    assert found.task == task
    assert (found.values == board).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (QUESTION.replace("S", "."), "0 cells hold S; a maze has exactly one"),
        (QUESTION.replace("G", "."), "0 cells hold G; a maze has exactly one"),
        (QUESTION.replace("..", "S.", 1), "2 cells hold S; a maze has exactly one"),
        (QUESTION.replace("S...", "S.##").replace("...G", "#..G"), "no way from S to G"),
        (QUESTION.replace("S..", "S.o"), "o at r1c3 marks an answer"),
        (QUESTION.replace(".##.#", ".##."), "row 2 has 4 cells, row 1 has 5"),
        (QUESTION.replace("S..", "S.x"), "'x' at r1c3 beside walls of '#' could be a wall or not"),
        (QUESTION.replace("S..", "S.\u00e9"), "character '\u00e9' at r1c3 is no maze cell"),
        (QUESTION[:12], "10 cells in 2 rows where a 5x5 maze has 25"),
        ("", "0 cells in 1 rows"),
    ],
)
def test_parse_errors(text, message):
    with pytest.raises(InputError, match=message) as caught:
        Maze(5).parse(text)
    assert "\n" not in str(caught.value)


def test_sizes_that_do_not_exist():
    with pytest.raises(InputError, match="no maze of side 4; use 5 to 99"):
        Maze(4)
    for cells in (16, 17):
        (found,) = read_puzzles("#" * cells)
        assert f"{cells} cells are no square maze of 5x5 to 99x99" in str(found.error)


# RulesEvaluator


def test_every_shortest_path_is_right_and_nothing_else():
    task = Maze(5)
    question = task.parse(QUESTION)
    over, under = (1, 2, 3, 8, 13), (5, 10, 15, 16, 17)
    right = [marked(question, *over), marked(question, *under)]
    moved = marked(question, *over)
    moved[[0, 20]] = OPEN, START
    wrong = [
        question,
        marked(question, *over[:-1]),  # one cell short
        marked(question, *over, 24),  # one cell more
        marked(question, *over[:-1], 24),  # as many cells, but no path
        marked(question, *over, *under),
        marked(question, 5, 10, 15, 20, 21, 22, 23),  # a path, but longer
        marked(question, 6, 7, 8, 1, 13),  # through walls
        moved,
        np.full_like(question, PATH),
    ]
    answers = np.stack(right + wrong)
    assert task.check(question, answers).tolist() == [True] * 2 + [False] * len(wrong)
    assert task.check(question, right[0]).shape == ()
    assert task.check(np.stack([question] * 11), answers).sum() == 2


def test_start_next_to_goal():
    task = Maze(5)
    question = task.parse("SG" + "." * 23)
    assert task.check(question, question)
    assert not task.check(question, marked(question, 5))


def test_an_unsolvable_question_has_no_right_answer():
    task = Maze(5)
    question = task.parse_board("S#" + "#" * 22 + "G")
    assert task.distances(question[None]).tolist() == [-1]
    assert not task.check(question, question)


# Generation


@pytest.mark.parametrize("kind", ["walls", "tree", "mixed"])
@pytest.mark.parametrize("side", [5, 10, 11])
def test_generated_mazes(side, kind):
    task = Maze(side)
    puzzles = task.generate(30, np.random.default_rng(0), kind=kind, min_path_length=side)
    assert task.check(*puzzles[:2]).all()
    for question, answer, steps in zip(*puzzles, strict=True):
        assert shortest_path(question, side) == steps >= side
        # Independently of `check`: only marks on open cells, and a way through marks alone.
        assert ((answer == question) | ((question == OPEN) & (answer == PATH))).all()
        assert (answer == PATH).sum() == steps - 1
        assert shortest_path(np.where(answer == OPEN, WALL, answer), side) == steps
        assert (task.parse(task.render(question)) == question).all()


def test_a_tree_has_one_way_between_any_two_cells():
    side = 11
    questions, _, _ = Maze(side).generate(20, np.random.default_rng(0), kind="tree")
    for question in questions:
        passable = (question != WALL).reshape(side, side)
        edges = (passable[1:] & passable[:-1]).sum() + (passable[:, 1:] & passable[:, :-1]).sum()
        assert edges == passable.sum() - 1  # connected and without a loop


def test_long_paths_as_in_the_published_set():
    _, _, steps = Maze(30).generate(3, np.random.default_rng(0), min_path_length=110)
    assert steps.min() >= 110


def test_start_and_goal_are_not_on_favoured_sides():
    task = Maze(8)
    questions, _, _ = task.generate(2000, np.random.default_rng(0), min_path_length=4)
    for value in (START, GOAL):
        row = (questions == value).argmax(axis=1) // 8
        assert abs((row < 4).mean() - 0.5) < 0.06


def test_generate_is_determined_by_the_rng():
    first, again, other = (Maze(7).generate(5, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert (first.questions != other.questions).any()


def test_paths_that_no_maze_has(monkeypatch):
    monkeypatch.setattr("trm_mlx.tasks.maze.TRIES", 100)
    message = "no maze5x5 of kind walls with a path of 24 steps in 100 tries; ask for shorter ones"
    with pytest.raises(InputError, match=message):
        Maze(5).generate(1, np.random.default_rng(0), min_path_length=24)


# Sameness


@settings(max_examples=30, deadline=None)
@given(side=st.integers(5, 12), seed=st.integers(0, 2**32 - 1))
def test_symmetries_keep_solutions_and_can_be_undone(side, seed):
    task, rng = Maze(side), np.random.default_rng(seed)
    questions, answers, steps = task.generate(10, rng, min_path_length=3)
    symmetry = task.sample_symmetry(rng, 10)
    new_questions, new_answers = symmetry.apply(questions), symmetry.apply(answers)
    assert new_answers.dtype == np.uint8
    assert task.check(new_questions, new_answers).all()
    assert (task.distances(new_questions) == steps).all()
    assert (symmetry.inverse().apply(new_questions) == questions).all()
    assert (symmetry.apply(symmetry.inverse().apply(answers)) == answers).all()
    assert task.split_keys(new_questions, new_answers) == task.split_keys(questions, answers)


def test_images_are_the_published_ones():
    board = np.arange(25).reshape(5, 5)
    images = Maze(5).dihedral().reshape(8, 5, 5)
    quarter = np.rot90(board)
    expected = [board, quarter, np.rot90(board, 2), np.rot90(board, 3)]
    expected += [np.fliplr(board), np.flipud(board), board.T, np.fliplr(quarter)]
    for image, wanted in zip(images, expected, strict=True):
        np.testing.assert_array_equal(image, wanted)
    drawn = Maze(5).sample_symmetry(np.random.default_rng(0), 8000).cells
    _, counts = np.unique(drawn, axis=0, return_counts=True)
    assert len(counts) == 8
    assert abs(counts - 1000).max() < 150  # five standard deviations


def test_the_key_is_the_image_that_sorts_first():
    """The line between training and test mazes hangs on it."""
    task = Maze(7)
    questions, answers, _ = task.generate(40, np.random.default_rng(0), kind="mixed")
    images = np.packbits((questions == WALL)[:, task.dihedral()], axis=-1)
    expected = [min(image.tobytes() for image in row) for row in images]
    assert task.split_keys(questions, answers) == expected


def test_other_walls_are_another_maze():
    task = Maze(5)
    questions, answers, _ = task.generate(50, np.random.default_rng(0))
    layouts = {(board == WALL).tobytes() for board in questions}
    assert len(set(task.split_keys(questions, answers))) == len(layouts)
    moved = np.where(questions == GOAL, np.uint8(OPEN), questions)  # the walls alone count
    assert task.split_keys(moved, answers) == task.split_keys(questions, answers)
