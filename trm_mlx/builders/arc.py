"""Builds an ARC dataset from JSON files: the Kaggle competitions', or folders of puzzles.

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
from typing import NamedTuple

import numpy as np

from trm_mlx.builders.arc_augment import cells_of, distinct, paint
from trm_mlx.builders.arc_files import Pair, Puzzle, find_subsets, read_subset
from trm_mlx.builders.write import BuiltDataset, add_common, check_options, left_out
from trm_mlx.data.writer import Chunk, SplitStream, write_dataset
from trm_mlx.errors import InputError
from trm_mlx.files import path_text
from trm_mlx.progress import ProgressBar
from trm_mlx.tasks.arc import ARC, PUZZLES_FILE, Symmetry, grid_key


class Group(NamedTuple):
    """A puzzle's pairs that go to one split, the symmetries of its images, their identifiers."""

    pairs: list[Pair]
    symmetry: Symmetry
    identifiers: list[int]


def build_arc(
    output_dir: str | Path,
    *,
    input_file_prefix: str | Path,
    subsets: Sequence[str] | None = None,
    test_set_name: str | None = None,
    test_set_name2: str | None = None,
    num_aug: int = 1000,
    skip_invalid: bool = False,
    seed: int = 42,
    overwrite: bool = False,
) -> BuiltDataset:
    """Build an ARC dataset from JSON files.

    Args:
        output_dir: dataset folder to write.
        input_file_prefix: the files' path up to ``_SUBSET_challenges.json``, such as
            ``kaggle/combined/arc-agi``; or a folder with one for each subset, one puzzle a file,
            such as the ARC repositories' ``data``; or a folder or file of puzzles by itself.
        subsets: for example ``["training", "evaluation", "concept"]``; None: all that there are.
        test_set_name, test_set_name2: the subsets whose test examples are held out; None:
            "evaluation" if it is there, or the only subset if its puzzles have tests.
        num_aug: augmented versions of every puzzle.
        skip_invalid: leave out puzzles that cannot be used, and count them in a warning.
        seed: of every draw.
        overwrite: replace a dataset that is there.

    Returns:
        The dataset, with warnings of tests that are trained on, of names that occur twice, and of
        subsets without solutions.

    Raises:
        InputError: unusable files or values; nothing is written then.
    """
    check_options(build_arc, locals(), num_aug=0)
    subsets = find_subsets(input_file_prefix) if subsets is None else subsets
    if test_set_name is None and "evaluation" in subsets:
        test_set_name = "evaluation"
    held_out = [name for name in (test_set_name, test_set_name2) if name is not None]
    _check_subsets(subsets, test_set_name=test_set_name, test_set_name2=test_set_name2)
    ordering, drawing, placing = np.random.default_rng(seed).spawn(3)
    puzzles, warnings, skipped = [], [], []
    for subset in ProgressBar(subsets, desc="reading", unit="subset"):
        holds = None if not held_out and len(subsets) == 1 else subset in held_out
        found = read_subset(input_file_prefix, subset, holds, skip_invalid)
        puzzles += _shuffled(found.puzzles, ordering)
        warnings += found.warnings
        skipped += found.skipped
    warnings += left_out(skipped)
    warnings += _leaks(puzzles) + _shared(puzzles)
    if not any(puzzle.held_out for puzzle in puzzles):
        warnings.append("nothing is held out: there is no test split to evaluate on")
    summary = write_puzzles(output_dir, puzzles, num_aug, drawing, placing, overwrite)
    return BuiltDataset(Path(output_dir), summary, tuple(warnings))


def write_puzzles(
    output_dir: str | Path,
    puzzles: list[Puzzle],
    num_aug: int,
    drawing: np.random.Generator,
    placing: np.random.Generator,
    overwrite: bool = False,
) -> str:
    """Write puzzles with their augmented versions as a dataset; return its size in words.

    Args:
        drawing: draws the symmetries of the versions.
        placing: draws the places of training pairs on their canvases.

    Raises:
        InputError: the folder cannot be written.
    """
    symmetries = [
        distinct(cells_of(puzzle.pairs), num_aug, drawing)
        for puzzle in ProgressBar(puzzles, desc="augmenting", unit="puzzle")
    ]
    names = ["<blank>"]
    identifiers = _number(puzzles, symmetries, names)
    train, test = [], []
    for puzzle, symmetry, own in zip(puzzles, symmetries, identifiers, strict=True):
        train.append(Group(puzzle.train if puzzle.held_out else puzzle.pairs, symmetry, own))
        if puzzle.held_out:
            test.append(Group(puzzle.test, symmetry, own))
    splits = {"train": _stream("train", train, placing)}
    if test:
        splits["test"] = _stream("test", test, None)
    write_dataset(
        output_dir,
        splits,
        names,
        vocab_size=ARC.vocab_size,
        seq_len=ARC.seq_len,
        overwrite=overwrite,
        extra_files={
            PUZZLES_FILE: json.dumps({p.name: p.to_dict() for p in puzzles if p.held_out})
        },
    )
    return (
        f"{len(puzzles)} ARC puzzles, {sum(p.held_out for p in puzzles)} of them held out, in "
        f"{sum(map(len, symmetries))} versions{_scarcity(puzzles, symmetries, num_aug)}"
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
    trained = [puzzle for puzzle in puzzles if not puzzle.held_out]
    names, contents = {puzzle.name for puzzle in trained}, {_content(p) for p in trained}
    leaks = [p.name for p in puzzles if p.held_out and (p.name in names or _content(p) in contents)]
    if not leaks:
        return []
    return [
        f"the answers of {len(leaks)} test puzzles ({leaks[0]}, ...) are trained on, as another "
        "subset holds them too; do not report this test score"
    ]


def _content(puzzle: Puzzle) -> frozenset[bytes]:
    """A key that puzzles of the same training examples share."""
    return frozenset(b"".join(map(grid_key, pair)) for pair in puzzle.train)


def _shared(puzzles: list[Puzzle]) -> list[str]:
    """A warning of names that several subsets trained on share, as training and training2 do."""
    times = Counter(puzzle.name for puzzle in puzzles if not puzzle.held_out)
    shared = [name for name, count in times.items() if count > 1]
    if not shared:
        return []
    return [
        f"{len(shared)} names ({shared[0]}, ...) occur in several subsets: each stands for one "
        "puzzle, and is trained on as often"
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
    with ProgressBar(
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
    add_common(parser, build_arc)
    parser.add_argument(
        "--input-file-prefix",
        "--input",
        type=path_text,
        required=True,
        help="the JSON files' path up to _SUBSET_challenges.json, kaggle/combined/arc-agi say, or "
        "a folder of puzzles, one a file, or of such folders, or one file",
    )
    parser.add_argument(
        "--subsets",
        nargs="+",
        help="for example training evaluation concept (default: all that there are)",
    )
    parser.add_argument(
        "--test-set-name",
        help="the subset whose test examples are held out (default: evaluation, or the only one)",
    )
    parser.add_argument("--test-set-name2", help="a second subset to hold out")
    parser.add_argument(
        "--num-aug", type=int, help="augmented versions per puzzle (default: %(default)s)"
    )
    parser.add_argument(
        "--skip-invalid", action="store_true", help="leave out puzzles that cannot be used"
    )
