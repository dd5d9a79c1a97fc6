"""The task evaluators, by their names in ``evaluators=[...]``."""

from collections.abc import Iterable

import numpy as np

from trm_mlx.config import EvaluatorConfig
from trm_mlx.data.arrays import IGNORE_LABEL
from trm_mlx.data.dataset import PuzzleDataset
from trm_mlx.errors import InputError
from trm_mlx.evaluate.arc import ArcEvaluator, has_arc_files
from trm_mlx.evaluate.evaluate import EvalResult, Evaluator
from trm_mlx.tasks import task_of
from trm_mlx.tasks.base import Task


class RulesEvaluator:
    """An `Evaluator` of exact answers, of those valid by the rules, and of a copy of the input.

    A maze has several shortest paths, of which the label marks one: others are valid too.
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
        inputs, labels, predictions = batch["inputs"], batch["labels"], outputs["preds"]
        counted = labels != IGNORE_LABEL
        exact = ((predictions == labels) | ~counted).all(axis=1)
        copied = (inputs == labels).sum(axis=1) / np.maximum(counted.sum(axis=1), 1)
        valid = self.task.check(self.task.decode(inputs), self.task.decode(predictions))
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


def build_evaluators(
    configs: Iterable[EvaluatorConfig] | None, data: PuzzleDataset
) -> list[Evaluator]:
    """Build the evaluators of a test split; for None, as published, ARC's on a dataset of ARC.

    Raises:
        InputError: the dataset lacks what one of them needs.
    """
    if configs is None:
        configs = [EvaluatorConfig(name="arc")] if has_arc_files(data) else []
    return [_BUILDERS[config.task](config, data) for config in configs]


_BUILDERS = {
    "arc": lambda config, data: ArcEvaluator.of(data, config.aggregated_voting),
    "rules": lambda config, data: RulesEvaluator.of(data),
}
