"""The processes that train together, each on its rows of one global batch.

``mlx.launch`` starts them and MLX's own engine (``mx.distributed``) carries their messages: over
sockets or Thunderbolt between Macs and CPUs, NCCL between NVIDIA GPUs. All processes must make the
same calls in the same order. Alone, a process gets back what it gave, and nothing is sent.

Each call is one message. When a process dies, the message under way fails in the others. MLX (0.32)
would compute on with whatever that left in memory, a segmentation fault if it was indices, and its
ring wait forever for another message. So each is waited for, with nothing behind it, but on NVIDIA
GPUs, where NCCL's messages are work like any other.
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
    """This process's place among ``size`` processes: ``rank``, from 0."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes and speaks for all."""
        return self.rank == 0

    @property
    def waits(self) -> bool:
        """Whether messages are waited for, so that no compiled function can hold them."""
        return self.size > 1 and device.device_kind() != "cuda"

    def shard(self, rows: Rows) -> Rows:
        """This process's part of ``rows``, whose number the group's size divides."""
        count = len(rows) // self.size
        return rows[self.rank * count : (self.rank + 1) * count]

    def sum(self, tree: Any) -> Any:
        """A tree of arrays of one dtype, each added up over the processes."""
        if self.size == 1:
            return tree
        flat = [array.reshape(-1) for _, array in tree_flatten(tree)]
        parts = _split(self._wait(mx.distributed.all_sum(mx.concatenate(flat))), flat)
        return _like(tree, lambda part, array: part.reshape(array.shape), parts)

    def gather(self, tree: Any, after: mx.array | None = None) -> Any:
        """A tree of arrays ``[n, ...]``, each with the rows of all processes in their order.

        Nothing is sent before ``after`` is there, which keeps messages in order.
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
        """The leading process's arrays, bit for bit, in place of those of each."""
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
        """Raises InputError, in every process, unless all of them have the same numbers."""
        everyones = self.gather(mx.array([numbers], mx.int32)).tolist()
        if any(others != everyones[0] for others in everyones):
            raise InputError(f"the processes differ in {what} {everyones}: {remedy}")

    @contextmanager
    def reraise_lost_peer(self, remedy: str) -> Iterator[None]:
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


SINGLE = World()


def _bytes(tree: Any) -> list[mx.array]:
    return [array.reshape(-1).view(mx.uint8) for _, array in tree_flatten(tree)]


def _split(message: mx.array, flat: list[mx.array]) -> list[mx.array]:
    """A message of flat arrays, along its last axis into those again."""
    ends = list(itertools.accumulate(array.size for array in flat))
    return mx.split(message, ends[:-1], axis=-1)


def _like(tree: Any, restore: Callable[[mx.array, mx.array], mx.array], parts: list) -> Any:
    """A tree like the given one, of parts that are given the type and shape of its arrays."""
    following = iter(parts)
    return tree_map(lambda array: restore(next(following), array), tree)


def connect() -> World:
    """The group of the processes that ``mlx.launch`` started; without it, this process alone.

    Raises:
        InputError: the others cannot be reached.
    """
    if "MLX_RANK" not in os.environ:
        return SINGLE
    try:
        world = mx.distributed.init(strict=True)
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"cannot join the other processes ({error}): check the hosts and ports given to "
            "mlx.launch; for one process, start it without mlx.launch"
        ) from error
    return World(world.rank(), world.size())
