"""The answers of an adaptation: what the versions of each task vote for."""

import contextlib
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from trm_mlx.adaptation.phases import Clock
from trm_mlx.evaluate.arc import NO_ANSWER, ArcEvaluator, attempts, ranked, submitted
from trm_mlx.run.signals import StopTraining
from trm_mlx.run.trainer import Trainer
from trm_mlx.tasks.arc import grid_of_key


class Answer(NamedTuple):
    """What is answered to one test input.

    attempts: two grids ``[rows, columns]`` of colours; votes: for each of them; count: all votes;
    right: whether one of the attempts is the solution, None where that is not known.
    """

    question: np.ndarray
    attempts: list[np.ndarray]
    votes: list[int]
    count: int
    right: bool | None


class Adapted(NamedTuple):
    """The answers to all test inputs by task, and the folder of the run.

    interrupted: ``should_stop`` ended it early; it can be continued.
    """

    answers: dict[str, list[Answer]]
    folder: Path
    interrupted: bool

    def submission(self) -> str:
        """Return the answers as JSON in the form of Kaggle's competitions."""
        return json.dumps(
            {
                task: [submitted(answer.attempts) for answer in answers]
                for task, answers in self.answers.items()
            }
        )


def vote(trainer: Trainer, clock: Clock) -> dict[str, list[Answer]]:
    """Let all versions of the tasks vote on their answers; a stop ends the vote early."""
    (evaluator,) = trainer.evaluators
    seen, asked_before = 0, clock.stopped
    clock.report("voting", 0.0)

    def tick(rows: int) -> None:
        nonlocal seen
        seen += rows
        clock.report("voting", seen / len(trainer.test_data))
        if clock.stopped and not asked_before:
            raise StopTraining

    with contextlib.suppress(StopTraining):
        trainer.evaluate(tick)
    return answers_of(evaluator)


def answers_of(evaluator: ArcEvaluator) -> dict[str, list[Answer]]:
    """Return the answers that have the most votes, to every test of every task."""
    found = {}
    for task, tests in evaluator.tests.items():
        found[task] = []
        for question, solution in tests:
            votes = evaluator.votes.get((task, question), {})
            chosen = attempts(ranked(votes))
            right = None if solution == NO_ANSWER else solution in chosen
            found[task].append(
                Answer(
                    grid_of_key(question),
                    [grid_of_key(key) for key in chosen],
                    [votes.get(key, (0, 0.0))[0] for key in chosen],
                    sum(count for count, _ in votes.values()),
                    right,
                )
            )
    return found
