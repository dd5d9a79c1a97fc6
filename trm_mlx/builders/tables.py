"""Puzzles from tables, in a local file or folder or on the Hugging Face hub.

The published layout is that of the Sudoku-Extreme and Maze-Hard releases,
``source,question,answer,rating``; ``data/tables.py`` reads many others.
"""

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from trm_mlx.builders.write import Boards, left_out, skip_or_raise
from trm_mlx.data.tables import Columns, read_rows
from trm_mlx.errors import InputError, located
from trm_mlx.files import path_text
from trm_mlx.progress import ProgressBar
from trm_mlx.tasks.base import Puzzles, Task
from trm_mlx.tasks.registry import read_puzzles

SUFFIXES = (".csv", ".csv.gz", ".tsv", ".jsonl", ".json", ".parquet", ".npy")
LOOKED_AT = 200_000  # questions of a split whose solutions are counted
LEAKED = "do not report this test score"
AT_ONCE = 4096  # questions between two ticks of a progress bar

# Given the places for messages and the texts of two columns, the cell values of all questions and
# answers.
BoardsOf = Callable[[Task, list[str], Sequence[str], Sequence[str]], Boards]


def add_source(parser: argparse.ArgumentParser) -> argparse._MutuallyExclusiveGroup:
    """Where puzzles are read from; the caller adds its generator to the group returned."""
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--input",
        type=path_text,
        help="table (test puzzles are split off), as CSV, JSON lines, parquet or .npy, or a folder "
        "with train.csv, test.csv",
    )
    source.add_argument(
        "--source-repo", help="dataset on the Hugging Face hub (default: %(default)s)"
    )
    parser.add_argument("--subsample-size", type=int, help="training puzzles to keep, at random")
    parser.add_argument(
        "--skip-invalid", action="store_true", help="leave out rows that cannot be used"
    )
    for role in ("question", "answer"):
        parser.add_argument(f"--{role}-column", metavar="NAME", help=f"of --input, of {role}s")
    return source


def read_sources(
    input: str | Path | None,
    source_repo: str,
    columns: Columns,
    num_test: int,
    kind: type[Task],
    boards_of: BoardsOf,
    rng: np.random.Generator,
    skip_invalid: bool = False,
) -> tuple[Task, Puzzles, Puzzles, list[str]]:
    """The task, training and test puzzles of a table, a folder of two, or the hub; warnings.

    Test puzzles are split off where there is one table.

    Args:
        skip_invalid: leave out rows that cannot be used, which a warning counts.

    Raises:
        InputError: naming the file, and the line, that cannot be used.
    """
    path = Path(input) if input else None
    if path is None:
        tables = [_download(source_repo, f"{split}.csv") for split in ("train", "test")]
    elif path.is_dir():
        tables = _tables_in(path)
    elif path.exists():
        tables = [path]
    else:
        raise InputError(f"input={path} does not exist: name a table, or a folder of them")
    skipped: list[str] | None = [] if skip_invalid else None
    found = [read_table(table, columns, kind, boards_of, skipped) for table in tables]
    warnings = left_out(skipped or [])
    task, train = found[0]
    if len(found) == 1:
        return task, *_split_off(task, train, num_test, rng), warnings
    test_task, test = found[1]
    if task != test_task:
        raise InputError(f"{tables[0]} holds {task.name} but {tables[1]} {test_task.name}")
    return task, train, test, warnings


def _tables_in(folder: Path) -> list[Path]:
    """The training and test table of a folder, or the only one in it."""
    found = {
        path.name[: -len(suffix)]: path
        for suffix in SUFFIXES
        for path in sorted(folder.glob(f"*{suffix}"))
    }
    if "train" in found:
        return [found[split] for split in ("train", "test") if split in found]
    if len(found) == 1:
        return [*found.values()]
    names = ", ".join(path.name for path in found.values()) or "no table"
    raise InputError(f"{folder} has no train.csv, it has {names}: name one file, or rename two")


def read_table(
    path: Path,
    columns: Columns,
    kind: type[Task],
    boards_of: BoardsOf,
    skipped: list[str] | None = None,
) -> tuple[Task, Puzzles]:
    """The puzzles of one table; every answer is checked against its question.

    Args:
        kind: the class of their task.
        skipped: takes what is wrong with the rows that cannot be used, which are then left out.

    Raises:
        InputError: naming the file and line that cannot be used.
    """
    rows, before = _Rows([], [], [], []), len(skipped or ())
    for row in read_rows(path, *columns):
        if row.problem:
            skip_or_raise(InputError(row.problem), skipped)
            continue
        if row.answer is None:
            if Path(path).suffix.lower() == ".npy":
                raise InputError(
                    f"{path}: no file of answers is beside it, such as solutions.npy of quizzes.npy"
                )
            raise InputError(
                f"{path} has no column of answers that is known: name it with --answer-column, or "
                "call it answer"
            )
        cells = (f"{path} line {row.line}", row.question, row.answer, row.rating or 0.0)
        for column, cell in zip(rows, cells, strict=True):
            column.append(cell)
    if not rows.places and len(skipped or ()) == before:
        raise InputError(f"{path} has no puzzles after its header")
    task = _task_of(rows, kind, skipped)
    parts = [] if task is None else [*_read(task, rows, boards_of, skipped)]
    found = [_solved(task, *part, skipped) for part in parts]
    if not sum(len(puzzles.ratings) for puzzles in found):
        raise InputError(f"{path} holds no puzzle that can be used: {skipped[before]}")
    questions, answers, ratings = map(np.concatenate, zip(*found, strict=True))
    whole = ratings.astype(np.int64)
    return task, Puzzles(questions, answers, whole if (whole == ratings).all() else ratings)


