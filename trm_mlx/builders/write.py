"""The splits of a dataset whose puzzles come with images, and what all builders share.

As published for Sudoku and mazes, a group is one original puzzle followed by its images, every
puzzle is one example and has the blank identifier, and test puzzles have no images.
"""

import argparse
import inspect
import multiprocessing
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from trm_mlx.argument_types import check_types
from trm_mlx.data.arrays import SplitArrays
from trm_mlx.data.writer import SplitStream, check_replaceable, write_dataset
from trm_mlx.errors import InputError
from trm_mlx.files import path_text
from trm_mlx.progress import ProgressBar
from trm_mlx.tasks.base import Puzzles, Task
from trm_mlx.tasks.holdout import draw_distinct

CHUNK = 8192  # boards made and written at once, to bound memory
PUZZLES_PER_JOB = 256  # puzzles that one of several processes makes at once

Boards = tuple[np.ndarray, np.ndarray]  # questions, answers [N, S]


class BuiltDataset(NamedTuple):
    """A dataset that a builder has written: its folder, its size in words, what to beware of, and
    what to know of it."""

    folder: Path
    summary: str
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def check_options(build: Callable, values: dict[str, Any], **least: int) -> None:
    """Check a builder's arguments: types, least values, that the source is one, the folder free.

    Args:
        build: the builder, whose annotations say the types.
        values: the keywords by name; None passes for a count.
        least: the least value of a count.

    Raises:
        InputError: naming the keyword, or the folder.
    """
    check_types(build, values)
    for name, smallest in {"seed": 0, **least}.items():
        if values[name] is not None and values[name] < smallest:
            raise InputError(f"{name}={values[name]}: must be at least {smallest}")
    generate, read = values.get("generate"), values.get("input")
    if generate is not None and read is not None:
        raise InputError(f"generate={generate} with input={read}: give one of them")
    check_replaceable(Path(values["output_dir"]), values["overwrite"])


def skip_or_raise(error: InputError, skipped: list[str] | None) -> None:
    """Note a puzzle that cannot be used among the ``skipped`` ones, which are left out.

    Raises:
        InputError: ``skipped`` is None; the error, with the builder's option as its remedy.
    """
    if skipped is None:
        remedy = "or leave such puzzles out with --skip-invalid"
        raise InputError(f"{error}; {remedy}") from error
    skipped.append(str(error))


def left_out(skipped: list[str]) -> list[str]:
    """A warning of the puzzles that were skipped, if any."""
    return [f"{len(skipped)} puzzles are left out, the first: {skipped[0]}"] if skipped else []


def generate_splits(
    task: Task,
    num_train: int,
    num_test: int,
    rng: np.random.Generator,
    workers: int = 1,
    **options: object,
) -> tuple[Puzzles, Puzzles]:
    """Different training and test puzzles; see `generate_split`."""
    train = generate_split(task, num_train, rng, False, workers, **options)
    return train, generate_split(task, num_test, rng, True, workers, **options)


def generate_split(
    task: Task,
    count: int,
    rng: np.random.Generator,
    testing: bool,
    workers: int = 1,
    **options: object,
) -> Puzzles:
    """Different puzzles for training, or held-out ones; ``tasks/holdout.py`` says which those are.

    Args:
        workers: processes that make them. With two or more the puzzles differ from those of one,
            but do not depend on how many.

    Raises:
        InputError: there are fewer than asked for.
    """
    name = "test" if testing else "training"
    with ProgressBar(total=count, desc=f"generating {name} puzzles", unit="puzzle") as bar:
        if workers == 1:
            puzzles = draw_distinct(task, count, rng, testing, bar.update, **options)
        else:
            puzzles = _draw_in_parallel(workers, task, count, rng, testing, bar.update, options)
    if len(puzzles.ratings) < count:
        raise InputError(
            f"only {len(puzzles.ratings)} different {task.name} {name} puzzles found where "
            f"{count} are wanted: ask for fewer"
        )
    return puzzles


def _draw_in_parallel(
    workers: int,
    task: Task,
    count: int,
    rng: np.random.Generator,
    testing: bool,
    tick: Callable[[int], object],
    options: dict[str, object],
) -> Puzzles:
    """`draw_distinct` in several processes, a chunk with randomness of its own at a time."""
    found: dict[bytes, tuple] = {}
    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=spawned) as pool:
        while len(found) < count:
            before, missing = len(found), count - len(found)
            whole, rest = divmod(missing, PUZZLES_PER_JOB)
            sizes = [PUZZLES_PER_JOB] * whole + [rest] * (rest > 0)
            jobs = [
                pool.submit(draw_distinct, task, size, own, testing, **options)
                for size, own in zip(sizes, rng.spawn(len(sizes)), strict=True)
            ]
            for job in jobs:
                known = len(found)
                for puzzle in zip(*job.result(), strict=True):
                    found.setdefault(puzzle[0].tobytes(), puzzle)
                tick(len(found) - known)
            if len(found) == before:
                break
    return Puzzles(*map(np.stack, zip(*found.values(), strict=True)))


def write_splits(
    output_dir: str | Path,
    task: Task,
    train: Iterator[Boards],
    originals: int,
    images: int,
    test: Puzzles,
    overwrite: bool,
) -> BuiltDataset:
    """Write a dataset.

    Args:
        train: chunks of training boards: ``originals`` puzzles, each followed by its ``images``.
    """
    tests = len(test.ratings)
    tokens = task.encode(test.questions), task.encode(test.answers)
    sets = {
        name: SplitArrays.of(*(array[rows] for array in tokens))
        for name, rows in task.subsets(test.questions).items()
    }
    write_dataset(
        output_dir,
        {"train": _split(task, train, originals, images), "test": sets},
        ["<blank>"],
        vocab_size=task.vocab_size,
        seq_len=task.seq_len,
        task=task.name,
        overwrite=overwrite,
    )
    return BuiltDataset(
        Path(output_dir),
        f"{originals} {task.name} training puzzles with {images} augmentations each, "
        f"{tests} test puzzles",
    )


def _split(task: Task, chunks: Iterator[Boards], originals: int, images: int) -> SplitStream:
    group = 1 + images
    total = originals * group
    return SplitStream(
        ((task.encode(questions), task.encode(answers)) for questions, answers in chunks),
        puzzle_identifiers=np.zeros(total, np.int32),
        puzzle_indices=np.arange(total + 1, dtype=np.int32),
        group_indices=np.arange(0, total + 1, group, dtype=np.int32),
    )


# Command lines: an option is a keyword of the builder, and has its default


def add_common(parser: argparse.ArgumentParser, build: Callable[..., BuiltDataset]) -> None:
    """Add the options of all builders; those added from now on have the keywords' defaults."""
    keywords = inspect.signature(build).parameters.values()
    given = {word.name: word.default for word in keywords if word.default is not word.empty}
    parser.set_defaults(**given, build=build)
    parser.add_argument(
        "--output-dir", type=path_text, required=True, help="dataset folder to write"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing dataset")
    parser.add_argument("--seed", type=int, help="of every draw (default: %(default)s)")


def add_counts(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--num-train", type=int, help="puzzles to generate (default: %(default)s)")
    parser.add_argument(
        "--num-test",
        type=int,
        help="test puzzles to generate, or to split off (default: %(default)s)",
    )


def run(build: Callable[..., BuiltDataset], **options: Any) -> None:
    """Build a dataset and print what was built."""
    built = build(**options)
    for warning in built.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(f"{built.folder}: {built.summary}")
    for note in built.notes:
        print(f"note: {note}")
