"""The two splits of a dataset whose puzzles come with images, as published for Sudoku and mazes.

A group is one original puzzle followed by its images, every puzzle is one example and has the blank
identifier, and test puzzles have no images.
"""

import argparse
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np
from tqdm import tqdm

from trm_mlx.data.writer import SplitStream, write_dataset
from trm_mlx.errors import InputError, shortened
from trm_mlx.tasks.base import Puzzles, Task
from trm_mlx.tasks.split import draw_distinct

CHUNK = 8192  # boards made and written at once, to bound memory
JOB = 256  # puzzles that one of several processes makes at once

Boards = tuple[np.ndarray, np.ndarray]  # questions, answers [N, S]

progress_bar = partial(tqdm, disable=None)  # on a terminal only: a log keeps its one line of error


def generate_splits(
    task: Task,
    arguments: argparse.Namespace,
    rng: np.random.Generator,
    workers: int = 1,
    **options: object,
) -> tuple[Puzzles, Puzzles]:
    """``--num-train`` and ``--num-test`` different puzzles; see ``tasks/split.py`` for which.

    Args:
        workers: processes that make them; the puzzles of several are others than those of one, but
            the same for any number.

    Raises:
        InputError: there are not as many.
    """
    splits = []
    for name, count, testing in (
        ("training", arguments.num_train, False),
        ("test", arguments.num_test, True),
    ):
        with progress_bar(total=count, desc=f"generating {name} puzzles", unit="puzzle") as bar:
            if workers == 1:
                puzzles = draw_distinct(task, count, rng, testing, bar.update, **options)
            else:
                puzzles = _draw_beside(workers, task, count, rng, testing, bar.update, options)
        if len(puzzles.ratings) < count:
            raise InputError(
                f"only {len(puzzles.ratings)} different {task.name} {name} puzzles found where "
                f"{shortened(count)} are wanted: ask for fewer"
            )
        splits.append(puzzles)
    return splits[0], splits[1]


def _draw_beside(
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
            sizes = [JOB] * (missing // JOB) + [missing % JOB] * (missing % JOB > 0)
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
    task: Task,
    arguments: argparse.Namespace,
    train: Iterator[Boards],
    originals: int,
    images: int,
    test: Puzzles,
) -> None:
    """Write the dataset ``--output-dir`` and say so.

    Args:
        train: chunks of training boards: ``originals`` puzzles, each followed by its ``images``.
    """
    tests = len(test.ratings)
    held_out = iter([(test.questions, test.answers)])
    write_dataset(
        arguments.output_dir,
        {
            "train": _split(task, train, originals, images),
            "test": _split(task, held_out, tests, 0),
        },
        ["<blank>"],
        vocab_size=task.vocab_size,
        seq_len=task.seq_len,
        task=task.name,
        overwrite=arguments.overwrite,
    )
    print(
        f"{arguments.output_dir}: {originals} {task.name} training puzzles with "
        f"{images} augmentations each, {tests} test puzzles"
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