class _Rows(NamedTuple):
    """Rows of a table, by column."""

    places: list[str]
    questions: list[str]
    answers: list[str]
    ratings: list[float]

    def take(self, rows: slice) -> "_Rows":
        return _Rows(*(column[rows] for column in self))


def _task_of(rows: _Rows, kind: type[Task], skipped: list[str] | None) -> Task | None:
    """The task of the first question that can be used; where others are left out, maybe none."""
    errors = None if skipped is None else []
    for place, question in zip(rows.places, rows.questions, strict=True):
        try:
            with located(place):
                first = read_puzzles(question)[0]
                if first.error is not None:
                    raise first.error
                if not isinstance(first.task, kind):
                    name = first.task.name
                    raise InputError(f"a puzzle of {name}: use the builder of that kind")
            return first.task
        except InputError as error:
            skip_or_raise(error, errors)
    if errors:
        skipped.append(errors[0])
    return None


def _read(
    task: Task, rows: _Rows, boards_of: BoardsOf, skipped: list[str] | None
) -> Iterator[tuple[_Rows, Boards]]:
    """Rows with their boards; those with what cannot be read are halved until it stands alone."""
    try:
        yield rows, boards_of(task, *rows[:3])
    except InputError as error:
        count = len(rows.places)
        if count == 1 or skipped is None:
            skip_or_raise(error, skipped)
            return
        for half in (slice(count // 2), slice(count // 2, None)):
            yield from _read(task, rows.take(half), boards_of, skipped)


def _solved(task: Task, rows: _Rows, boards: Boards, skipped: list[str] | None) -> Puzzles:
    """The rows whose answers solve their questions."""
    right = task.check(*boards)
    wrong = np.flatnonzero(~right)
    if wrong.size:
        counts = _solutions(task, boards[0][wrong[:LOOKED_AT]])
        unsolvable = int((counts == 0).sum())
        for number, row in enumerate(wrong):
            reason = f"{rows.places[row]}: the answer does not solve the question"
            reason += ", which has no solution" if (counts[number : number + 1] == 0).any() else ""
            if skipped is None and len(wrong) > 1:
                reason += f"; {len(wrong)} of {len(rows.places)} lines are wrong"
                reason += f", {unsolvable} questions without a solution" if unsolvable > 1 else ""
            skip_or_raise(InputError(reason), skipped)
    puzzles = Puzzles(*boards, np.array(rows.ratings, np.float64))
    return puzzles.take(right)


def leaks(task: Task, train: np.ndarray, test: np.ndarray, remedy: str = LEAKED) -> list[str]:
    """A warning of test questions that are training questions, or images of them."""
    leaked = leaked_rows(task, train, test)
    if not leaked:
        return []
    return [
        f"{len(leaked)} of {len(test)} test puzzles (the first is number {min(leaked) + 1}) are "
        f"trained on, as they are or as images under symmetries; {remedy}"
    ]


def leaked_rows(task: Task, train: np.ndarray, test: np.ndarray) -> list[int]:
    """Which test questions ``[N, S]`` are training questions ``[M, S]``, or images of them."""
    tests = _in_chunks("comparing test puzzles", task.image_keys, test)
    rows_of: dict[bytes, list[int]] = {key: [] for key in tests}
    for row, key in enumerate(_in_chunks("comparing training puzzles", task.image_keys, train)):
        if key in rows_of:
            rows_of[key].append(row)
    leaked: list[int] = []
    pairs = [(number, rows_of[key]) for number, key in enumerate(tests) if rows_of[key]]
    while pairs:  # nearly always the first training puzzle of the same key is the one
        numbers = np.array([number for number, _ in pairs])
        same = task.are_images(test[numbers], train[[rows[0] for _, rows in pairs]])
        leaked += numbers[same].tolist()
        left = zip(pairs, same, strict=True)
        pairs = [(number, rows[1:]) for (number, rows), done in left if not done and rows[1:]]
    return leaked


def _in_chunks(
    what: str, function: Callable[[np.ndarray], Iterable], questions: np.ndarray
) -> list:
    found = []
    with ProgressBar(total=len(questions), desc=what, unit="puzzle", leave=False) as bar:
        for start in range(0, len(questions), AT_ONCE):
            some = questions[start : start + AT_ONCE]
            found.extend(function(some))
            bar.update(len(some))
    return found


def ambiguous(task: Task, train: Puzzles, test: Puzzles) -> list[str]:
    """Warnings of questions with more than one solution."""
    warnings = []
    for name, puzzles in (("training", train), ("test", test)):
        questions = puzzles.questions[:LOOKED_AT]
        several = count_ambiguous(task, questions)
        if several:
            of = f"{len(questions)}" + (" looked at" if len(questions) == LOOKED_AT else "")
            warnings.append(
                f"{several} of {of} {name} questions have several solutions, of which the answer "
                "is one: a model cannot know which"
            )
    return warnings


def count_ambiguous(task: Task, questions: np.ndarray) -> int:
    """The number of questions that have several solutions."""
    return int((_solutions(task, questions) == 2).sum())


def _solutions(task: Task, questions: np.ndarray) -> np.ndarray:
    """How many solutions each question has, see `Task.count_solutions`."""
    return np.array(_in_chunks("counting solutions", task.count_solutions, questions))


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
