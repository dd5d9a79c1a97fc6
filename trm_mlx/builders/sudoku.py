"""Builds a Sudoku dataset from a CSV file or folder, the Hugging Face hub, or the generator.

As in the published builder a group is one original puzzle with its augmented copies, and test
puzzles are never augmented. Unlike there, no copy shows a solution of the test split.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from trm_mlx.builders.tables import (
    LEAKED,
    add_source,
    ambiguous,
    each,
    leaked_rows,
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
    generate_split,
    write_splits,
)
from trm_mlx.data.tables import Columns
from trm_mlx.errors import InputError
from trm_mlx.progress import ProgressBar
from trm_mlx.tasks.base import Puzzles, Task
from trm_mlx.tasks.padded_sudoku import PaddedSudoku, shares
from trm_mlx.tasks.sudoku import Sudoku

ALL_IMAGES = "all 4x4 solutions are images of two, only larger boards test what is new"


def build_sudoku(
    output_dir: str | Path,
    *,
    generate: int | Sequence[int] | None = None,
    input: str | Path | None = None,
    source_repo: str = "sapientinc/sudoku-extreme",
    num_train: int = 1000,
    num_test: int = 200,
    question_column: str | None = None,
    answer_column: str | None = None,
    subsample_size: int | None = None,
    skip_invalid: bool = False,
    min_difficulty: int = 0,
    num_aug: int = 0,
    extra_givens: int = 0,
    test_sizes: Sequence[int] | None = None,
    max_grid_size: int | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> BuiltDataset:
    """Build a Sudoku dataset: generated, from tables, or from the Hugging Face hub.

    Args:
        output_dir: dataset folder to write.
        generate: make puzzles of so many cells a side, 4, 6 or 9, or of several sizes, equally many
            of each; None: read them.
        input: table (test puzzles are split off), or folder with train.csv and test.csv.
        source_repo: dataset on the Hugging Face hub, read without ``generate`` and ``input``.
        num_train: puzzles to generate.
        num_test: test puzzles to generate, or to split off a table.
        question_column, answer_column: names of columns of ``input``; None: those in use.
        subsample_size: training puzzles to keep, at random; None: all.
        skip_invalid: leave out rows of a table that cannot be used, and count them in a warning.
        min_difficulty: lowest rating to keep, in both splits.
        num_aug: augmented copies of every training puzzle.
        extra_givens: generated puzzles show up to this many more cells than they need.
        test_sizes: of the test puzzles that are generated; None: as ``generate``.
        max_grid_size: pad boards to so many rows and columns, as `PaddedSudoku` does; several sizes
            need it, and are the sets of the test split. None: boards as they are.
        seed: of every draw.
        overwrite: replace a dataset that is there.

    Raises:
        InputError: unusable files or values; nothing is written then.
    """
    check_options(
        build_sudoku, locals(), subsample_size=1, num_train=1, num_test=1, num_aug=0, extra_givens=0
    )
    rng, warnings, remedy = np.random.default_rng(seed), [], LEAKED
    if generate is not None:
        sizes = [*dict.fromkeys(generate)] if isinstance(generate, Sequence) else [generate]
        held_out = sizes if test_sizes is None else [*dict.fromkeys(test_sizes)]
        task = _task_of([*sizes, *held_out], max_grid_size)
        if 4 in sizes and num_aug:
            raise InputError(
                "num_aug with generate=4: the 288 grids are images of two of them, so copies would "
                "show test solutions; raise num_train instead"
            )
        remedy = ALL_IMAGES if 4 in held_out else LEAKED
        options = {"min_rating": min_difficulty, "extra_givens": extra_givens}
        train = _generated(task, sizes, num_train, rng, False, options)
        test = _generated(task, held_out, num_test, rng, True, options)
    elif test_sizes is not None:
        raise InputError("test_sizes goes with generate: a table has its own test puzzles")
    else:
        columns = Columns(question_column, answer_column)
        task, train, test, warnings = read_sources(
            input, source_repo, columns, num_test, Sudoku, _boards_of, rng, skip_invalid
        )
        if max_grid_size is not None:
            task = PaddedSudoku(task.size, max_grid_size)
            train, test = task.pad_puzzles(train), task.pad_puzzles(test)
    train = _at_least(train, min_difficulty, "training")
    test = _at_least(test, min_difficulty, "test")
    train = subsample(train, subsample_size, rng)
    chunks = _augmented(task, train, test, num_aug, rng)
    built = write_splits(output_dir, task, chunks, len(train.ratings), num_aug, test, overwrite)
    if generate is None:
        warnings += ambiguous(task, train, test)
    if generate is not None and held_out == [4]:
        return built._replace(notes=_images_of_4x4(task, train, test))
    warnings += leaks(task, train.questions, test.questions, remedy)
    return built._replace(warnings=tuple(warnings))


def _images_of_4x4(task: Sudoku | PaddedSudoku, train: Puzzles, test: Puzzles) -> tuple[str, ...]:
    """What test puzzles of 4x4 test, whose solutions are held out."""
    leaked = leaked_rows(task, train.questions, test.questions)
    if not leaked:
        return ()
    return (
        f"no test puzzle is trained on, nor its solution; but {len(leaked)} of "
        f"{len(test.ratings)} become training puzzles when digits or rows change places, as there "
        "are few 4x4 puzzles. Larger boards, --generate 6 or 9, test more",
    )


def _task_of(sizes: list[int], max_grid_size: int | None) -> Sudoku | PaddedSudoku:
    """The task of boards of these sizes.

    Raises:
        InputError: there is none; or several sizes without the one that they are padded to.
    """
    boards = {size: Sudoku(size) for size in sizes}
    if not boards:
        raise InputError("generate has no size: name 4, 6 or 9, or several")
    if max_grid_size is not None:
        return PaddedSudoku(max(boards), max_grid_size)
    if len(boards) > 1:
        raise InputError(
            f"boards of {' and '.join(map(str, boards))} rows need one padded size: add "
            f"max_grid_size={max(boards)}, or more"
        )
    return boards[sizes[0]]


def _generated(
    task: Sudoku | PaddedSudoku,
    sizes: list[int],
    count: int,
    rng: np.random.Generator,
    testing: bool,
    options: dict[str, int],
) -> Puzzles:
    """``count`` puzzles of a split, equally many of each size."""
    if count < len(sizes):
        raise InputError(f"{count} puzzles of {len(sizes)} sizes: ask for at least one of each")
    found = [
        generate_split(Sudoku(size), share, rng, testing, **options)
        for size, share in shares(count, sizes)
    ]
    if isinstance(task, PaddedSudoku):
        found = [task.pad_puzzles(puzzles) for puzzles in found]
    return Puzzles(*map(np.concatenate, zip(*found, strict=True)))


def _boards_of(
    task: Sudoku, places: list[str], questions: Sequence[str], answers: Sequence[str]
) -> Boards:
    return _boards(task, places, questions), _boards(task, places, answers)


def _boards(task: Sudoku, places: list[str], texts: Sequence[str]) -> np.ndarray:
    try:
        return task.parse_batch(texts)
    except InputError:  # it counts rows; the reader of the message counts lines
        return each(places, texts, task.parse)


def _at_least(puzzles: Puzzles, rating: int, name: str) -> Puzzles:
    kept = puzzles.take(puzzles.ratings >= rating)
    if not len(kept.ratings):
        raise InputError(
            f"min_difficulty={rating} leaves no {name} puzzle; the highest rating is "
            f"{puzzles.ratings.max()}"
        )
    return kept


def _augmented(
    task: Task, puzzles: Puzzles, test: Puzzles, copies: int, rng: np.random.Generator
) -> Iterator[Boards]:
    """Chunks of puzzles, each followed by symmetric images, none with a test solution."""
    group = 1 + copies
    # Solutions that the data itself shares between its splits are not the augmentation's doing.
    foreign = test.answers[~_among(test.answers, puzzles.answers)]
    total = len(puzzles.ratings) * group
    with ProgressBar(total=total, desc="augmenting", unit="board") as bar:
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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_common(parser, build_sudoku)
    source = add_source(parser)
    sizes = {"type": int, "nargs": "+", "choices": (4, 6, 9), "metavar": "SIZE"}
    source.add_argument("--generate", **sizes, help="make 4x4, 6x6 or 9x9, or several sizes")
    add_counts(parser)
    parser.add_argument("--min-difficulty", type=int, help="lowest rating to keep")
    parser.add_argument("--num-aug", type=int, help="augmented copies per puzzle")
    parser.add_argument(
        "--extra-givens", type=int, help="generated puzzles show up to this many more"
    )
    parser.add_argument(
        "--test-sizes", **sizes, help="of the generated test puzzles (default: as --generate)"
    )
    parser.add_argument(
        "--max-grid-size",
        type=int,
        metavar="SIDE",
        help="pad boards to SIDE rows and columns, as several sizes need",
    )
