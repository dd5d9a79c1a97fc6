"""Cuts a dataset into batches: shuffled or generated for training, in order for evaluation.

The sampler follows the published one (puzzle_dataset.py of HRM and TinyRecursiveModels), with two
differences: every random choice is a function of the seed and of the place in the data, so that a
run resumes exactly and all ranks agree; and an interval without a full batch is an error instead of
no training.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from trm_mlx.data.dataset import Batch, PuzzleDataset
from trm_mlx.data.format import DatasetMetadata
from trm_mlx.errors import InputError

Change = Callable[[Batch, np.random.Generator], Batch]  # an augmented batch
Make = Callable[[int, np.random.Generator], Batch]  # a batch of so many rows
Position = dict[str, int]  # {"epoch": e, "offset": groups of epoch e that are already used}
Item = TypeVar("Item")


class TrainStream:
    """An endless stream of shuffled training batches, cut into intervals.

    An epoch visits every group once, in random order. Each visit picks one puzzle of the group and
    takes its examples in random order, as many as still fit in the batch. A batch may span epochs,
    but not intervals: after ``epochs_per_interval`` epochs, what does not fill a batch is dropped.

    Iterating yields the (batch, position) pairs of the current interval, from ``position`` on; the
    position says where the *next* batch starts, and a stream built with it goes on identically.
    Each process, ``shard=(rank, size)``, gets its batch_size / size rows of the same global batch,
    which ``change``, if any, has altered as a whole. Only ``chosen`` groups are visited, by default
    all.

    Raises:
        InputError: the sizes or the position do not fit the dataset.
    """

    def __init__(
        self,
        dataset: PuzzleDataset,
        batch_size: int,
        epochs_per_interval: int,
        seed: int,
        shard: tuple[int, int] = (0, 1),
        position: Position | None = None,
        change: Change | None = None,
        chosen: np.ndarray | None = None,
    ):
        self.dataset, self.batch_size, self.seed = dataset, batch_size, seed
        self.epochs_per_interval, self._change = epochs_per_interval, change
        self._own_rows = rows_of_rank(batch_size, shard)
        if seed < 0:
            raise InputError(f"seed is {seed}; it must not be negative")
        self._first_examples = dataset.puzzle_indices[:-1]
        self._counts = np.diff(dataset.puzzle_indices)  # [P] examples of each puzzle
        # A group without puzzles has nothing to visit.
        occupied = np.flatnonzero(np.diff(dataset.group_indices))
        if chosen is not None:
            occupied = np.intersect1d(occupied, chosen)
        self.groups = len(occupied)
        self._group_starts = dataset.group_indices[occupied]
        self._group_ends = dataset.group_indices[occupied + 1]

        # The smallest puzzle of every group, so that no luck of the draw leaves an interval empty.
        fewest = int(np.minimum.reduceat(self._counts, self._group_starts).sum())
        if fewest * epochs_per_interval < batch_size:
            raise InputError(
                f"an interval of {epochs_per_interval} epochs may hold only "
                f"{fewest * epochs_per_interval} examples, fewer than the batch of {batch_size}; "
                "use a smaller global_batch_size or a larger eval_interval"
            )
        place = f"{self.groups} groups; resume with the dataset of the checkpoint"
        self.position = _checked(position, self.groups, place)
        self._planned: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))

    def __iter__(self) -> Iterator[tuple[Batch, Position]]:
        interval = self.position["epoch"] // self.epochs_per_interval
        stop = (interval + 1) * self.epochs_per_interval
        start, plan = self.position, self._plan_batch(self.position, stop)
        self.position = {"epoch": stop, "offset": 0}
        while plan is not None:
            puzzles, following = plan
            # Looking one batch ahead: after the last one, the next interval comes next.
            next_plan = self._plan_batch(following, stop)
            self.position = following if next_plan else {"epoch": stop, "offset": 0}
            examples, owners = self._choose_examples(puzzles, start)
            yield self._batch(examples, owners, start), dict(self.position)
            start, plan = following, next_plan

    def _batch(self, examples: np.ndarray, owners: np.ndarray, start: Position) -> Batch:
        """This rank's rows of the global batch that starts at a position."""
        rows = self._own_rows
        if self._change is None:
            return self.dataset.batch(examples[rows], owners[rows], rows.stop - rows.start)
        place = (start["epoch"], start["offset"], 0)
        batch = self.dataset.batch(examples, owners, self.batch_size)
        batch = self._change(batch, generator_at(self.seed, *place))
        return {name: array[rows] for name, array in batch.items()}

    def _plan_batch(self, start: Position, stop: int) -> tuple[np.ndarray, Position] | None:
        """Puzzles that fill a batch, and where the next starts; None if ``stop`` comes first."""
        epoch, offset = start["epoch"], start["offset"]
        chosen, missing = [], self.batch_size
        while missing > 0:
            if epoch >= stop:
                return None
            puzzles = self._plan_epoch(epoch)[offset:]
            ends = np.cumsum(self._counts[puzzles])
            taken = min(int(np.searchsorted(ends, missing)) + 1, len(puzzles))
            chosen.append(puzzles[:taken])
            missing -= int(ends[taken - 1])
            epoch, offset = (epoch + 1, 0) if taken == len(puzzles) else (epoch, offset + taken)
        return np.concatenate(chosen), {"epoch": epoch, "offset": offset}

    def _plan_epoch(self, epoch: int) -> np.ndarray:
        """The puzzle of each visit [groups], in order; depends on the seed and the epoch alone."""
        if self._planned[0] != epoch:
            random = generator_at(self.seed, epoch)
            order = random.permutation(len(self._group_starts))
            puzzles = random.integers(self._group_starts[order], self._group_ends[order])
            self._planned = (epoch, puzzles)
        return self._planned[1]

    def _choose_examples(
        self, puzzles: np.ndarray, start: Position
    ) -> tuple[np.ndarray, np.ndarray]:
        """Examples [batch_size] of the puzzles, and the puzzle that owns each [batch_size]."""
        counts = self._counts[puzzles]
        visit = np.repeat(np.arange(len(puzzles)), counts)
        within = np.arange(len(visit)) - np.repeat(np.cumsum(counts) - counts, counts)
        # Shuffle inside each visit only; then cutting the batch truncates its last puzzle alone.
        random = generator_at(self.seed, start["epoch"], start["offset"])
        shuffled = np.lexsort((random.random(len(visit)), visit))[: self.batch_size]
        owners = puzzles[visit[shuffled]]
        return self._first_examples[owners] + within[shuffled], owners


