"""Builds a Sudoku dataset from a CSV file or folder, the Hugging Face hub, or the generator.

As in the published builder a group is one original puzzle with its augmented copies, and test
puzzles are never augmented. Unlike there, no copy shows a solution of the test split.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from trm_mlx.builders.arguments import add_counts, add_output, add_source, check_counts
from trm_mlx.builders.csv_files import each, read_sources, subsample
from trm_mlx.builders.write import CHUNK, Boards, generate_splits, progress_bar, write_splits
from trm_mlx.data.writer import check_replaceable
from trm_mlx.errors import InputError
from trm_mlx.tasks.base import Puzzles
from trm_mlx.tasks.sudoku import Sudoku, parse_any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_output(parser)
    source = add_source(parser, "sapientinc/sudoku-extreme")
    source.add_argument(
        "--generate", type=int, choices=(4, 6, 9), metavar="SIZE", help="make 4x4, 6x6 or 9x9"
    )
    add_counts(parser)
    parser.add_argument("--min-difficulty", type=int, default=0, help="lowest rating to keep")
    parser.add_argument("--num-aug", type=int, default=0, help="augmented copies per puzzle")
    parser.add_argument(
        "--extra-givens", type=int, default=0, help="generated puzzles show up to this many more"
    )


def run(arguments: argparse.Namespace) -> None:
    """Build what the command line asks for.

    Raises:
        InputError: unusable input or options; nothing is written then.
    """
    check_counts(arguments, subsample_size=1, num_train=1, num_test=1, num_aug=0, extra_givens=0)
    check_replaceable(Path(arguments.output_dir), arguments.overwrite)
    rng = np.random.default_rng(arguments.seed)
    if arguments.generate:
        task = Sudoku(arguments.generate)
        train, test = _generate(task, arguments, rng)
    else:
        task, train, test = read_sources(arguments, _task_of, _boards_of, rng)
    train = _at_least(train, arguments.min_difficulty, "training")
    test = _at_least(test, arguments.min_difficulty, "test")
    train = subsample(train, arguments.subsample_size, rng)
    copies = arguments.num_aug
    chunks = _augmented(task, train, test, copies, rng)
    write_splits(task, arguments, chunks, len(train.ratings), copies, test)


def _task_of(question: str) -> Sudoku:
    return parse_any(question)[0]


def _boards_of(
    task: Sudoku, places: list[str], questions: Sequence[str], answers: Sequence[str]
) -> Boards:
    return _boards(task, places, questions), _boards(task, places, answers)


def _boards(task: Sudoku, places: list[str], texts: Sequence[str]) -> np.ndarray:
    try:
        return task.parse_batch(texts)
    except InputError:  # it counts rows; the reader of the message counts lines
        return each(places, texts, task.parse)


def _generate(
    task: Sudoku, arguments: argparse.Namespace, rng: np.random.Generator
) -> tuple[Puzzles, Puzzles]:
    """Training and test puzzles that share no solution grid."""
    if task.size == 4 and arguments.num_aug:
        raise InputError(
            "--num-aug with --generate 4: the 288 grids are images of each other, so copies would "
            "show test solutions; raise --num-train instead"
        )
    return generate_splits(
        task,
        arguments,
        rng,
        min_rating=arguments.min_difficulty,
        extra_givens=arguments.extra_givens,
    )


def _at_least(puzzles: Puzzles, rating: int, name: str) -> Puzzles:
    kept = puzzles.take(puzzles.ratings >= rating)
    if not len(kept.ratings):
        raise InputError(
            f"--min-difficulty {rating} leaves no {name} puzzle; the highest rating is "
            f"{puzzles.ratings.max()}"
        )
    return kept


def _augmented(
    task: Sudoku, puzzles: Puzzles, test: Puzzles, copies: int, rng: np.random.Generator
) -> Iterator[Boards]:
    """Chunks of puzzles, each followed by symmetric images, none with a test solution."""
    group = 1 + copies
    # Solutions that the data itself shares between its splits are not the augmentation's doing.
    foreign = test.answers[~_among(test.answers, puzzles.answers)]
    total = len(puzzles.ratings) * group
    with progress_bar(total=total, desc="augmenting", unit="board") as bar:
        for start in range(0, total, CHUNK):
            rows = np.arange(start, min(start + CHUNK, total))
            questions = puzzles.questions[rows // group]
            answers = puzzles.answers[rows // group]
            images = np.flatnonzero(rows % group)
            while images.size:
                symmetry = task.sample_symmetry(rng, len(images))
                source = rows[images] // group
                questions[images] = symmetry.apply(puzzles.questions[source])
                answers[images] = symmetry.apply(puzzles.answers[source])
                images = images[_among(answers[images], foreign)]
            yield questions, answers
            bar.update(len(rows))


def _among(boards: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Which ``boards [N, cells]`` occur in ``others [M, cells]``, bool ``[N]``."""
    whole = np.dtype((np.void, boards.shape[1]))
    return np.isin(
        np.ascontiguousarray(boards).view(whole).ravel(),
        np.ascontiguousarray(others).view(whole).ravel(),
    )
