"""Reads ARC puzzles from the JSON files of the Kaggle competitions.

PREFIX_{subset}_challenges.json   {puzzle: {"train": [{"input", "output"}], "test": [{"input"}]}}
PREFIX_{subset}_solutions.json    {puzzle: [the output of each test]}
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from trm_mlx.data.format import read_json
from trm_mlx.errors import InputError, located
from trm_mlx.tasks.arc import SEPARATOR, check_grid

Pair = tuple[np.ndarray, np.ndarray]  # input and output, each a grid of colours
Example = dict[str, object]  # a pair as JSON

UNKNOWN = [[0]]  # stands for the solution of a test that has none, as published


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


def read_subset(prefix: str | Path, subset: str, held_out: bool) -> tuple[list[Puzzle], list[str]]:
    """The puzzles of one subset in the order of its file, and warnings.

    A held-out subset may lack its solutions, as a competition's does: tests without an output get
    ``UNKNOWN``, and a warning says so.

    Raises:
        InputError: a file is missing or damaged, challenges and solutions do not match, or a grid
            cannot be used; the message names file, puzzle and example.
    """
    path, solved = (Path(f"{prefix}_{subset}_{kind}.json") for kind in ("challenges", "solutions"))
    contents = _puzzles(path)
    train = {name: _examples(path, name, contents[name], "train") for name in contents}
    tests = {name: _examples(path, name, contents[name], "test") for name in contents}
    warnings = []
    if solved.exists():
        _add_solutions(solved, _puzzles(solved), tests)
    elif held_out:
        warnings.append(f"{solved} not found: tests without an output get {UNKNOWN}")
        tests = {name: [{"output": UNKNOWN, **e} for e in tests[name]] for name in tests}
    elif not all("output" in example for examples in tests.values() for example in examples):
        raise InputError(
            f"{solved} not found, and its subset is trained on: add the file, or hold the subset "
            "out with test_set_name"
        )
    puzzles = [
        Puzzle(
            name,
            _pairs(f"{path}: puzzle {name}, train", train[name]),
            _pairs(f"{path}: puzzle {name}, test", tests[name]),
            held_out,
        )
        for name in contents
    ]
    return puzzles, warnings


def _puzzles(path: Path) -> dict:
    content = read_json(path, "correct input_file_prefix or subsets", "download it again")
    if not isinstance(content, dict) or not content:
        raise InputError(f"{path} holds no puzzles; it must be a JSON object of them, by name")
    return content


def _examples(path: Path, name: str, content: object, kind: str) -> list[Example]:
    """The examples of a puzzle's list ``kind``, each an object, not yet grids."""
    if SEPARATOR in name:
        raise InputError(f"{path}: puzzle {name}: {SEPARATOR} marks augmentations; rename it")
    examples = content.get(kind) if isinstance(content, dict) else None
    if (
        not isinstance(examples, list)
        or not examples
        or not all(isinstance(example, dict) for example in examples)
    ):
        raise InputError(
            f"{path}: puzzle {name} has no '{kind}' examples; they must be a list of objects"
        )
    return examples


def _add_solutions(path: Path, solutions: dict, tests: dict[str, list[Example]]) -> None:
    """Put the solutions of all puzzles into their tests."""
    for name in sorted(solutions.keys() ^ tests.keys()):
        missing = "solution" if name in tests else "challenge"
        raise InputError(f"{path}: puzzle {name} has no {missing}; the two files must match")
    for name, examples in tests.items():
        outputs = solutions[name]
        if not isinstance(outputs, list) or len(outputs) != len(examples):
            raise InputError(
                f"{path}: puzzle {name} needs a list of {len(examples)} outputs, one a "
                "test; solutions and challenges must match"
            )
        for number, (example, output) in enumerate(zip(examples, outputs, strict=True)):
            with located(f"{path}: puzzle {name}, output {number}"):
                example["output"] = check_grid(output)


def _pairs(place: str, examples: list[Example]) -> list[Pair]:
    pairs = []
    for number, example in enumerate(examples):
        grids = []
        for side in ("input", "output"):
            with located(f"{place}[{number}], {side}"):
                grids.append(check_grid(example.get(side)))
        pairs.append((grids[0], grids[1]))
    return pairs
