"""Adaptive computation time: the state of a batch between supervision steps, and its halting.

One call of a model is one supervision step. A row of the batch keeps its puzzle and its states
until it halts; then it takes the row of the next batch (HRM, arXiv 2506.21734, section 2).
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import mlx.core as mx

from trm_mlx.config import ArchConfig
from trm_mlx.errors import InputError


class Carry(NamedTuple):
    """The state of a batch between supervision steps.

    states: each ``[batch, length, dims]``, detached; steps: int32 ``[batch]``, supervision steps
    taken; halted: bool ``[batch]``; batch: the arrays each row is working on.
    """

    states: dict[str, mx.array]
    steps: mx.array
    halted: mx.array
    batch: dict[str, mx.array]


def replace_rows(halted: mx.array, new: mx.array, old: mx.array) -> mx.array:
    """``new`` in the halted rows, ``old`` in the others."""
    return mx.where(halted.reshape(-1, *[1] * (old.ndim - 1)), new, old)


def random_starts(
    carry: Carry,
    begins: mx.array,
    share: float,
    key: mx.array,
    shard: tuple[int, int] = (0, 1),
) -> Carry:
    """Replace the initial states of some rows that begin a puzzle by Gaussian noise.

    The model then learns to reach the answer from any state (EqR, arXiv 2605.21488).

    Args:
        begins: bool ``[batch]``, rows that have taken a new puzzle.
        share: the fraction of those rows to replace, from 0 to 1.
        shard: see `halting_rows`.
    """
    own, count = rows_of_shard(begins.size, shard)
    chance_key, *state_keys = mx.random.split(key, 1 + len(carry.states))
    rows = begins & (mx.random.uniform(shape=(count,), key=chance_key)[own] < share)
    keys = dict(zip(sorted(carry.states), state_keys, strict=True))

    def start(name: str, state: mx.array) -> mx.array:
        drawn = mx.random.normal((count, *state.shape[1:]), state.dtype, key=keys[name])
        return replace_rows(rows, drawn[own], state)

    return carry._replace(states={name: start(name, s) for name, s in carry.states.items()})


def rows_of_shard(size: int, shard: tuple[int, int]) -> tuple[slice, int]:
    """The place of a shard's ``size`` rows in the global batch, and the rows of that batch."""
    rank, shards = shard
    return slice(rank * size, (rank + 1) * size), shards * size


def halting_rows(
    arch: ArchConfig,
    steps: mx.array,
    q_halt: mx.array,
    q_continue: mx.array,
    training: bool,
    key: mx.array | None,
    shard: tuple[int, int] = (0, 1),
) -> mx.array:
    """Return which rows halt after this step, bool ``[batch]``.

    Evaluation runs every row to ``halt_max_steps``. Training halts a row whose logit says so, but
    with probability ``halt_exploration_prob`` not before a minimum drawn from
    {2 .. halt_max_steps}.

    Args:
        shard: ``(rank, size)``, where the rows are one of ``size`` equal parts of a larger batch; a
            row draws what it would draw in the whole batch.

    Raises:
        InputError: training with exploration and no ``key``.
    """
    last = steps >= arch.halt_max_steps
    if not training or arch.halt_max_steps == 1:
        return last
    halted = last | (q_halt > (0.0 if arch.no_ACT_continue else q_continue))
    if arch.halt_exploration_prob > 0:
        if key is None:
            raise InputError("training explores: pass key=mx.random.key(...) or call model.eval()")
        rows, count = rows_of_shard(steps.size, shard)
        chance_key, length_key = mx.random.split(key)
        chance = mx.random.uniform(shape=(count,), key=chance_key)[rows]
        explores = chance < arch.halt_exploration_prob
        longest = arch.halt_max_steps + 1
        least = mx.random.randint(2, longest, (count,), key=length_key)[rows]
        halted = halted & (steps >= mx.where(explores, least, 0))
    return halted


def continue_target(
    arch: ArchConfig, steps: mx.array, next_q_halt: mx.array, next_q_continue: mx.array
) -> mx.array:
    """Return the target of ``q_continue``, ``[batch]``: the value of the best next choice."""
    last = steps >= arch.halt_max_steps
    return mx.sigmoid(mx.where(last, next_q_halt, mx.maximum(next_q_halt, next_q_continue)))


def halting_logit(arch: ArchConfig, outputs: dict[str, mx.array]) -> mx.array:
    """Return the logit of halting, ``[batch]``: the model would halt where it is above 0."""
    q_halt = outputs["q_halt_logits"]
    return q_halt if arch.no_ACT_continue else q_halt - outputs["q_continue_logits"]


def unroll(step: Callable, carry: Carry, batch: dict[str, mx.array], steps: int) -> Iterator[tuple]:
    """Run the same number of supervision steps for every row of a batch.

    A row that would halt goes on. Yields the result of ``step(carry, batch)``, a carry first, for
    every step, already dispatched to the device.
    """
    for _ in range(steps):
        carry, *results = step(carry, batch)
        # A halted row would start anew with the next call.
        carry = carry._replace(halted=mx.zeros_like(carry.halted))
        mx.async_eval(carry, results)
        yield carry, *results
