"""The option ``--task`` and the model a command line names, for every command that loads one."""

import argparse

from trm_mlx.convert.load import local_folder
from trm_mlx.tasks import get


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
