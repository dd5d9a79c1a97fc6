"""Builds an ARC dataset from the JSON files of the Kaggle competitions.

As in the published builder (``dataset/build_arc_dataset.py`` of TRM) a group is one puzzle with its
augmented versions, each with an identifier of its own. The training examples of every puzzle go to
the train split, at random places of their canvases; the test examples of the sets held out go to
the test split, those of the others to train. Unlike there, no example is ever all in memory: a
dataset of any size is built in the same few hundred MiB.
"""

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from trm_mlx.builders.arc_augment import cells_of, distinct, paint
from trm_mlx.builders.arc_files import Pair, Puzzle, read_subset
from trm_mlx.builders.write import (
    BuiltDataset,
    add_output,
    check_minimums,
    progress_bar,
    report,
    use_defaults,
)
from trm_mlx.data.writer import Chunk, SplitStream, check_replaceable, write_dataset
from trm_mlx.errors import InputError
from trm_mlx.tasks.arc import ARC, PUZZLES_FILE, Symmetry


class Group(NamedTuple):
    """A puzzle's pairs that go to one split, the symmetries of its images, their identifiers."""

    pairs: list[Pair]
    symmetry: Symmetry
    identifiers: list[int]


def build_arc(
    output_dir: str | Path,
    *,
    input_file_prefix: str | Path,
    subsets: Sequence[str],
    test_set_name: str,
    test_set_name2: str | None = None,
    num_aug: int = 1000,
    seed: int = 42,
    overwrite: bool = False,
) -> BuiltDataset:
    """Build an ARC dataset from the JSON files of the Kaggle competitions.

    Args:
        output_dir: dataset folder to write.
        input_file_prefix: the files' path up to ``_SUBSET_challenges.json``, such as
            ``kaggle/combined/arc-agi``.
        subsets: for example ``["training", "evaluation", "concept"]``.
        test_set_name, test_set_name2: the subsets whose test examples are held out.
        num_aug: augmented versions of every puzzle.
        seed: of every draw.
        overwrite: replace a dataset that is there.

    Returns:
        The dataset, with warnings of tests that are trained on and of subsets without solutions.

    Raises:
        InputError: unusable files or values; nothing is written then.
    """
    held_out = [name for name in (test_set_name, test_set_name2) if name is not None]
    check_minimums(locals(), num_aug=0)
    _check_subsets(subsets, test_set_name=test_set_name, test_set_name2=test_set_name2)
    check_replaceable(Path(output_dir), overwrite)
    ordering, drawing, placing = np.random.default_rng(seed).spawn(3)
    puzzles, warnings = [], []
    for subset in progress_bar(subsets, desc="reading", unit="subset"):
        read, unsolved = read_subset(input_file_prefix, subset, subset in held_out)
        puzzles += _shuffled(read, ordering)
        warnings += unsolved
    warnings += _leaks(puzzles)
    symmetries = [
        distinct(cells_of(puzzle.pairs), num_aug, drawing)
        for puzzle in progress_bar(puzzles, desc="augmenting", unit="puzzle")
    ]
    names = ["<blank>"]
    identifiers = _number(puzzles, symmetries, names)
    train, test = [], []
    for puzzle, symmetry, own in zip(puzzles, symmetries, identifiers, strict=True):
        train.append(Group(puzzle.train if puzzle.held_out else puzzle.pairs, symmetry, own))
        if puzzle.held_out:
            test.append(Group(puzzle.test, symmetry, own))
    write_dataset(
        output_dir,
        {"train": _stream("train", train, placing), "test": _stream("test", test, None)},
        names,
        vocab_size=ARC.vocab_size,
        seq_len=ARC.seq_len,
        overwrite=overwrite,
        extra_files={
            PUZZLES_FILE: json.dumps({p.name: p.to_dict() for p in puzzles if p.held_out})
        },
    )
    return BuiltDataset(
        Path(output_dir),
        f"{len(puzzles)} ARC puzzles, {sum(p.held_out for p in puzzles)} of them held out, in "
        f"{sum(map(len, symmetries))} versions{_scarcity(puzzles, symmetries, num_aug)}",
        tuple(warnings),
    )


def _check_subsets(subsets: Sequence[str], **held_out: str | None) -> None:
    for subset, times in Counter(subsets).items():
        if times > 1:
            raise InputError(f"subsets names {subset} {times} times: name it once")
    for option, name in held_out.items():
        if name is not None and name not in subsets:
            raise InputError(f"{option}={name}: choose one of the subsets, {', '.join(subsets)}")


def _shuffled(puzzles: list[Puzzle], rng: np.random.Generator) -> list[Puzzle]:
    return [puzzles[number] for number in rng.permutation(len(puzzles))]


def _leaks(puzzles: list[Puzzle]) -> list[str]:
    """A warning of test puzzles that another subset holds too.

    ARC-AGI-2's training set holds puzzles that ARC-AGI-1 is evaluated on, for instance.
    """
    held_out = {puzzle.name for puzzle in puzzles if puzzle.held_out}
    leaks = [p.name for p in puzzles if not p.held_out and p.name in held_out]
    if not leaks:
        return []
    return [
        f"the answers of {len(leaks)} test puzzles ({leaks[0]}, ...) are trained on, as another "
        "subset holds them too; do not report this test score"
    ]


def _number(puzzles: list[Puzzle], symmetries: list[Symmetry], names: list[str]) -> list[list[int]]:
    """The identifiers of every puzzle's images, whose names are added to ``names``.

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
    with progress_bar(
        total=examples, desc=f"writing {split}", unit="example", unit_scale=True
    ) as bar:
        for group in groups:
            for inputs, labels in paint(group.pairs, group.symmetry, placing):
                yield inputs, labels
                bar.update(len(inputs))


def _scarcity(puzzles: list[Puzzle], symmetries: list[Symmetry], num_aug: int) -> str:
    """A remark on puzzles with fewer augmentations than asked for, if any."""
    scarce = [
        (puzzle.name, len(symmetry) - 1)
        for puzzle, symmetry in zip(puzzles, symmetries, strict=True)
        if len(symmetry) <= num_aug
    ]
    if not scarce:
        return ""
    name, fewest = min(scarce, key=lambda item: item[1])
    return (
        f"; {len(scarce)} puzzles look the same under many symmetries and have fewer than "
        f"{num_aug} augmentations, {name} the fewest: {fewest}"
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    use_defaults(parser, build_arc)
    add_output(parser)
    parser.add_argument(
        "--input-file-prefix",
        required=True,
        help="the JSON files' path up to _SUBSET_challenges.json, kaggle/combined/arc-agi say",
    )
    parser.add_argument(
        "--subsets", nargs="+", required=True, help="for example training evaluation concept"
    )
    parser.add_argument(
        "--test-set-name", required=True, help="the subset whose test examples are held out"
    )
    parser.add_argument("--test-set-name2", help="a second subset to hold out")
    parser.add_argument(
        "--num-aug", type=int, help="augmented versions per puzzle (default: %(default)s)"
    )


def run(**options: Any) -> None:
    report(build_arc(**options))
