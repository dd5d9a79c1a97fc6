"""Builds a dataset of sums or products, every pair of numbers drawn at random."""

import argparse
from pathlib import Path

import numpy as np

from trm_mlx.builders.arguments import add_counts, add_output, check_counts
from trm_mlx.builders.write import generate_splits, write_splits
from trm_mlx.data.writer import check_replaceable
from trm_mlx.tasks.arithmetic import ADDITION, MULTIPLICATION, Arithmetic

OPERATIONS = {operation.noun: operation for operation in (ADDITION, MULTIPLICATION)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_output(parser)
    parser.add_argument(
        "--operation",
        choices=OPERATIONS,
        default=ADDITION.noun,
        help="default: %(default)s",
    )
    parser.add_argument(
        "--n-digits", type=int, default=3, help="digits of each number (default: %(default)s)"
    )
    add_counts(parser)


def run(arguments: argparse.Namespace) -> None:
    """Build what the command line asks for.

    Raises:
        InputError: unusable options; nothing is written then.
    """
    check_counts(arguments, num_train=1, num_test=1)
    check_replaceable(Path(arguments.output_dir), arguments.overwrite)
    task = Arithmetic(OPERATIONS[arguments.operation], arguments.n_digits)
    train, test = generate_splits(task, arguments, np.random.default_rng(arguments.seed))
    chunks = iter([(train.questions, train.answers)])
    write_splits(task, arguments, chunks, len(train.ratings), 0, test)
