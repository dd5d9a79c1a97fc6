"""ARC on several canvases: batches of one canvas side each, the smallest that fits the puzzle.

Datasets hold 30x30 canvases; a batch is cut to its side when it is made. Every process of a run,
and a resumed one, draws the same sides in the same order.
"""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from trm_mlx.data.arrays import IGNORE_LABEL
from trm_mlx.data.dataset import Batch, PuzzleDataset, puzzle_names
from trm_mlx.data.format import read_json
from trm_mlx.data.sampler import Position, TrainStream
from trm_mlx.errors import InputError, located
from trm_mlx.tasks.arc import PUZZLES_FILE, SEPARATOR, SIZE, pairs_of
from trm_mlx.tasks.arc_canvas import fit_to, known_extent, largest_extent, smallest_side


def groups_by_side(
    data: PuzzleDataset, sides: Sequence[int], least: int = 0
) -> dict[int, np.ndarray]:
    """Return the groups ``[g]`` of an ARC dataset on each canvas side that is used.

    The side of a held-out puzzle follows from its training pairs and test inputs, in both splits.

    Args:
        least: examples that a side needs; those of a rarer one go on a larger canvas.

    Raises:
        InputError: the data are not of ``trm build arc``.
    """
    names, counts = puzzle_names(data), np.diff(data.puzzle_indices)
    held_out: dict[str, int] = {}
    for folder in dict.fromkeys(part.folder.parent for part in data.parts):
        held_out |= known_extents(folder / PUZZLES_FILE)
    chosen, examples = [], []
    for first, end in itertools.pairwise(data.group_indices):
        if first == end:
            chosen.append(SIZE)
            examples.append(0)
            continue
        name = names[data.puzzle_identifiers[first]].partition(SEPARATOR)[0]
        extent = held_out.get(name) or _stored_extent(data, first)
        chosen.append(smallest_side(extent, sides))
        examples.append(counts[first:end].min())
    found = _enlarge_rare(np.array(chosen), np.array(examples), least)
    return {side: np.flatnonzero(found == side) for side in np.unique(found).tolist()}


def examples_by_side(data: PuzzleDataset, sides: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the canvas sides of an ARC dataset, each with its examples ``[n]`` in order.

    Raises:
        InputError: the data are not of ``trm build arc``.
    """
    starts = data.puzzle_indices[data.group_indices]
    for side, groups in groups_by_side(data, sides).items():
        yield side, np.concatenate([np.arange(starts[g], starts[g + 1]) for g in groups])


def _enlarge_rare(sides: np.ndarray, examples: np.ndarray, least: int) -> np.ndarray:
    """``sides [G]`` with those of fewer than ``least`` of the ``examples [G]`` made larger."""
    sides = sides.copy()
    used = np.unique(sides)
    for side, larger in itertools.pairwise(used):
        if examples[sides == side].sum() < least:
            sides[sides == side] = larger
    used = np.unique(sides)
    while len(used) > 1 and examples[sides == used[-1]].sum() < least:
        sides[sides == used[-2]] = used[-1]
        used = np.unique(sides)
    return sides


def cut(batch: Batch, side: int) -> Batch:
    """Return a batch of stored canvases on canvases of ``side``."""
    if side == SIZE:
        return batch
    inputs, labels = fit_to(batch["inputs"], batch["labels"], side, IGNORE_LABEL)
    return {**batch, "inputs": inputs, "labels": labels}


class CanvasStream:
    """Batches of several `TrainStream`, one for each side, each batch cut to its side.

    The stream that has come least far in its epochs gives the next batch, so that all come to the
    end of an interval together, and a batch follows from the position alone.
    """

    def __init__(self, streams: dict[int, TrainStream]):
        self.streams = streams

    @property
    def position(self) -> Position:
        """Where the next batch of every side starts; see `TrainStream`."""
        places = {side: stream.position for side, stream in self.streams.items()}
        return _joined(places)

    @position.setter
    def position(self, position: Position) -> None:
        for side, stream in self.streams.items():
            stream.position = position_of(position, side)

    def __iter__(self) -> Iterator[tuple[Batch, Position]]:
        places = {side: stream.position for side, stream in self.streams.items()}
        first = min(place["epoch"] for place in places.values())
        interval = next(iter(self.streams.values())).epochs_per_interval
        stop = (first // interval + 1) * interval
        batches = {side: iter(stream) for side, stream in self.streams.items()}

        def done(side: int) -> float:
            return places[side]["epoch"] + places[side]["offset"] / self.streams[side].groups

        while unfinished := [side for side in places if places[side]["epoch"] < stop]:
            side = min(unfinished, key=done)
            batch, places[side] = next(batches[side])
            yield cut(batch, side), _joined(places)


def position_of(position: Position | None, side: int) -> Position | None:
    """The position of one side's stream in that of all.

    Raises:
        InputError: it is of a run with other sides.
    """
    if position is None or set(position) == {"epoch", "offset"}:  # an interval's end
        return position
    try:
        return {name: position[f"{name}_{side}"] for name in ("epoch", "offset")}
    except KeyError as error:
        raise InputError(
            f"data position {position} has no canvases of {side}: resume with the dataset of the "
            "checkpoint"
        ) from error


def _joined(places: dict[int, Position]) -> Position:
    first, *others = places.values()
    if not first["offset"] and all(place == first for place in others):
        return dict(first)
    return {f"{name}_{side}": place[name] for side, place in places.items() for name in place}


def known_extents(path: Path) -> dict[str, int]:
    """The extent of every held-out puzzle of a dataset, by its name."""
    puzzles = read_json(path, "arch.canvases is for data of 'trm build arc'", "rebuild the dataset")
    if not isinstance(puzzles, dict):
        raise InputError(f"{path} holds no puzzles by name; rebuild the dataset")
    found = {}
    for name, puzzle in puzzles.items():
        with located(f"{path}: puzzle {name}"):
            shapes = [(before.shape, after.shape) for before, after in pairs_of(puzzle, "train")]
            questions = [before.shape for before, _ in pairs_of(puzzle, "test")]
            found[name] = known_extent(shapes, questions)
    return found


def _stored_extent(data: PuzzleDataset, puzzle: int) -> int:
    examples = np.arange(data.puzzle_indices[puzzle], data.puzzle_indices[puzzle + 1])
    batch = data.batch(examples, np.full(len(examples), puzzle), len(examples))
    return max(largest_extent(batch["inputs"]), largest_extent(batch["labels"]))
