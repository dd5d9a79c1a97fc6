"""Options that several commands share: the model, and the computation of ``solve`` and ``eval``.

An option of computation left out is absent from the parsed arguments: the defaults are those of
`Solver` and `SearchConfig`, stated there alone. Without any, ``trm solve`` uses `DEFAULT_SEARCH`.
"""

import argparse
import dataclasses

from trm_mlx.convert.load import local_folder
from trm_mlx.models.model import RecursiveReasoner
from trm_mlx.solve.search import SELECTORS, SearchConfig
from trm_mlx.solve.solver import HALT_THRESHOLD, Solver
from trm_mlx.tasks import get
from trm_mlx.tasks.base import Task

SEARCH = tuple(field.name for field in dataclasses.fields(SearchConfig))


def add_task_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--task",
        metavar="MODULE:NAME",
        help="import this task of your own; needed once, where a model from elsewhere names it",
    )


def named_model(arguments: argparse.Namespace) -> str | None:
    """Import ``--task`` and return the folder that ``--checkpoint`` names, fetched if need be."""
    if arguments.task is not None:
        get(arguments.task)
    return arguments.checkpoint and local_folder(arguments.checkpoint)


def add_search_arguments(parser: argparse.ArgumentParser, default: SearchConfig) -> None:
    group = parser.add_argument_group("computation", argument_default=argparse.SUPPRESS)
    group.add_argument(
        "--max-steps", type=int, help="supervision steps of a trajectory (default: the model's)"
    )
    group.add_argument(
        "--halt-threshold",
        type=_threshold,
        metavar="P",
        help="stop where the model's halting probability exceeds this; none: never "
        f"(default: {HALT_THRESHOLD})",
    )
    group.add_argument(
        "--trajectories",
        type=int,
        metavar="K",
        help="trajectories of a puzzle, at most: a plain one, and others with --noise, --restarts "
        f"or --symmetries, in any combination; {_described(default)} where none of these options "
        "is given (default: 1)",
    )
    group.add_argument(
        "--noise", type=float, metavar="SIGMA", help="Gaussian noise on a state before every step"
    )
    group.add_argument(
        "--noise-on", choices=("z_L", "z_H"), help="the state that gets it (default: z_L)"
    )
    group.add_argument("--restarts", action="store_true", help="random initial states")
    group.add_argument(
        "--symmetries", action="store_true", help="random symmetric images of the puzzle"
    )
    meanings = "; ".join(f"{name}: {selector.meaning}" for name, selector in SELECTORS.items())
    group.add_argument(
        "--select", choices=SELECTORS, help=f"which answer to take (default: q). {meanings}"
    )
    group.add_argument("--seed", type=int, help="of noise, restarts and symmetries (default: 0)")


def _described(search: SearchConfig) -> str:
    """A search as command-line options."""
    fields = dataclasses.fields(SearchConfig)
    changed = {
        f.name: getattr(search, f.name) for f in fields if getattr(search, f.name) != f.default
    }
    words = [
        f"--{name.replace('_', '-')}" + ("" if value is True else f" {value}")
        for name, value in changed.items()
    ]
    return " ".join(words) or "--trajectories 1"


def asked_for(arguments: argparse.Namespace) -> set[str]:
    """The options that are given, by the names of their values."""
    return {"max_steps", "halt_threshold", *SEARCH} & vars(arguments).keys()


def build_solver(
    arguments: argparse.Namespace,
    model: RecursiveReasoner,
    task: Task | None,
    default: SearchConfig,
    intermediates: bool = False,
) -> Solver:
    """The solver that the options describe; `InputError` where they contradict each other.

    ``default`` is the search where none of its options is given.
    """
    given = vars(arguments)
    options = {name: given[name] for name in ("max_steps", "halt_threshold") if name in given}
    asked = {name: given[name] for name in SEARCH if name in given}
    if asked.get("trajectories", 1) > 1 and not {"noise", "restarts", "symmetries"} & asked.keys():
        # They would all be the same.
        asked = {name: getattr(default, name) for name in SEARCH} | asked
    search = SearchConfig(**asked) if asked else default
    return Solver(
        model,
        batch_size=arguments.batch_size,
        search=search,
        task=task,
        intermediates=intermediates,
        states=False,
        **options,
    )


def _threshold(text: str) -> float | None:
    return None if text == "none" else float(text)
