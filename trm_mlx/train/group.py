"""The processes that train together, each on its rows of one global batch.

``mlx.launch`` starts them and MLX's own engine (``mx.distributed``) carries their messages: over
sockets or Thunderbolt between Macs and CPUs, NCCL between NVIDIA GPUs. All processes must make the
same calls in the same order. Alone, a process gets back what it gave, and nothing is sent.
"""

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten, tree_map, tree_unflatten

from trm_mlx.errors import InputError

Rows = TypeVar("Rows", mx.array, np.ndarray)

_ENGINES = ("[ring]", "[jaccl]", "[nccl]")  # whose errors MLX begins with their name


class Group(NamedTuple):
    """This process's place among ``size`` processes: ``rank``, from 0."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes and speaks for all."""
        return self.rank == 0

    def own(self, rows: Rows) -> Rows:
        """This process's part of ``rows``, whose number the group's size divides."""
        count = len(rows) // self.size
        return rows[self.rank * count : (self.rank + 1) * count]

    def sum(self, tree: Any) -> Any:
        """A tree of arrays of one dtype, each added up over the processes, in one message."""
        if self.size == 1:
            return tree
        names, arrays = zip(*tree_flatten(tree), strict=True)
        message = mx.concatenate([array.reshape(-1) for array in arrays])
        ends = list(itertools.accumulate(array.size for array in arrays))
        parts = mx.split(mx.distributed.all_sum(message), ends[:-1])
        parts = (part.reshape(array.shape) for part, array in zip(parts, arrays, strict=True))
        return tree_unflatten(list(zip(names, parts, strict=True)))

    def gather(self, rows: mx.array) -> mx.array:
        """The rows ``[n, ...]`` of all processes in their order, ``[size * n, ...]``."""
        if self.size == 1:
            return rows
        if rows.dtype == mx.bool_:  # which NCCL does not carry
            return self.gather(rows.astype(mx.uint8)).astype(mx.bool_)
        return mx.distributed.all_gather(rows)

    def leaders(self, tree: Any) -> Any:
        """The leading process's arrays, bit for bit, in place of those of each."""
        if self.size == 1:
            return tree

        def taken_over(array: mx.array) -> mx.array:
            mine = array.reshape(-1).view(mx.uint8)
            shown = mine if self.leads else mx.zeros_like(mine)
            return mx.distributed.all_sum(shown).view(array.dtype).reshape(array.shape)

        return tree_map(taken_over, tree)

    def check_same(self, what: str, numbers: list[int], remedy: str) -> None:
        """Raises InputError, in every process, unless all of them have the same numbers."""
        everyones = self.gather(mx.array([numbers], mx.int32)).tolist()
        if any(others != everyones[0] for others in everyones):
            raise InputError(f"the processes differ in {what} {everyones}: {remedy}")

    @contextmanager
    def together(self, remedy: str) -> Iterator[None]:
        """Turns the loss of another process into one line that ends with ``remedy``.

        Raises:
            InputError: another process has ended before its work was done.
        """
        try:
            yield
        except RuntimeError as error:
            if not str(error).startswith(_ENGINES):
                raise
            raise InputError(f"another process of the run has ended ({error}): {remedy}") from error


ALONE = Group()


def connect() -> Group:
    """The group of the processes that ``mlx.launch`` started; without it, this process alone.

    Raises:
        InputError: the others cannot be reached.
    """
    if "MLX_RANK" not in os.environ:
        return ALONE
    try:
        world = mx.distributed.init(strict=True)
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"cannot join the other processes ({error}): check the hosts and ports given to "
            "mlx.launch; for one process, start it without mlx.launch"
        ) from error
    return Group(world.rank(), world.size())
