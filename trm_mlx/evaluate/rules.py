"""Evaluation by the rules of the task: an answer may be valid without being the labelled one.

A maze has several shortest paths; the label marks one of them.
"""

import numpy as np

from trm_mlx.data.arrays import IGNORE_LABEL
from trm_mlx.data.dataset import PuzzleDataset
from trm_mlx.errors import InputError
from trm_mlx.evaluate.evaluate import EvalResult
from trm_mlx.tasks import task_of
from trm_mlx.tasks.base import Task


def judge(
    task: Task, inputs: np.ndarray, predictions: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return which predictions equal their labels and which obey the rules, bool ``[N]`` each.

    Args:
        inputs, predictions, labels: tokens ``[N, S]``; labels may be ignored.
    """
    questions, answers = task.decode(inputs), task.decode(predictions)
    exact = (predictions == labels) | (labels == IGNORE_LABEL)
    return exact.all(axis=1), task.check(questions, answers)


class RulesEvaluator:
    """An `Evaluator` of exact answers, of valid ones, and of a copy of the input.

    ``copying_accuracy`` is the fraction of cells that copying the input gets right: the baseline
    that ``accuracy`` has to beat.
    """

    name = "rules"

    def __init__(self, task: Task):
        self.task = task
        self.begin()

    @classmethod
    def of(cls, data: PuzzleDataset) -> "RulesEvaluator":
        """Return the evaluator for the task of a dataset.

        Raises:
            InputError: no known task has its sizes.
        """
        return cls(task_of(data.metadata))

    def begin(self) -> None:
        self._sums, self._count = np.zeros(3), 0

    def update(self, batch: dict[str, np.ndarray], outputs: dict[str, np.ndarray]) -> None:
        inputs, labels = batch["inputs"], batch["labels"]
        exact, valid = judge(self.task, inputs, outputs["preds"], labels)
        counted = labels != IGNORE_LABEL
        copied = (inputs == labels).sum(axis=1) / np.maximum(counted.sum(axis=1), 1)
        self._sums += exact.sum(), valid.sum(), copied.sum()
        self._count += len(exact)

    def result(self) -> EvalResult:
        names = ("exact_accuracy", "valid_accuracy", "copying_accuracy")
        shares = (self._sums / max(self._count, 1)).tolist()
        return EvalResult(dict(zip(names, shares, strict=True)), {})

    def state(self) -> dict[str, np.ndarray]:
        return {}

    def restore(self, state: dict[str, np.ndarray]) -> None:
        raise InputError("its rules keep no state between evaluations")
