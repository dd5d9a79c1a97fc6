"""Puzzles from CSV files, in a local folder or on the Hugging Face hub.

The layout is that of the Sudoku-Extreme and Maze-Hard releases: ``source,question,answer,rating``.
"""

import argparse
import csv
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from trm_mlx.errors import InputError, located
from trm_mlx.tasks.base import Puzzles, Task

COLUMNS = ("source", "question", "answer", "rating")

# The task of a first question; then, given the places for messages and the texts of two columns,
# the cell values of all questions and answers.
TaskOf = Callable[[str], Task]
BoardsOf = Callable[[Task, list[str], Sequence[str], Sequence[str]], tuple[np.ndarray, np.ndarray]]


def add_source(parser: argparse.ArgumentParser) -> argparse._MutuallyExclusiveGroup:
    """Where puzzles are read from; the caller adds its generator to the group returned."""
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--input", help="CSV file (test puzzles are split off) or folder with train.csv, test.csv"
    )
    source.add_argument(
        "--source-repo", help="dataset on the Hugging Face hub (default: %(default)s)"
    )
    parser.add_argument("--subsample-size", type=int, help="training puzzles to keep, at random")
    return source


def check_one_source(generate: int, input: str | Path | None) -> None:
    """Check that puzzles are not both generated and read.

    Raises:
        InputError: they are.
    """
    if input is not None:
        raise InputError(f"generate={generate} with input={input}: give one of them")


def read_sources(
    input: str | Path | None,
    source_repo: str,
    num_test: int,
    task_of: TaskOf,
    boards_of: BoardsOf,
    rng: np.random.Generator,
) -> tuple[Task, Puzzles, Puzzles]:
    """The task, training and test puzzles of a CSV file, a folder of two, or the hub.

    Raises:
        InputError: naming the file, and the line, that cannot be used.
    """
    path = Path(input) if input else None
    if path is not None and not path.exists():
        raise InputError(f"input={path} does not exist: name a CSV file, or a folder of them")
    if path is not None and path.is_file():
        task, puzzles = read_csv(path, task_of, boards_of)
        train, test = _split_off(task, puzzles, num_test, rng)
    else:
        files = [
            path / f"{split}.csv" if path else _download(source_repo, f"{split}.csv")
            for split in ("train", "test")
        ]
        (task, train), (test_task, test) = (read_csv(file, task_of, boards_of) for file in files)
        if task != test_task:
            raise InputError(f"{files[0]} holds {task.name} but {files[1]} {test_task.name}")
    return task, train, test


def read_csv(path: Path, task_of: TaskOf, boards_of: BoardsOf) -> tuple[Task, Puzzles]:
    """The puzzles of one CSV file; every answer is checked against its question.

    Raises:
        InputError: naming the file and line that cannot be used.
    """
    lines, *columns = _read_columns(path)
    places = [f"{path} line {line}" for line in lines]
    with located(places[0]):
        task = task_of(columns[0][0])
    questions, answers = boards_of(task, places, *columns[:2])
    for row in np.flatnonzero(~task.check(questions, answers)):
        raise InputError(f"{places[row]}: the answer does not solve the question")
    ratings = each(places, columns[2], _whole_number)
    return task, Puzzles(questions, answers, ratings)


def each(places: list[str], texts: Sequence[str], read: Callable[[str], object]) -> np.ndarray:
    """``read`` of every text, as one array; an error names the place of its text."""
    values = []
    for place, text in zip(places, texts, strict=True):
        with located(place):
            values.append(read(text))
    return np.array(values)


def subsample(puzzles: Puzzles, wanted: int | None, rng: np.random.Generator) -> Puzzles:
    """At most ``wanted`` of the puzzles, at random; None keeps all."""
    count = len(puzzles.ratings)
    if wanted is None or wanted >= count:
        return puzzles
    return puzzles.take(rng.choice(count, wanted, replace=False))


def _read_columns(path: Path) -> list[tuple]:
    """Line numbers, questions, answers and ratings, as text."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = [c for c in COLUMNS[1:] if c not in (reader.fieldnames or ())]
            if missing:
                raise InputError(
                    f"{path} has no column {', '.join(missing)}: its first line must be "
                    f"{','.join(COLUMNS)}"
                )
            rows = [(reader.line_num, *(row[c] or "" for c in COLUMNS[1:])) for row in reader]
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is not a CSV file: {error}") from error
    if not rows:
        raise InputError(f"{path} has no puzzles after its header")
    return list(zip(*rows, strict=True))


def _whole_number(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise InputError(f"rating {text!r} is not a whole number") from error


def _download(repository: str, name: str) -> Path:
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ImportError as error:
        raise InputError(
            "reading the Hugging Face hub needs huggingface_hub: pip install 'trm-mlx[hub]', "
            "or set input or generate"
        ) from error
    try:
        return Path(hf_hub_download(repository, name, repo_type="dataset"))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"cannot download {name} of {repository}: {reason}") from error


def _split_off(
    task: Task, puzzles: Puzzles, count: int, rng: np.random.Generator
) -> tuple[Puzzles, Puzzles]:
    """Hold out ``count`` puzzles, and leave out every other puzzle with one of their keys."""
    order = rng.permutation(len(puzzles.ratings))
    test, rest = puzzles.take(order[:count]), puzzles.take(order[count:])
    held_out = set(task.split_keys(test.questions, test.answers))
    keys = task.split_keys(rest.questions, rest.answers)
    train = rest.take(np.array([key not in held_out for key in keys], bool))
    if not len(train.ratings):
        raise InputError(f"num_test={count} leaves no training puzzle of {len(order)}: lower it")
    return train, test
