"""Evaluation by the rules of the task: an answer may be right without being the labelled one.

A maze has several shortest paths; the label marks one of them.
"""

import numpy as np

from trm_mlx.data.loader import PuzzleDataset
from trm_mlx.tasks import fitting
from trm_mlx.tasks.base import Task
from trm_mlx.train.evaluate import Outcome


def judge(
    task: Task, inputs: np.ndarray, predictions: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Which predictions equal their labels, and which obey the rules; bool ``[N]`` each.

    Args:
        inputs, predictions, labels: tokens ``[N, S]``, of the whole board.
    """
    questions, answers = task.decode(inputs), task.decode(predictions)
    return (predictions == labels).all(axis=1), task.check(questions, answers)


class Rules:
    """An `Evaluator`: the shares of exact answers and of right ones, of each in all examples."""

    name = "rules"

    def __init__(self, task: Task):
        self.task = task
        self.begin()

    @classmethod
    def of(cls, data: PuzzleDataset) -> "Rules":
        """For the task of a dataset; InputError if no task is known to have its sizes."""
        sizes = data.metadata
        return cls(fitting(sizes.vocab_size, sizes.seq_len, sizes.task))

    def begin(self) -> None:
        self._count = self._exact = self._valid = 0

    def update(self, batch: dict[str, np.ndarray], outputs: dict[str, np.ndarray]) -> None:
        exact, valid = judge(self.task, batch["inputs"], outputs["preds"], batch["labels"])
        self._count += len(exact)
        self._exact += int(exact.sum())
        self._valid += int(valid.sum())

    def result(self) -> Outcome:
        shares = {"exact_accuracy": self._exact, "valid_accuracy": self._valid}
        count = max(self._count, 1)
        return Outcome({name: right / count for name, right in shares.items()}, {})
