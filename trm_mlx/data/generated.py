"""Training batches of puzzles that are made when they are needed, and never stored."""

from collections.abc import Callable, Iterator

import numpy as np

from trm_mlx.data.dataset import Batch
from trm_mlx.data.sampler import Position, generator_at
from trm_mlx.errors import InputError

Make = Callable[[int, np.random.Generator], Batch]  # a batch of so many rows


class GeneratedStream:
    """An endless stream of new batches, cut into intervals like a `sampler.TrainStream`.

    An epoch is `puzzles_per_epoch` puzzles; the position's offset counts those of the epoch that
    are used. A batch is made from randomness of its own, that of the seed and the position it
    starts at, so a stream built with a position goes on identically.

    Raises InputError if an interval holds no batch, or the position lies outside the epoch.
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
        self.position = {"epoch": 0, "offset": 0} if position is None else dict(position)
        epoch, offset = self.position.get("epoch", -1), self.position.get("offset", -1)
        if epoch < 0 or not 0 <= offset < puzzles_per_epoch:
            raise InputError(
                f"data position {position} does not fit puzzles_per_epoch={puzzles_per_epoch}; "
                "resume with that of the checkpoint"
            )

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