class GeneratedStream:
    """An endless stream of new puzzles, which are never stored, cut like a ``TrainStream``.

    An epoch is ``puzzles_per_epoch`` puzzles; the position's offset counts those of the epoch that
    are used. A batch depends on the seed and the position it starts at alone, so a stream built
    with a position goes on identically.

    Raises:
        InputError: an interval holds no batch, or the position lies outside the epoch.
    """

    def __init__(
        self,
        make: Make,
        puzzles_per_epoch: int,
        batch_size: int,
        epochs_per_interval: int,
        seed: int,
        position: Position | None = None,
    ):
        self.make, self.seed = make, seed
        self.puzzles_per_epoch, self.batch_size = puzzles_per_epoch, batch_size
        self.epochs_per_interval = epochs_per_interval
        if epochs_per_interval * puzzles_per_epoch < batch_size:
            raise InputError(
                f"an interval of {epochs_per_interval} epochs of puzzles_per_epoch="
                f"{puzzles_per_epoch} is less than the batch of {batch_size}; use a smaller "
                "global_batch_size, or more puzzles_per_epoch"
            )
        place = f"puzzles_per_epoch={puzzles_per_epoch}; resume with that of the checkpoint"
        self.position = _checked(position, puzzles_per_epoch, place)

    def __iter__(self) -> Iterator[tuple[Batch, Position]]:
        interval = self.position["epoch"] // self.epochs_per_interval
        last_epoch = (interval + 1) * self.epochs_per_interval
        stop = last_epoch * self.puzzles_per_epoch
        start = self.position["epoch"] * self.puzzles_per_epoch + self.position["offset"]
        self.position = {"epoch": last_epoch, "offset": 0}
        while start + self.batch_size <= stop:
            epoch, offset = divmod(start, self.puzzles_per_epoch)
            start += self.batch_size
            following = divmod(start, self.puzzles_per_epoch)
            if start + self.batch_size > stop:
                following = (last_epoch, 0)
            self.position = dict(zip(("epoch", "offset"), following, strict=True))
            batch = self.make(self.batch_size, generator_at(self.seed, epoch, offset))
            yield batch, dict(self.position)


