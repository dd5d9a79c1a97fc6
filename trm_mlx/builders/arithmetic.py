"""Builds a dataset of sums or products, every pair of numbers drawn at random."""

import argparse
from pathlib import Path

import numpy as np

from trm_mlx.builders.write import (
    BuiltDataset,
    add_common,
    add_counts,
    check_options,
    generate_splits,
    write_splits,
)
from trm_mlx.errors import InputError
from trm_mlx.tasks.arithmetic import ADDITION, MULTIPLICATION, Arithmetic

OPERATIONS = {operation.noun: operation for operation in (ADDITION, MULTIPLICATION)}


def build_arithmetic(
    output_dir: str | Path,
    *,
    operation: str = ADDITION.noun,
    n_digits: int = 3,
    num_train: int = 1000,
    num_test: int = 200,
    seed: int = 0,
    overwrite: bool = False,
) -> BuiltDataset:
    """Build a dataset of sums or products, question and answer as digits.

    Args:
        output_dir: dataset folder to write.
        operation: ``addition`` or ``multiplication``.
        n_digits: digits of each number.
        num_train, num_test: puzzles of the splits; they share none.
        seed: of every draw.
        overwrite: replace a dataset that is there.

    Raises:
        InputError: unusable values; nothing is written then.
    """
    check_options(build_arithmetic, locals(), num_train=1, num_test=1)
    if operation not in OPERATIONS:
        raise InputError(f"operation={operation}: choose one of {', '.join(OPERATIONS)}")
    task = Arithmetic(OPERATIONS[operation], n_digits)
    train, test = generate_splits(task, num_train, num_test, np.random.default_rng(seed))
    chunks = iter([(train.questions, train.answers)])
    return write_splits(output_dir, task, chunks, len(train.ratings), 0, test, overwrite)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_common(parser, build_arithmetic)
    parser.add_argument("--operation", choices=OPERATIONS, help="default: %(default)s")
    parser.add_argument("--n-digits", type=int, help="digits of each number (default: %(default)s)")
    add_counts(parser)
