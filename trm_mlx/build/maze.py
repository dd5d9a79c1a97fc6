"""Builds a maze dataset from a CSV file or folder, the Hugging Face hub, or the generator.

The CSV layout and the augmentation are those of the published Maze-Hard builder
(``dataset/build_maze_dataset.py`` of HRM and TRM): with ``--aug`` every training maze is followed
by its other 7 rotations and reflections. The published builder turns the label too; here that of an
image is marked anew, as one rule has to say which of several shortest paths it is.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from trm_mlx.build.arguments import add_counts, add_output, add_source, check_counts
from trm_mlx.build.csv_source import each, read_sources, subsample
from trm_mlx.build.split import CHUNK, Boards, generate_splits, write_splits
from trm_mlx.data.writer import check_replaceable
from trm_mlx.errors import InputError
from trm_mlx.tasks.base import Puzzles
from trm_mlx.tasks.maze import KINDS, Maze, parse_any

IMAGES = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_output(parser)
    source = add_source(parser, "sapientinc/maze-30x30-hard-1k")
    source.add_argument("--generate", type=int, metavar="SIDE", help="make SIDE x SIDE mazes")
    add_counts(parser)
    parser.add_argument("--aug", action="store_true", help="add the 7 other images of every maze")
    parser.add_argument(
        "--kind",
        choices=KINDS,
        default=KINDS[0],
        help="generate random walls, a tree with one way everywhere, or a mixture of these and "
        "what people draw (default: %(default)s)",
    )
    parser.add_argument(
        "--min-path-length",
        type=int,
        help="steps that a generated maze's shortest path has at least (default: SIDE, "
        "or 1 in the mixture)",
    )
    parser.add_argument(
        "--workers", type=int, default=1, help="processes that generate (default: %(default)s)"
    )


def run(arguments: argparse.Namespace) -> None:
    """Build what the command line asks for.

    Raises:
        InputError: unusable input or options; nothing is written then.
    """
    check_counts(arguments, subsample_size=1, num_train=1, num_test=1, min_path_length=1, workers=1)
    check_replaceable(Path(arguments.output_dir), arguments.overwrite)
    rng = np.random.default_rng(arguments.seed)
    if arguments.generate is not None:
        task = Maze(arguments.generate)
        length = arguments.min_path_length
        train, test = generate_splits(
            task, arguments, rng, arguments.workers, kind=arguments.kind, min_path_length=length
        )
    elif arguments.min_path_length is not None:
        raise InputError("--min-path-length goes with --generate: a CSV file has its own mazes")
    else:
        task, train, test = read_sources(arguments, _task_of, _boards_of, rng)
    train = subsample(train, arguments.subsample_size, rng)
    images = IMAGES if arguments.aug else 1
    chunks = _augmented(task, train, images)
    write_splits(task, arguments, chunks, len(train.ratings), images - 1, test)


def _task_of(question: str) -> Maze:
    return parse_any(question)[0]


def _boards_of(
    task: Maze, places: list[str], questions: Sequence[str], answers: Sequence[str]
) -> Boards:
    return each(places, questions, task.parse), each(places, answers, task.parse_board)


def _augmented(task: Maze, puzzles: Puzzles, images: int) -> Iterator[Boards]:
    """Chunks of mazes, each followed by all of its images but itself."""
    cells = task.dihedral()[:images]
    for start in range(0, len(puzzles.ratings), CHUNK // IMAGES):
        some = puzzles.take(slice(start, start + CHUNK // IMAGES))
        boards = [board[:, cells].reshape(-1, task.seq_len) for board in some[:2]]
        yield boards[0], task.relabel(*boards) if images > 1 else boards[1]
