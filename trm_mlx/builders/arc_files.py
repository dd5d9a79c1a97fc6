"""Reads ARC puzzles from the JSON files people have.

Of the Kaggle competitions, where PREFIX is what stands before the subset's name:

    PREFIX_SUBSET_challenges.json   {puzzle: {"train": [{"input", "output"}], "test": [{"input"}]}}
    PREFIX_SUBSET_solutions.json    {puzzle: [the output of each test]}

Of the ARC repositories and of re-arc, where PREFIX is a folder:

    PREFIX/SUBSET/PUZZLE.json       {"train": [...], "test": [...]}, or a list of training pairs

PREFIX may also be such a folder of puzzles itself, or one file of a puzzle or of several; as JSON
lines (``.jsonl``, ``.ndjson``) it has one puzzle a line.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from trm_mlx.builders.write import skip_or_raise
from trm_mlx.data.format import read_json
from trm_mlx.data.text_files import read_text
from trm_mlx.errors import InputError, located
from trm_mlx.tasks.arc import SEPARATOR, check_grid

Pair = tuple[np.ndarray, np.ndarray]  # input and output, each a grid of colours
Example = dict[str, object]  # a pair as JSON

UNKNOWN = [[0]]  # stands for the solution of a test that has none, as published
CHALLENGES, SOLUTIONS = "_challenges.json", "_solutions.json"
_JSON_LINES = (".jsonl", ".ndjson")
_ID_KEYS = ("id", "task_id", "name")  # of a puzzle in a list of puzzles
SHOWN = 5  # reasons why puzzles cannot be used, in one message


class Puzzle(NamedTuple):
    """One puzzle; ``test`` pairs of a held-out puzzle go to the test split, else all to train."""

    name: str
    train: list[Pair]
    test: list[Pair]
    held_out: bool

    @property
    def pairs(self) -> list[Pair]:
        return self.train + self.test

    def to_dict(self) -> dict[str, list[dict[str, list[list[int]]]]]:
        """The puzzle as JSON, the tests with their outputs."""
        return {
            kind: [{"input": before.tolist(), "output": after.tolist()} for before, after in pairs]
            for kind, pairs in (("train", self.train), ("test", self.test))
        }


class Found(NamedTuple):
    """The puzzles of a subset, remarks about them, and the reasons why others were left out."""

    puzzles: list[Puzzle]
    warnings: list[str]
    skipped: list[str]


def find_subsets(prefix: str | Path) -> list[str]:
    """The names of the subsets that a prefix has, see the module; sorted.

    Raises:
        InputError: there are none.
    """
    path = _root(prefix)
    if path.is_file():
        return [path.stem]
    files = path.glob("*" + CHALLENGES) if path.is_dir() else _beginning(path)
    kaggle = {file.name.removesuffix(CHALLENGES).rpartition("_")[2] for file in files}
    if kaggle or not path.is_dir():
        if not kaggle:
            raise InputError(f"{path}: no such file or folder; correct the path")
        return sorted(kaggle)
    folders = sorted({file.parent.name for file in _json_files(path, "*/*.json")})
    if folders and not any(_json_files(path)):
        return folders
    if not any(_json_files(path)):
        raise InputError(f"{path} holds no JSON files; name a folder that does")
    return [path.resolve().name]


def _beginning(path: Path) -> Iterator[Path]:
    """The challenges whose names begin with a path."""
    names = path.parent.glob("*" + CHALLENGES) if path.parent.is_dir() else ()
    return (file for file in names if file.name.startswith(f"{path.name}_"))


def _root(prefix: str | Path) -> Path:
    """The prefix, or the folder ``data`` of a repository that it names."""
    path = Path(prefix)
    inner = path / "data"
    return inner if inner.is_dir() and not any(_json_files(path)) else path


def _json_files(folder: Path, pattern: str = "*.json") -> Iterator[Path]:
    """The files of a pattern, without those that macOS hides beside them, such as ``._a.json``."""
    return (path for path in folder.glob(pattern) if not path.name.startswith("."))


def _place(prefix: str | Path, subset: str) -> Path:
    """The file or folder of a subset; where there is none, the file it would be for Kaggle."""
    path, kaggle = _root(prefix), Path(f"{prefix}_{subset}{CHALLENGES}")
    inside = sorted(path.glob(f"*_{subset}{CHALLENGES}")) if path.is_dir() else []
    for place in (kaggle, *inside, path / subset, path / f"{subset}.json"):
        if place.exists():
            return place
    if path.exists() and find_subsets(path) in ([path.resolve().name], [path.stem]):
        return path
    return kaggle


def solutions_beside(file: Path) -> Path | None:
    """The file of the solutions, where there are some, to a Kaggle file of challenges."""
    if not file.name.endswith(CHALLENGES):
        return None
    return file.with_name(file.name.removesuffix(CHALLENGES) + SOLUTIONS)


def read_subset(
    prefix: str | Path, subset: str, held_out: bool | None, skip_invalid: bool = False
) -> Found:
    """Read the puzzles of one subset, in the order of its file or of the names of its files.

    A held-out subset may lack solutions, as a competition's does: tests without an output get
    ``UNKNOWN``, and a warning says so.

    Args:
        held_out: whether its tests are; None: those of every puzzle that has some.
        skip_invalid: leave out puzzles that cannot be used, and say why.

    Raises:
        InputError: a file is missing or damaged, challenges and solutions do not match, or a grid
            cannot be used; the message names file, puzzle and example.
    """
    place, found = _place(prefix, subset), Found([], [], [])
    solved = solutions_beside(place)
    solutions = _solutions(solved) if solved and solved.exists() else None
    missing = f"{solved} not found" if solved and solutions is None else None
    seen: dict[str, object] = {}
    hidden = 0
    for path, name, content in _contents(place):
        where = f"{path}: puzzle {name}"
        if name in seen and seen[name] == content:
            found.warnings.append(f"{where} occurs twice, the same each time: it is used once")
            continue
        try:
            if name in seen:
                raise InputError(f"{where} occurs twice, and differs: rename one of the two")
            seen[name] = content
            train, tests = _examples(where, name, content)
            if solutions is not None:
                _add_solutions(solved, solutions, name, tests)
            holds = bool(tests) if held_out is None else held_out
            unsolved = [test for test in tests if test.get("output") is None]
            if unsolved and missing and not holds:
                raise InputError(
                    f"{missing}, and its subset is trained on: add the file, or hold the subset "
                    "out with test_set_name"
                )
            if holds:
                if not tests:
                    raise InputError(f"{where} has no tests to hold out: train on its subset")
                for test in unsolved:
                    test["output"] = UNKNOWN
                hidden += len(unsolved)
            pairs = _pairs(f"{where}, train", train), _pairs(f"{where}, test", tests)
            found.puzzles.append(Puzzle(name, *pairs, holds))
        except InputError as error:
            skip_or_raise(error, found.skipped if skip_invalid else None)
    for name in sorted((solutions or {}).keys() - seen.keys()):
        error = InputError(f"{solved}: puzzle {name} has no challenge; the two files must match")
        skip_or_raise(error, found.skipped if skip_invalid else None)
    if hidden:
        found.warnings.append(
            f"{missing or place}: tests without an output get {UNKNOWN}, so the score of {hidden} "
            "means nothing"
        )
    if not found.puzzles:
        more = len(found.skipped) - SHOWN
        shown = [*found.skipped[:SHOWN], *([f"and {more} more"] if more > 0 else [])]
        raise InputError(f"no puzzle can be used: {'; '.join(shown)}")
    return found


def _contents(place: Path) -> Iterator[tuple[Path, str, object]]:
    """Yield the file, name and content of every puzzle; of a damaged file in a folder the error."""
    if not place.is_dir():
        yield from ((place, *puzzle) for puzzle in _puzzles(place))
        return
    for path in sorted(_json_files(place)):
        try:
            puzzles = list(_puzzles(path))
        except InputError as error:
            puzzles = [(path.stem, error)]
        yield from ((path, *puzzle) for puzzle in puzzles)


def _puzzles(path: Path) -> Iterator[tuple[str, object]]:
    """Yield the name and content of every puzzle in a file of one or several."""
    content = _lines(path) if path.suffix.lower() in _JSON_LINES else _load(path)
    first = content[0] if isinstance(content, list) and content else None
    if isinstance(content, _Object) and {"train", "test"} & content.keys():
        yield path.stem, content
    elif isinstance(content, _Object) and content:
        yield from [*content.items(), *content.repeated]
    elif isinstance(first, _Object) and "input" in first:  # a list of pairs
        yield path.stem, content
    elif isinstance(first, _Object | InputError):
        for number, puzzle in enumerate(content):
            keys = [key for key in _ID_KEYS if isinstance(puzzle, _Object) and key in puzzle]
            yield str(puzzle[keys[0]]) if keys else f"{path.stem}-{number}", puzzle
    else:
        raise InputError(f"{path} holds no puzzles; it must be one, or a list or object of them")


class _Object(dict):
    """A JSON object; ``repeated`` are the pairs whose key occurs before, which json would keep."""

    def __init__(self, pairs: list[tuple[str, object]]):
        super().__init__()
        self.repeated: list[tuple[str, object]] = []
        for key, value in pairs:
            if key in self:
                self.repeated.append((key, value))
            else:
                self[key] = value


def _load(path: Path) -> object:
    absent = "correct input_file_prefix or subsets"
    return read_json(path, absent, "correct it, or download it again", _Object)


def _lines(path: Path) -> list:
    """The values of the lines that are not blank; of one that is damaged, the error."""
    values = []
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            try:
                values.append(json.loads(line, object_pairs_hook=_Object))
            except (ValueError, RecursionError) as error:
                problem = (
                    f"{path} line {number} is not JSON: {error}; correct it, or download it again"
                )
                values.append(InputError(problem))
    return values


def _solutions(path: Path) -> dict:
    content = _load(path)
    if not isinstance(content, dict) or not content:
        raise InputError(f"{path} holds no puzzles; it must be a JSON object of them, by name")
    return content


def _examples(where: str, name: str, content: object) -> tuple[list[Example], list[Example]]:
    """The training and test examples of a puzzle, each an object, not yet grids."""
    if isinstance(content, InputError):
        raise content
    if SEPARATOR in name:
        raise InputError(f"{where}: {SEPARATOR} marks augmentations; rename it")
    pairs = isinstance(content, list) and content and isinstance(content[0], dict)
    found = []
    for kind in ("train",) if pairs else ("train", "test"):
        examples = content if pairs else content.get(kind) if isinstance(content, dict) else None
        if (
            not isinstance(examples, list)
            or not examples
            or not all(isinstance(example, dict) for example in examples)
        ):
            raise InputError(f"{where} has no '{kind}' examples; they must be a list of objects")
        found.append([dict(example) for example in examples])
    return found[0], found[1] if len(found) == 2 else []


def _add_solutions(path: Path, solutions: dict, name: str, tests: list[Example]) -> None:
    """Put the solutions of a puzzle into its tests; null is one that is not known."""
    if name not in solutions:
        raise InputError(f"{path}: puzzle {name} has no solution; the two files must match")
    outputs = solutions[name]
    if not isinstance(outputs, list) or len(outputs) != len(tests):
        raise InputError(
            f"{path}: puzzle {name} needs a list of {len(tests)} outputs, one a "
            "test; solutions and challenges must match"
        )
    for number, (test, output) in enumerate(zip(tests, outputs, strict=True)):
        with located(f"{path}: puzzle {name}, output {number}"):
            test["output"] = None if output is None else check_grid(output)


def _pairs(place: str, examples: list[Example]) -> list[Pair]:
    pairs = []
    for number, example in enumerate(examples):
        grids = []
        for side in ("input", "output"):
            with located(f"{place}[{number}], {side}"):
                grids.append(check_grid(example.get(side)))
        pairs.append((grids[0], grids[1]))
    return pairs
