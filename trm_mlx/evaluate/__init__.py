"""The task evaluators, by their names in ``evaluators=[...]``."""

from collections.abc import Iterable

from trm_mlx.config import EvaluatorConfig
from trm_mlx.data.dataset import PuzzleDataset
from trm_mlx.evaluate.arc import ArcEvaluator, has_arc_files
from trm_mlx.evaluate.evaluate import Evaluator
from trm_mlx.evaluate.rules import RulesEvaluator


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