def _checked(position: Position | None, length: int, place: str) -> Position:
    """A position in epochs of ``length``, by default the first; ``place`` ends the message."""
    begin = {"epoch": 0, "offset": 0} if position is None else dict(position)
    if begin.get("epoch", -1) < 0 or not 0 <= begin.get("offset", -1) < length:
        raise InputError(f"data position {position} does not fit {place}")
    return begin


def iterate_test(
    dataset: PuzzleDataset,
    batch_size: int,
    shard: tuple[int, int] = (0, 1),
    chosen: np.ndarray | None = None,
) -> Iterator[tuple[str, Batch, int]]:
    """Yield (set name, batch, rows) over all examples in order; batches do not span sets.

    Of ``chosen`` examples, in ascending order, instead of all if there are any.

    ``rows`` counts the real rows of the global batch. The rows after them are pad inputs,
    IGNORE_LABEL labels and the blank identifier. Every process, ``shard=(rank, size)``, gets
    batch_size / size rows.
    """
    own_rows = rows_of_rank(batch_size, shard)
    for part in dataset.parts:
        end = part.first_example + len(part.arrays.inputs)
        own = np.arange(part.first_example, end)
        if chosen is not None:
            own = np.intersect1d(own, chosen)
        for start in range(0, len(own), batch_size):
            examples = own[start : start + batch_size]
            mine, size = examples[own_rows], own_rows.stop - own_rows.start
            batch = dataset.batch(mine, dataset.owners(mine), size)
            yield part.name, batch, len(examples)


def total_steps(metadata: DatasetMetadata, epochs: int, batch_size: int) -> int:
    """Training steps of a run, floor(epochs * groups * mean_puzzle_examples / batch_size)."""
    return int(epochs * metadata.total_groups * metadata.mean_puzzle_examples / batch_size)


def generator_at(seed: int, *place: int) -> np.random.Generator:
    """A generator that depends on the seed and a place in the data, not on earlier draws."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=place)))


def rows_of_rank(batch_size: int, shard: tuple[int, int]) -> slice:
    """Return which rows of a global batch belong to a process, ``shard=(rank, size)``.

    Raises:
        InputError: the rows do not divide among the processes.
    """
    rank, size = shard
    if batch_size < 1 or batch_size % size:
        raise InputError(
            f"global_batch_size {batch_size} cannot be split over {size} ranks; "
            f"use a positive multiple of {size}"
        )
    rows = batch_size // size
    return slice(rank * rows, (rank + 1) * rows)


def prefetch(items: Iterable[Item], depth: int = 2) -> Iterator[Item]:
    """Yield ``items`` in order while one thread keeps up to ``depth`` (>= 1) of them ready.

    An exception of ``items`` is raised here, after the items before it. However the consumer stops
    (exhaustion, break, close, KeyboardInterrupt), the thread has ended once this generator is
    closed: it finishes the item it is making and makes no other.
    """
    iterator, end = iter(items), object()
    executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prefetch")
    try:
        # One worker runs the calls one after another, so the items keep their order.
        ready = deque(executor.submit(next, iterator, end) for _ in range(depth))
        while (item := ready.popleft().result()) is not end:
            ready.append(executor.submit(next, iterator, end))
            yield item
    finally:
        executor.shutdown(wait=True, cancel_futures=True)
