"""The task evaluators there are, by the name that ``evaluators=[...]`` calls them by."""

from collections.abc import Iterable

from trm_mlx.config import EvaluatorConfig
from trm_mlx.data.loader import PuzzleDataset
from trm_mlx.train.arc_vote import ArcVote
from trm_mlx.train.evaluate import Evaluator
from trm_mlx.train.rules import Rules


def build_evaluators(configs: Iterable[EvaluatorConfig], data: PuzzleDataset) -> list[Evaluator]:
    """The evaluators of a test split.

    Raises:
        InputError: the dataset lacks what one of them needs.
    """
    return [_BUILDERS[config.task](config, data) for config in configs]


_BUILDERS = {
    "arc": lambda config, data: ArcVote.of(data, config.aggregated_voting),
    "rules": lambda config, data: Rules.of(data),
}
