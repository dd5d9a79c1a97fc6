"""The processes that train together, each on its rows of one global batch.

``mlx.launch`` starts them and MLX's own engine (``mx.distributed``) carries their messages: over
sockets or Thunderbolt between Macs and CPUs, NCCL between NVIDIA GPUs. All processes must make the
same calls in the same order. In a world of one, arrays are returned as they are.

Each call is one message. When a process dies, the message under way fails in the others. MLX (0.32)
would compute on with whatever that left in memory, a segmentation fault if it was indices, and its
ring would wait forever for another message. So each message is waited for before the next is sent,
except on NVIDIA GPUs, where NCCL's messages are queued like any other work.
"""

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten, tree_map

from trm_mlx import device
from trm_mlx.errors import InputError

Rows = TypeVar("Rows", mx.array, np.ndarray)

# What the errors of MLX's engines begin with; the last is of a ring that lost two messages at once.
_ENGINES = ("[ring]", "[jaccl]", "[nccl]", "std::future_error")


class World(NamedTuple):
    """This process's ``rank``, from 0, among ``size`` processes."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes and prints for all."""
        return self.rank == 0

    @property
    def waits(self) -> bool:
        """Whether messages are waited for, so that no compiled function can hold them."""
        return self.size > 1 and device.device_kind() != "cuda"

    def shard(self, rows: Rows) -> Rows:
        """Return this process's part of ``rows``, whose number ``size`` divides."""
        count = len(rows) // self.size
        return rows[self.rank * count : (self.rank + 1) * count]

    def sum(self, tree: Any) -> Any:
        """Sum each array of a tree, all of one dtype, over the processes."""
        if self.size == 1:
            return tree
        flat = [array.reshape(-1) for _, array in tree_flatten(tree)]
        parts = _split(self._wait(mx.distributed.all_sum(mx.concatenate(flat))), flat)
        return _like(tree, lambda part, array: part.reshape(array.shape), parts)

    def gather(self, tree: Any, after: mx.array | None = None) -> Any:
        """Concatenate each array ``[n, ...]`` of a tree over the processes, in the order of ranks.

        Nothing is sent before ``after`` is computed, which keeps messages in order.
        """
        if self.size == 1:
            return tree
        flat = _bytes(tree)
        message = mx.concatenate(flat)[None]
        if after is not None:
            (message,) = mx.depends([message], [after])
        parts = _split(self._wait(mx.distributed.all_gather(message)), flat)
        return _like(
            tree,
            lambda part, array: part.reshape(-1).view(array.dtype).reshape(-1, *array.shape[1:]),
            parts,
        )

    def broadcast(self, tree: Any) -> Any:
        """Return the arrays of the main process, bit for bit, in every process."""
        if self.size == 1:
            return tree
        # An array of 8-byte numbers must begin at a multiple of 8.
        flat = [mx.pad(array, (0, -array.size % 8)) for array in _bytes(tree)]
        message = mx.concatenate(flat)
        shown = message if self.is_main else mx.zeros_like(message)
        parts = _split(self._wait(mx.distributed.all_sum(shown)), flat)
        return _like(
            tree,
            lambda part, array: part[: array.nbytes].view(array.dtype).reshape(array.shape),
            parts,
        )

    def _wait(self, message: mx.array) -> mx.array:
        if self.waits:
            mx.eval(message)
        return message

    def check_same(self, what: str, numbers: list[int], remedy: str) -> None:
        """Raise InputError, in every process, unless all of them have the same numbers."""
        everyones = self.gather(mx.array([numbers], mx.int32)).tolist()
        if any(others != everyones[0] for others in everyones):
            raise InputError(f"the processes differ in {what} {everyones}: {remedy}")

    @contextmanager
    def reraise_lost_peer(self, remedy: str) -> Iterator[None]:
        """Turn the loss of another process into one line that ends with ``remedy``.

        Raises:
            InputError: another process has ended before its work was done.
        """
        try:
            yield
        except RuntimeError as error:
            if not str(error).startswith(_ENGINES):
                raise
            raise InputError(f"another process of the run has ended ({error}): {remedy}") from error


SINGLE = World()


def _bytes(tree: Any) -> list[mx.array]:
    return [array.reshape(-1).view(mx.uint8) for _, array in tree_flatten(tree)]


def _split(message: mx.array, flat: list[mx.array]) -> list[mx.array]:
    """Split a message along its last axis into arrays of the sizes of ``flat``."""
    ends = list(itertools.accumulate(array.size for array in flat))
    return mx.split(message, ends[:-1], axis=-1)


def _like(tree: Any, restore: Callable[[mx.array, mx.array], mx.array], parts: list) -> Any:
    """Build a tree like the given one, its parts restored to the types and shapes there."""
    following = iter(parts)
    return tree_map(lambda array: restore(next(following), array), tree)


def connect() -> World:
    """Return the world of the processes that ``mlx.launch`` started; without it, `SINGLE`.

    Raises:
        InputError: the others cannot be reached.
    """
    if "MLX_RANK" not in os.environ:
        return SINGLE
    try:
        group = mx.distributed.init(strict=True)
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"cannot join the other processes ({error}): check the hosts and ports given to "
            "mlx.launch; for one process, start it without mlx.launch"
        ) from error
    return World(group.rank(), group.size())
