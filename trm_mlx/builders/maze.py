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

from trm_mlx.builders.tables import (
    add_source,
    count_ambiguous,
    each,
    leaks,
    read_sources,
    subsample,
)
from trm_mlx.builders.write import (
    CHUNK,
    Boards,
    BuiltDataset,
    add_common,
    add_counts,
    check_options,
    generate_splits,
    write_splits,
)
from trm_mlx.data.tables import Columns
from trm_mlx.errors import InputError
from trm_mlx.tasks.base import Puzzles
from trm_mlx.tasks.maze import KINDS, Maze

IMAGES = 8


def build_maze(
    output_dir: str | Path,
    *,
    generate: int | None = None,
    input: str | Path | None = None,
    source_repo: str = "sapientinc/maze-30x30-hard-1k",
    num_train: int = 1000,
    num_test: int = 200,
    question_column: str | None = None,
    answer_column: str | None = None,
    subsample_size: int | None = None,
    skip_invalid: bool = False,
    aug: bool = False,
    kind: str = KINDS[0],
    min_path_length: int | None = None,
    workers: int = 1,
    seed: int = 0,
    overwrite: bool = False,
) -> BuiltDataset:
    """Build a maze dataset: generated, from tables, or from the Hugging Face hub.

    Args:
        output_dir: dataset folder to write.
        generate: make mazes of so many cells a side; None: read them.
        input: table (test puzzles are split off), or folder with train.csv and test.csv.
        source_repo: dataset on the Hugging Face hub, read without ``generate`` and ``input``.
        num_train: mazes to generate.
        num_test: test mazes to generate, or to split off a table.
        question_column, answer_column: names of columns of ``input``; None: those in use.
        subsample_size: training mazes to keep, at random; None: all.
        skip_invalid: leave out rows of a table that cannot be used, and count them in a warning.
        aug: add the 7 other rotations and reflections of every training maze.
        kind: of generated mazes, one of ``trm_mlx.tasks.maze.KINDS``.
        min_path_length: steps that a generated maze's shortest path has at least; None: a side,
            or 1 where ``kind`` is "mixed".
        workers: processes that generate.
        seed: of every draw.
        overwrite: replace a dataset that is there.

    Raises:
        InputError: unusable files or values; nothing is written then.
    """
    check_options(
        build_maze,
        locals(),
        subsample_size=1,
        num_train=1,
        num_test=1,
        min_path_length=1,
        workers=1,
    )
    if kind not in KINDS:
        raise InputError(f"kind={kind}: choose one of {', '.join(KINDS)}")
    rng, warnings = np.random.default_rng(seed), []
    if generate is not None:
        task = Maze(generate)
        options = {"kind": kind, "min_path_length": min_path_length}
        train, test = generate_splits(task, num_train, num_test, rng, workers, **options)
    elif min_path_length is not None:
        raise InputError("min_path_length goes with generate: a CSV file has its own mazes")
    else:
        columns = Columns(question_column, answer_column)
        task, train, test, warnings = read_sources(
            input, source_repo, columns, num_test, Maze, _boards_of, rng, skip_invalid
        )
    train = subsample(train, subsample_size, rng)
    images = IMAGES if aug else 1
    chunks = _augmented(task, train, images)
    built = write_splits(output_dir, task, chunks, len(train.ratings), images - 1, test, overwrite)
    warnings += leaks(task, train.questions, test.questions)
    several = sum(count_ambiguous(task, puzzles.questions) for puzzles in (train, test))
    summary = built.summary
    if several:
        summary += f"; {several} of all have several shortest paths, of which the label is one"
    return built._replace(summary=summary, warnings=tuple(warnings))


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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_common(parser, build_maze)
    source = add_source(parser)
    source.add_argument("--generate", type=int, metavar="SIDE", help="make SIDE x SIDE mazes")
    add_counts(parser)
    parser.add_argument("--aug", action="store_true", help="add the 7 other images of every maze")
    parser.add_argument(
        "--kind",
        choices=KINDS,
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
        "--workers", type=int, help="processes that generate (default: %(default)s)"
    )
