"""Labels of images: a task's own, wherever a puzzle has several right answers."""

import numpy as np
import pytest

from trm_mlx import tasks
from trm_mlx.solve.scheduler import Scheduler
from trm_mlx.solve.search import SearchConfig, Trajectory
from trm_mlx.tasks.holdout import draw
from trm_mlx.tasks.maze import PATH, Maze
from trm_mlx.train.augment import Augmentation

GENERATORS = (
    "sudoku4x4", "sudoku6x6", "sudoku9x9", "addition2", "multiplication2", "maze8x8",
    "maze8x8/kind=tree", "maze8x8/kind=mixed", "maze30x30/min_path_length=40",
)  # fmt: skip


def puzzles(name, count=24, seed=0):
    task, options = tasks.get_generator(name)
    return task, draw(task, count, np.random.default_rng(seed), **options)


@pytest.mark.parametrize("name", GENERATORS)
def test_a_label_depends_on_the_question_alone(name):
    """By whichever images one comes to a puzzle, its label is the same, and right."""
    task, (questions, answers, _) = puzzles(name)
    rng = np.random.default_rng(1)
    assert (task.relabel(questions, answers) == answers).all()
    for _ in range(8):
        symmetry = task.sample_symmetry(rng, len(questions))
        shown = symmetry.apply(questions)
        labels = task.relabel(shown, symmetry.apply(answers))
        assert task.check(shown, labels).all()
        back = symmetry.inverse().apply(labels)
        assert (task.relabel(questions, back) == answers).all()


def test_without_it_images_of_mazes_contradict_each_other():
    task, (questions, answers, _) = puzzles("maze30x30/min_path_length=40")
    images = task.dihedral()[2]
    turned = answers[:, images]
    labels = task.relabel(questions[:, images], turned)
    assert (labels != turned).any(axis=1).mean() > 0.5


def test_a_wrong_answer_stays_as_it_is():
    task, (questions, answers, _) = puzzles("maze8x8")
    wrong = np.where(answers == PATH, questions, answers)
    wrong[0] = answers[0]
    assert (task.relabel(questions, wrong) == wrong).all()


def test_augmented_batches_have_the_labels_of_the_task():
    task, (questions, answers, _) = puzzles("maze8x8", 64)
    batch = {"inputs": task.encode(questions), "labels": task.encode(answers)}
    shown = Augmentation(task, frozenset())(batch, np.random.default_rng(2))
    boards = task.decode(shown["inputs"]), task.decode(shown["labels"])
    assert (boards[0] != questions).any(axis=1).mean() > 0.5
    assert (task.relabel(*boards) == boards[1]).all()
    assert task.check(*boards).all()


def test_votes_for_two_right_answers_are_votes_for_one():
    task = Maze(5)
    question = task.parse("S...#.##.#.##.#...G#.....")
    over, under = question.copy(), question.copy()
    over[[1, 2, 3, 8, 13]] = PATH
    under[[5, 10, 15, 16, 17]] = PATH
    wrong = question.copy()
    wrong[[1, 2]] = PATH
    assert task.check(question, np.stack([over, under])).all()
    search = SearchConfig(trajectories=3, noise=0.1, select="mode")
    scheduler = Scheduler(iter([(task.encode(question), 0)]), search, task, 16, 4)
    for answer, confidence in ((wrong, 0.9), (over, 0.5), (under, 0.5)):
        tokens = task.encode(answer).astype(np.int32)
        trajectory = Trajectory(
            answer=tokens, steps=3, confidence=confidence, halted=True, residual=0.1
        )
        scheduler.record(scheduler.next_job(), trajectory)
    (solution,) = scheduler.solutions()
    assert task.check(question, task.decode(solution.answer))
