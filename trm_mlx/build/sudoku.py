"""Builds a Sudoku dataset from a CSV file or folder, the Hugging Face hub, or the generator.

The CSV layout is that of the Sudoku-Extreme release: ``source,question,answer,rating``. As in the
published builder a group is one original puzzle with its augmented copies, test puzzles are never
augmented, and every puzzle has the blank identifier.
"""

import argparse
import csv
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from trm_mlx.data.schema import SplitArrays
from trm_mlx.data.writer import check_replaceable, write_dataset
from trm_mlx.errors import InputError, located
from trm_mlx.tasks.sudoku import TRIES, Sudoku, parse_any

COLUMNS = ("source", "question", "answer", "rating")
CHUNK = 65_536  # boards augmented at once, to bound memory

_bar = partial(tqdm, disable=None)  # on a terminal only: a log keeps its one line of error


class Puzzles(NamedTuple):
    """Cell values: questions and answers uint8 ``[N, cells]``, ratings ``[N]``."""

    questions: np.ndarray
    answers: np.ndarray
    ratings: np.ndarray

    def take(self, rows: np.ndarray) -> "Puzzles":
        return Puzzles(*(array[rows] for array in self))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output-dir", required=True, help="dataset folder to write")
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--input", help="CSV file (test puzzles are split off) or folder with train.csv, test.csv"
    )
    source.add_argument(
        "--source-repo",
        default="sapientinc/sudoku-extreme",
        help="dataset on the Hugging Face hub (default: %(default)s)",
    )
    source.add_argument(
        "--generate", type=int, choices=(4, 6, 9), metavar="SIZE", help="make 4x4, 6x6 or 9x9"
    )
    parser.add_argument("--subsample-size", type=int, help="training puzzles to keep, at random")
    parser.add_argument("--min-difficulty", type=int, default=0, help="lowest rating to keep")
    parser.add_argument("--num-aug", type=int, default=0, help="augmented copies per puzzle")
    parser.add_argument("--num-train", type=int, default=1000, help="puzzles to generate")
    parser.add_argument("--num-test", type=int, default=200, help="test puzzles to generate/split")
    parser.add_argument(
        "--extra-givens", type=int, default=0, help="generated puzzles show up to this many more"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--overwrite", action="store_true", help="replace an existing dataset")


def run(arguments: argparse.Namespace) -> None:
    """Build what the command line asks for.

    Raises:
        InputError: unusable input or options; nothing is written then.
    """
    _check_counts(arguments)
    check_replaceable(Path(arguments.output_dir), arguments.overwrite)
    rng = np.random.default_rng(arguments.seed)
    if arguments.generate:
        task = Sudoku(arguments.generate)
        train, test = _generate(task, arguments, rng)
    else:
        task, train, test = _read_sources(arguments, rng)
    train = _at_least(train, arguments.min_difficulty, "training")
    test = _at_least(test, arguments.min_difficulty, "test")
    wanted = arguments.subsample_size
    if wanted is not None and wanted < len(train.questions):
        train = train.take(rng.choice(len(train.questions), wanted, replace=False))
    splits = {
        "train": _augmented(task, train, test, arguments.num_aug, rng),
        "test": _augmented(task, test, train, 0, rng),
    }
    write_dataset(
        arguments.output_dir,
        splits,
        ["<blank>"],
        vocab_size=task.vocab_size,
        seq_len=task.seq_len,
        overwrite=arguments.overwrite,
    )
    print(
        f"{arguments.output_dir}: {len(train.questions)} {task.name} training puzzles with "
        f"{arguments.num_aug} augmentations each, {len(test.questions)} test puzzles"
    )


def read_csv(path: Path) -> tuple[Sudoku, Puzzles]:
    """The puzzles of one CSV file; every answer is checked against its question.

    Raises:
        InputError: naming the file and line that cannot be used.
    """
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
    lines, *columns = zip(*rows, strict=True)
    places = [f"{path} line {line}" for line in lines]
    with located(places[0]):
        task, _ = parse_any(columns[0][0])
    questions, answers = (_boards(task, places, texts) for texts in columns[:2])
    for row in np.flatnonzero(~task.check(questions, answers)):
        raise InputError(f"{places[row]}: the answer does not solve the question")
    ratings = [_whole_number(place, text) for place, text in zip(places, columns[2], strict=True)]
    return task, Puzzles(questions, answers, np.array(ratings))


def _boards(task: Sudoku, places: list[str], texts: Sequence[str]) -> np.ndarray:
    try:
        return task.parse_batch(texts)
    except InputError:  # it counts rows; the reader of the message counts lines
        for place, text in zip(places, texts, strict=True):
            with located(place):
                task.parse(text)
        raise


def _whole_number(place: str, text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise InputError(f"{place}: rating {text!r} is not a whole number") from error


def _read_sources(
    arguments: argparse.Namespace, rng: np.random.Generator
) -> tuple[Sudoku, Puzzles, Puzzles]:
    path = Path(arguments.input) if arguments.input else None
    if path is not None and not path.exists():
        raise InputError(f"--input {path} does not exist: name a CSV file, or a folder of them")
    if path is not None and path.is_file():
        task, puzzles = read_csv(path)
        return task, *_split_off(puzzles, arguments.num_test, rng)
    files = [
        path / f"{split}.csv" if path else _download(arguments.source_repo, f"{split}.csv")
        for split in ("train", "test")
    ]
    (task, train), (test_task, test) = map(read_csv, files)
    if task != test_task:
        raise InputError(f"{files[0]} holds {task.name} but {files[1]} {test_task.name}")
    return task, train, test


def _download(repository: str, name: str) -> Path:
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ImportError as error:
        raise InputError(
            "reading the Hugging Face hub needs huggingface_hub: pip install 'trm-mlx[hub]', "
            "or use --input or --generate"
        ) from error
    try:
        return Path(hf_hub_download(repository, name, repo_type="dataset"))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"cannot download {name} of {repository}: {reason}") from error


def _split_off(puzzles: Puzzles, count: int, rng: np.random.Generator) -> tuple[Puzzles, Puzzles]:
    """Hold out ``count`` puzzles, and every other puzzle with one of their solutions."""
    order = rng.permutation(len(puzzles.questions))
    test = puzzles.take(order[:count])
    rest = puzzles.take(order[count:])
    train = rest.take(~_among(rest.answers, test.answers))
    if not len(train.questions):
        raise InputError(
            f"--num-test {count} leaves no training puzzle of {len(puzzles.questions)}: lower it"
        )
    return train, test


def _generate(
    task: Sudoku, arguments: argparse.Namespace, rng: np.random.Generator
) -> tuple[Puzzles, Puzzles]:
    """Training and test puzzles that share no solution grid."""
    if task.size == 4 and arguments.num_aug:
        raise InputError(
            "--num-aug with --generate 4: the 288 grids are images of each other, so copies would "
            "show test solutions; raise --num-train instead"
        )
    # 4x4 has few grids: a sixth of them is held out. Larger boards get one grid per puzzle.
    test_grids = 48 if task.size == 4 else arguments.num_test
    train_grids = 240 if task.size == 4 else arguments.num_train
    grids = task.random_grids(test_grids + train_grids, rng)
    return (
        _distinct(task, grids[test_grids:], arguments.num_train, arguments, rng),
        _distinct(task, grids[:test_grids], arguments.num_test, arguments, rng),
    )


def _distinct(
    task: Sudoku,
    grids: np.ndarray,
    count: int,
    arguments: argparse.Namespace,
    rng: np.random.Generator,
) -> Puzzles:
    """``count`` different puzzles dug from ``grids``."""
    found: dict[bytes, tuple] = {}
    vain = 0  # puzzles dug in a row that were all known
    with _bar(total=count, desc=f"generating {task.name}", unit="puzzle") as bar:
        while len(found) < count:
            before = len(found)
            if vain > TRIES:
                raise InputError(
                    f"only {before} different {task.name} puzzles found where {count} are wanted: "
                    "ask for fewer, or raise --extra-givens"
                )
            wanted = min(max(count - before, vain), 1000)
            try:
                dug = task.generate(
                    wanted,
                    rng,
                    grids=np.roll(grids, -(before % len(grids)), axis=0),
                    min_rating=arguments.min_difficulty,
                    extra_givens=arguments.extra_givens,
                )
            except InputError as error:
                raise InputError(
                    f"{TRIES} {task.name} puzzles in a row were easier than --min-difficulty "
                    f"{arguments.min_difficulty}: lower it, or --extra-givens"
                ) from error
            for puzzle in zip(*dug, strict=True):
                found.setdefault(puzzle[0].tobytes(), puzzle)
            bar.update(len(found) - before)
            vain = vain + wanted if len(found) == before else 0
    questions, answers, ratings = zip(*list(found.values())[:count], strict=True)
    return Puzzles(np.stack(questions), np.stack(answers), np.array(ratings))


def _at_least(puzzles: Puzzles, rating: int, name: str) -> Puzzles:
    kept = puzzles.take(puzzles.ratings >= rating)
    if not len(kept.questions):
        raise InputError(
            f"--min-difficulty {rating} leaves no {name} puzzle; the highest rating is "
            f"{puzzles.ratings.max()}"
        )
    return kept


def _augmented(
    task: Sudoku, puzzles: Puzzles, held_out: Puzzles, copies: int, rng: np.random.Generator
) -> SplitArrays:
    """Every puzzle followed by ``copies`` symmetric images, none with a held-out solution."""
    group = 1 + copies
    questions = np.repeat(puzzles.questions, group, axis=0)
    answers = np.repeat(puzzles.answers, group, axis=0)
    images = np.flatnonzero(np.arange(len(questions)) % group)
    # Solutions that the data itself shares between its splits are not the augmentation's doing.
    foreign = held_out.answers[~_among(held_out.answers, puzzles.answers)]
    chunks = [images[i : i + CHUNK] for i in range(0, len(images), CHUNK)]
    for chunk in _bar(chunks, desc="augmenting", unit_scale=CHUNK, unit="board"):
        rows = chunk
        while rows.size:
            symmetry = task.sample_symmetry(rng, len(rows))
            source = rows - rows % group
            questions[rows] = symmetry.apply(questions[source])
            answers[rows] = symmetry.apply(answers[source])
            rows = rows[_among(answers[rows], foreign)]
    total = len(questions)
    return SplitArrays(
        inputs=task.encode(questions),
        labels=task.encode(answers),
        puzzle_identifiers=np.zeros(total, np.int32),
        puzzle_indices=np.arange(total + 1, dtype=np.int32),
        group_indices=np.arange(0, total + 1, group, dtype=np.int32),
    )


def _among(boards: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Which ``boards [N, cells]`` occur in ``others [M, cells]``, bool ``[N]``."""
    whole = np.dtype((np.void, boards.shape[1]))
    return np.isin(
        np.ascontiguousarray(boards).view(whole).ravel(),
        np.ascontiguousarray(others).view(whole).ravel(),
    )


def _check_counts(arguments: argparse.Namespace) -> None:
    for option, least in (
        ("subsample_size", 1),
        ("num_train", 1),
        ("num_test", 1),
        ("num_aug", 0),
        ("extra_givens", 0),
        ("seed", 0),
    ):
        value = getattr(arguments, option)
        if value is not None and value < least:
            raise InputError(f"--{option.replace('_', '-')} {value}: must be at least {least}")
