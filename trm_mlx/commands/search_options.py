"""The options of ``trm solve`` and ``trm eval`` that say how much computation a puzzle gets.

An option left out is absent from the parsed arguments: the defaults are those of `Solver` and
`Search`, stated there alone.
"""

import argparse
import dataclasses

from trm_mlx.models.model import RecursiveReasoner
from trm_mlx.solve.search import SELECTORS, Search
from trm_mlx.solve.solver import Solver
from trm_mlx.tasks.base import Task

SEARCH = tuple(field.name for field in dataclasses.fields(Search))


def add_search_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("computation", argument_default=argparse.SUPPRESS)
    group.add_argument(
        "--max-steps", type=int, help="supervision steps of a trajectory (default: the model's)"
    )
    group.add_argument(
        "--halt-threshold",
        type=_threshold,
        metavar="P",
        help="stop where the model's halting probability exceeds this; none: never (default: 0.5)",
    )
    group.add_argument(
        "--trajectories",
        type=int,
        metavar="K",
        help="attempts at a puzzle, at most: a plain one, and others with --noise, --restarts "
        "or --symmetries, in any combination (default: 1)",
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


def asked_for(arguments: argparse.Namespace) -> bool:
    """Whether any of the options is given."""
    return bool({"max_steps", "halt_threshold", *SEARCH} & vars(arguments).keys())


def build_solver(
    arguments: argparse.Namespace,
    model: RecursiveReasoner,
    task: Task | None,
    intermediates: bool = False,
) -> Solver:
    """The solver that the options describe; `InputError` where they contradict each other."""
    given = vars(arguments)
    options = {name: given[name] for name in ("max_steps", "halt_threshold") if name in given}
    search = Search(**{name: given[name] for name in SEARCH if name in given})
    return Solver(
        model,
        batch_size=arguments.batch_size,
        search=search,
        task=task,
        intermediates=intermediates,
        **options,
    )


def _threshold(text: str) -> float | None:
    return None if text == "none" else float(text)
