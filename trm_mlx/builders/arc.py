"""Builds an ARC dataset from the JSON files of the Kaggle competitions.

As in the published builder (``dataset/build_arc_dataset.py`` of TRM) a group is one puzzle with its
augmented versions, each with an identifier of its own. The training examples of every puzzle go to
the train split, at random places of their canvases; the test examples of the sets held out go to
the test split, those of the others to train. Unlike there, no example is ever all in memory: a
dataset of any size is built in the same few hundred MiB.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from trm_mlx.builders.arc_augment import cells_of, distinct, paint
from trm_mlx.builders.arc_files import Pair, Puzzle, read_subset
from trm_mlx.data.writer import Chunk, SplitStream, check_replaceable, write_dataset
from trm_mlx.errors import InputError
from trm_mlx.tasks.arc import ARC, PUZZLES_FILE, Symmetry

_bar = partial(tqdm, disable=None)  # on a terminal only: a log keeps its one line of error


class Group(NamedTuple):
    """A puzzle's pairs that go to one split, the symmetries of its images, their identifiers."""

    pairs: list[Pair]
    symmetry: Symmetry
    identifiers: list[int]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--input-file-prefix",
        required=True,
        help="the JSON files' path up to _SUBSET_challenges.json, kaggle/combined/arc-agi say",
    )
    parser.add_argument("--output-dir", required=True, help="dataset folder to write")
    parser.add_argument(
        "--subsets", nargs="+", required=True, help="for example training evaluation concept"
    )
    parser.add_argument(
        "--test-set-name", required=True, help="the subset whose test examples are held out"
    )
    parser.add_argument("--test-set-name2", help="a second subset to hold out")
    parser.add_argument(
        "--num-aug", type=int, default=1000, help="augmented versions per puzzle (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=42, help="default: %(default)s")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing dataset")


def run(arguments: argparse.Namespace) -> None:
    """Build what the command line asks for.

    Raises:
        InputError: unusable input or options; nothing is written then.
    """
    _check_options(arguments)
    check_replaceable(Path(arguments.output_dir), arguments.overwrite)
    ordering, drawing, placing = np.random.default_rng(arguments.seed).spawn(3)
    puzzles = [
        puzzle
        for subset in _bar(arguments.subsets, desc="reading", unit="subset")
        for puzzle in _shuffled(_read(arguments, subset), ordering)
    ]
    _warn_of_leaks(puzzles)
    symmetries = [
        distinct(cells_of(puzzle.pairs), arguments.num_aug, drawing)
        for puzzle in _bar(puzzles, desc="augmenting", unit="puzzle")
    ]
    names = ["<blank>"]
    identifiers = _number(puzzles, symmetries, names)
    train, test = [], []
    for puzzle, symmetry, own in zip(puzzles, symmetries, identifiers, strict=True):
        train.append(Group(puzzle.train if puzzle.held_out else puzzle.pairs, symmetry, own))
        if puzzle.held_out:
            test.append(Group(puzzle.test, symmetry, own))
    write_dataset(
        arguments.output_dir,
        {"train": _stream("train", train, placing), "test": _stream("test", test, None)},
        names,
        vocab_size=ARC.vocab_size,
        seq_len=ARC.seq_len,
        overwrite=arguments.overwrite,
        extra_files={PUZZLES_FILE: json.dumps({p.name: p.plain() for p in puzzles if p.held_out})},
    )
    _say_what_was_built(arguments, puzzles, symmetries)


def _check_options(arguments: argparse.Namespace) -> None:
    for option, value in (("--num-aug", arguments.num_aug), ("--seed", arguments.seed)):
        if value < 0:
            raise InputError(f"{option} {value}: must be at least 0")
    for subset, times in Counter(arguments.subsets).items():
        if times > 1:
            raise InputError(f"--subsets names {subset} {times} times: name it once")
    for option in ("test_set_name", "test_set_name2"):
        name = getattr(arguments, option)
        if name is not None and name not in arguments.subsets:
            raise InputError(
                f"--{option.replace('_', '-')} {name}: choose one of the --subsets, "
                f"{', '.join(arguments.subsets)}"
            )


def _read(arguments: argparse.Namespace, subset: str) -> list[Puzzle]:
    held_out = subset in (arguments.test_set_name, arguments.test_set_name2)
    return read_subset(arguments.input_file_prefix, subset, held_out)


def _shuffled(puzzles: list[Puzzle], rng: np.random.Generator) -> list[Puzzle]:
    return [puzzles[number] for number in rng.permutation(len(puzzles))]


def _warn_of_leaks(puzzles: list[Puzzle]) -> None:
    """ARC-AGI-2's training set holds puzzles that ARC-AGI-1 is evaluated on, for instance."""
    held_out = {puzzle.name for puzzle in puzzles if puzzle.held_out}
    leaks = [p.name for p in puzzles if not p.held_out and p.name in held_out]
    if leaks:
        print(
            f"warning: the answers of {len(leaks)} test puzzles ({leaks[0]}, ...) are trained on, "
            "as another subset holds them too; do not report this test score",
            file=sys.stderr,
        )


def _number(puzzles: list[Puzzle], symmetries: list[Symmetry], names: list[str]) -> list[list[int]]:
    """The identifiers of every puzzle's images, whose names are added to `names`.

    Images of the same name, of a puzzle that two subsets hold, share an identifier.
    """
    known: dict[str, int] = {}
    identifiers = []
    for puzzle, symmetry in zip(puzzles, symmetries, strict=True):
        images = [puzzle.name, *symmetry[1:].names(puzzle.name)]
        identifiers.append([known.setdefault(name, len(known) + 1) for name in images])
    names.extend(known)
    return identifiers


def _stream(split: str, groups: list[Group], placing: np.random.Generator | None) -> SplitStream:
    """A split, painted while it is written."""
    images = [len(group.symmetry) for group in groups]
    examples = np.repeat([len(group.pairs) for group in groups], images)
    return SplitStream(
        _painted(split, groups, int(examples.sum()), placing),
        puzzle_identifiers=np.concatenate([group.identifiers for group in groups]),
        puzzle_indices=np.append(0, np.cumsum(examples)),
        group_indices=np.append(0, np.cumsum(images)),
    )


def _painted(
    split: str, groups: list[Group], examples: int, placing: np.random.Generator | None
) -> Iterator[Chunk]:
    with _bar(total=examples, desc=f"writing {split}", unit="example", unit_scale=True) as bar:
        for group in groups:
            for inputs, labels in paint(group.pairs, group.symmetry, placing):
                yield inputs, labels
                bar.update(len(inputs))


def _say_what_was_built(
    arguments: argparse.Namespace, puzzles: list[Puzzle], symmetries: list[Symmetry]
) -> None:
    scarce = [
        (puzzle.name, len(symmetry) - 1)
        for puzzle, symmetry in zip(puzzles, symmetries, strict=True)
        if len(symmetry) <= arguments.num_aug
    ]
    if scarce:
        name, fewest = min(scarce, key=lambda item: item[1])
        print(
            f"{len(scarce)} puzzles look the same under many symmetries and have fewer than "
            f"{arguments.num_aug} augmentations, {name} the fewest: {fewest}"
        )
    held_out = sum(puzzle.held_out for puzzle in puzzles)
    print(
        f"{arguments.output_dir}: {len(puzzles)} ARC puzzles, {held_out} of them held out, in "
        f"{sum(map(len, symmetries))} versions"
    )
