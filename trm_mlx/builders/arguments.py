"""Options that the builders share, and how they are checked."""

import argparse

from trm_mlx.errors import InputError


def add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output-dir", required=True, help="dataset folder to write")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing dataset")
    parser.add_argument("--seed", type=int, default=0, help="of every draw (default: %(default)s)")


def add_counts(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--num-train", type=int, default=1000, help="puzzles to generate (default: %(default)s)"
    )
    parser.add_argument(
        "--num-test",
        type=int,
        default=200,
        help="test puzzles to generate, or to split off (default: %(default)s)",
    )


def add_source(
    parser: argparse.ArgumentParser, repository: str
) -> argparse._MutuallyExclusiveGroup:
    """Where puzzles are read from; the caller adds its generator to the group returned."""
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--input", help="CSV file (test puzzles are split off) or folder with train.csv, test.csv"
    )
    source.add_argument(
        "--source-repo",
        default=repository,
        help="dataset on the Hugging Face hub (default: %(default)s)",
    )
    parser.add_argument("--subsample-size", type=int, help="training puzzles to keep, at random")
    return source


def check_counts(arguments: argparse.Namespace, **least: int) -> None:
    """Refuse an option below the least value it can have.

    Raises:
        InputError: naming the option.
    """
    for name, smallest in {"seed": 0, **least}.items():
        value = getattr(arguments, name)
        if value is not None and value < smallest:
            raise InputError(f"--{name.replace('_', '-')} {value}: must be at least {smallest}")
