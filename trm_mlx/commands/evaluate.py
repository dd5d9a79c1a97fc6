"""``trm eval``: the metrics of a checkpoint on a dataset.

By default those of the published evaluation, in which every puzzle takes all steps; with any option
of computation, accuracy and cost of a `Solver`.
"""

import argparse
import json
from pathlib import Path

from trm_mlx import device
from trm_mlx.commands.options import (
    add_search_arguments,
    add_task_argument,
    asked_for,
    build_solver,
    named_model,
)
from trm_mlx.config import EvaluatorConfig, ModelConfig, TrainConfig
from trm_mlx.data.dataset import PuzzleDataset, check_labelled
from trm_mlx.distributed import World, connect
from trm_mlx.errors import InputError, located
from trm_mlx.evaluate import build_evaluators
from trm_mlx.evaluate.evaluate import (
    SAVABLE,
    EvaluationStep,
    check_savable,
    evaluate,
    write_files,
    write_outputs,
)
from trm_mlx.files import check_target, path_text, path_type
from trm_mlx.models.checkpoint_files import load
from trm_mlx.models.model import RecursiveReasoner
from trm_mlx.progress import ProgressBar
from trm_mlx.run.checkpoint import config_of_run
from trm_mlx.solve.questions import check_sizes
from trm_mlx.solve.search import SearchConfig
from trm_mlx.solve.solver import Solver, measure
from trm_mlx.tasks import task_of
from trm_mlx.train.batches import GENERATE, check_generated, open_split_of, test_paths
from trm_mlx.train.losses import LOSSES

GENERATED = 100  # puzzles, by default, to judge a model alone: minutes for 9x9 on two CPU cores


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "checkpoint",
        type=path_text,
        help="checkpoint or run folder, bundled model, or owner/name on the hub",
    )
    parser.add_argument(
        "--data",
        nargs="+",
        type=path_text,
        help="dataset folders, or generate:TASK (default: the run's; of a model alone, generated "
        "puzzles of its task)",
    )
    parser.add_argument(
        "--count",
        type=int,
        help=f"puzzles to generate at most (default: the run's; of a model alone, {GENERATED})",
    )
    parser.add_argument(
        "--split", help='default: the one whose folder --data names, or else "test"'
    )
    parser.add_argument(
        "--batch-size", type=int, help="rows at once (default: as many as memory holds)"
    )
    parser.add_argument("--loss", choices=LOSSES, help="default: the run's own")
    parser.add_argument(
        "--save", nargs="+", default=[], metavar="NAME", help=f"save arrays: {', '.join(SAVABLE)}"
    )
    parser.add_argument(
        "--output",
        type=path_type,
        default=Path("outputs.npz"),
        help="where --save writes (default: %(default)s)",
    )
    parser.add_argument(
        "--evaluators",
        nargs="+",
        default=[],
        metavar="NAME",
        help="task evaluators to run: rules, arc",
    )
    parser.add_argument(
        "--output-dir",
        type=path_type,
        default=Path("."),
        help="folder to write the evaluators' files into, such as submission.json, and to make if "
        "there is none (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of lines")
    add_task_argument(parser)
    add_search_arguments(parser, SearchConfig())


def run(arguments: argparse.Namespace) -> None:
    world = connect()
    with world.reraise_lost_peer("start the evaluation again"):
        _evaluate(arguments, world)


def _evaluate(arguments: argparse.Namespace, world: World) -> None:
    _check_options(arguments, world)
    checkpoint = named_model(arguments)
    trained = config_of_run(checkpoint)
    if trained:
        with located(checkpoint):
            check_generated(trained)
    model, config = load(checkpoint)
    data = _open_data(arguments, checkpoint, config, trained)
    evaluators = build_evaluators(
        [EvaluatorConfig(name=name) for name in arguments.evaluators], data
    )
    own = asked_for(arguments) and not _is_published(arguments)
    solver = _solver(arguments, model) if own else None
    if world.is_main:
        device.announce(config.forward_dtype)
    hidden = None if world.is_main else True  # None: where there is no terminal
    with ProgressBar(total=len(data), unit="puzzle", disable=hidden) as bar:
        if solver is not None:
            outputs, results = {}, measure(solver, data, bar.update)
        else:
            loss = arguments.loss or (trained.loss if trained else "stablemax_cross_entropy")
            steps = getattr(arguments, "max_steps", trained.eval_max_steps if trained else None)
            results, outputs = evaluate(
                EvaluationStep(model, loss, device.compiles()),
                data,
                arguments.batch_size,
                save=tuple(arguments.save),
                evaluators=evaluators,
                tick=bar.update,
                world=world,
                max_steps=steps,
            )
    if not world.is_main:
        return
    if outputs:
        write_outputs(arguments.output, outputs)
    evaluated = {evaluator.name: evaluator.result() for evaluator in evaluators}
    results |= {name: result.metrics for name, result in evaluated.items()}
    _print(results, arguments.json)
    for result in evaluated.values():
        write_files(arguments.output_dir, result.files)


def _check_options(arguments: argparse.Namespace, world: World) -> None:
    """Check what can be checked before any work."""
    for option in ("batch_size", "count", "max_steps"):
        value = getattr(arguments, option, None)
        if value is not None and value < 1:
            raise InputError(f"--{option.replace('_', '-')} {value}: must be at least 1")
    check_savable(tuple(arguments.save))
    if asked_for(arguments) - {"max_steps"} and _is_published(arguments):
        raise InputError(
            "--save, --loss and --evaluators belong to the published evaluation: leave out the "
            "options of computation but --max-steps, or these"
        )
    if asked_for(arguments) and world.size > 1:
        raise InputError(
            "options of computation, such as --max-steps, are for one process: leave out mlx.launch"
        )
    if arguments.save:
        check_target(arguments.output)
    folder = arguments.output_dir
    if arguments.evaluators and not folder.is_dir():
        if folder.exists():
            raise InputError(f"--output-dir {folder} is a file: name a folder")
        check_target(folder)


def _is_published(arguments: argparse.Namespace) -> bool:
    """Whether an option asks for the published evaluation: every puzzle gets all steps."""
    return bool(arguments.save or arguments.loss or arguments.evaluators)


def _open_data(
    arguments: argparse.Namespace, checkpoint: str, config: ModelConfig, trained: TrainConfig | None
) -> PuzzleDataset:
    """The puzzles of --data, of the model's run, or else generated ones of its task."""
    if arguments.data:
        paths = arguments.data
    elif trained:
        paths = test_paths(trained)
    else:
        paths = [GENERATE + _generated_task(checkpoint, config)]
    count = arguments.count or (trained.test_puzzles if trained else GENERATED)
    data = open_split_of(paths, arguments.split, count)
    check_sizes(config, checkpoint, data, paths[0])
    check_labelled(data)
    return data


def _print(results: dict[str, dict[str, float]], as_json: bool) -> None:
    if as_json:
        print(json.dumps(results))
        return
    for set_name, metrics in results.items():
        for name, value in metrics.items():
            print(f"{set_name}/{name:16} {value:.6g}")


def _solver(arguments: argparse.Namespace, model: RecursiveReasoner) -> Solver:
    needs_task = "symmetries" in arguments or getattr(arguments, "select", None) == "rule"
    task = task_of(model.config) if needs_task else None
    return build_solver(arguments, model, task, SearchConfig())


def _generated_task(checkpoint: str, config: ModelConfig) -> str:
    """The task whose generated puzzles judge a model of which no dataset is known."""
    try:
        return task_of(config).name
    except InputError as error:
        raise InputError(f"{checkpoint}: name --data DIR; {error}") from None
