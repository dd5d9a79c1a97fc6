"""What the pictures rest on: cells that break a rule, confidence per cell, steps as they come."""

import numpy as np
import pytest

import trm_mlx
from trm_mlx import InputError, SearchConfig, Solver
from trm_mlx.config import ModelConfig
from trm_mlx.config_io import arch_config
from trm_mlx.models.model import build_model
from trm_mlx.tasks import Task, arc, get
from trm_mlx.tasks.sudoku import Sudoku

TASK = Sudoku(4)
QUESTIONS, ANSWERS, _ = TASK.generate(2, np.random.default_rng(0))
INPUTS = TASK.encode(QUESTIONS)


@pytest.fixture(scope="module")
def model():
    arch = arch_config("trm", hidden_size=16, num_heads=2, L_layers=1, halt_max_steps=3)
    return build_model(ModelConfig.of(arch, seq_len=16, vocab_size=6, num_puzzle_identifiers=1))


def test_confidence_of_every_cell(model):
    (solution,) = Solver(model, halt_threshold=None, intermediates=True).solve(INPUTS[:1])
    for output, refinement in zip(solution.outputs, trm_mlx.refine(model, INPUTS[:1]), strict=True):
        np.testing.assert_allclose(output.cell_confidence, refinement.confidence[0], atol=1e-5)
        assert output.cell_confidence.dtype == np.float32


def test_nothing_is_computed_unasked(model, monkeypatch):
    def refused(logits):
        raise AssertionError("nobody asked for the confidence of cells")

    monkeypatch.setattr("trm_mlx.solve.batcher.cell_confidence", refused)
    assert next(Solver(model, compiled=False).solve(INPUTS[:1])).outputs == ()
    with pytest.raises(AssertionError, match="nobody asked"):
        next(Solver(model, compiled=False, intermediates=True).solve(INPUTS[:1]))


def test_steps_are_seen_as_they_come(model):
    """Every step of every trajectory, before the solution; the chosen one's are its outputs."""
    search = SearchConfig(trajectories=3, symmetries=True, select="residual")
    solver = Solver(model, halt_threshold=None, search=search, task=TASK, intermediates=True)
    seen = []
    solutions = solver.solve(INPUTS[:1], on_step=seen.append)
    solution = next(solutions)
    assert [(event.trajectory, event.step) for event in seen] == [
        (t, s) for t in range(3) for s in (1, 2, 3)
    ]
    assert {event.puzzle for event in seen} == {0}
    chosen = [
        [event.output for event in seen if event.trajectory == trajectory]
        for trajectory in range(3)
    ]
    same = [
        all(
            np.array_equal(a.cell_confidence, b.cell_confidence)
            for a, b in zip(one, solution.outputs, strict=True)
        )
        for one in chosen
    ]
    assert same == [trajectory == solution.trajectory for trajectory in range(3)]
    with pytest.raises(InputError, match="intermediates=True"):
        next(Solver(model).solve(INPUTS[:1], on_step=seen.append))


def test_outputs_without_states(model):
    solver = Solver(model, halt_threshold=None, intermediates=True, states=False)
    (solution,) = solver.solve(INPUTS[:1])
    assert [output.states for output in solution.outputs] == [{}] * 3
    (full,) = Solver(model, halt_threshold=None, intermediates=True).solve(INPUTS[:1])
    assert all(output.states for output in full.outputs)
    np.testing.assert_array_equal(solution.answer, full.answer)


@pytest.mark.parametrize("name", ["sudoku4x4", "sudoku6x6", "maze7x7", "addition2"])
def test_confidence_moves_with_its_cell(name):
    """Numbers that name the cells end up where a symmetry puts those cells."""
    task = get(name)
    symmetry = task.sample_symmetry(np.random.default_rng(1), 5)
    boards = task.generate(5, np.random.default_rng(2)).answers
    numbers = np.random.default_rng(3).random(boards.shape).astype(np.float32)
    images, moved = symmetry.apply(boards), symmetry.move(numbers, boards)
    assert not np.array_equal(moved, numbers)
    np.testing.assert_array_equal(symmetry.inverse().move(moved, images), numbers)
    # Moved as the values are: a cell's number is found at a cell that shows the image of its value.
    for row in range(5):
        by_number = dict(zip(numbers[row].tolist(), boards[row].tolist(), strict=True))
        pairs = {(by_number[n], v) for n, v in zip(moved[row].tolist(), images[row], strict=True)}
        assert len(pairs) == len({value for value, _ in pairs})


def test_confidence_moves_with_an_arc_grid():
    grid = np.arange(6, dtype=np.uint8).reshape(2, 3)
    symmetry = arc.Symmetry.sample(np.random.default_rng(0), 20)
    canvases = np.tile(arc.canvas_of(grid), (20, 1))
    numbers = np.tile(arc.canvas_of(grid) * 0.1, (20, 1))  # the colour of a cell, in other words
    moved = symmetry.move(numbers, canvases)
    for row in range(20):
        image = arc.transform(grid, symmetry.transforms[row])
        rows, columns = image.shape
        shown = moved[row].reshape(30, 30)
        np.testing.assert_allclose(shown[:rows, :columns], (image + 2) * 0.1)
        assert not shown[rows:].any()
        assert not shown[:, columns:].any()
    images = symmetry.apply(canvases)
    back = symmetry.inverse().move(moved, images).reshape(20, 30, 30)[:, :2, :3]
    np.testing.assert_allclose(back, np.tile((grid + 2) * 0.1, (20, 1, 1)))


def test_cells_that_break_a_rule():
    question = TASK.parse("1... .... .... ....")
    assert not TASK.conflicts(question, question).any()
    twice = np.array([1, 1] + [0] * 14, np.uint8)
    assert np.flatnonzero(TASK.conflicts(question, twice)).tolist() == [0, 1]
    changed = np.array([2] + [0] * 15, np.uint8)
    assert np.flatnonzero(TASK.conflicts(question, changed)).tolist() == [0]
    line = get("addition2")
    question = line.parse("12+34")
    wrong = question.copy()
    wrong[-3:] = np.array([0, 4, 7]) + 1  # 047, not 046
    assert np.flatnonzero(line.conflicts(question, wrong)).tolist() == [line.seq_len - 1]


def test_marks_of_a_maze_that_lead_nowhere():
    maze = get("maze5x5")
    question = maze.parse_board("S....\n.....\n....#\n.....\n....G")
    for answer, cells in (
        ("Soooo\n....o\n....#\n.....\n....G", [9]),  # ends at the wall
        ("S....\n..o..\n....#\n.....\n....G", [12 - 5]),  # alone
        ("Soooo\n....o\n....o\n....o\n....G", [14]),  # through the wall
        ("Soo..\n.oo..\n....#\n.....\n....G", [1]),  # a square
    ):
        conflicts = np.flatnonzero(maze.conflicts(question, maze.parse_board(answer))).tolist()
        assert set(cells) <= set(conflicts)
        assert len(conflicts) < 5


@pytest.mark.parametrize("name", ["sudoku4x4", "maze9x9", "addition3", "multiplication2"])
def test_a_right_answer_breaks_no_rule(name):
    task = get(name)
    puzzles = task.generate(20, np.random.default_rng(5))
    assert not task.conflicts(puzzles.questions, puzzles.answers).any()
    assert task.conflicts(puzzles.questions[0], puzzles.answers[0]).shape == (task.seq_len,)


def test_a_task_that_says_nothing_has_no_conflicts():
    class Plain(Task):
        pass

    assert Plain().conflicts(np.ones(3), np.ones((2, 3))).tolist() == [[False] * 3] * 2
