"""Adaptive computation time: the state of a batch between supervision steps, and its halting.

One call of a model is one supervision step. A row of the batch keeps its puzzle and its states
until it halts; then it takes the row of the next batch (HRM, arXiv 2506.21734, section 2). While
puzzles are solved, ``solve/batcher.py`` decides when a row halts, by a threshold.
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


def draw_least_steps(
    arch: ArchConfig, rows: int, key: mx.array | None, shard: tuple[int, int] = (0, 1)
) -> mx.array | None:
    """Draw the exploration of a training step: the steps a row must take, int32 ``[rows]``.

    With probability ``halt_exploration_prob`` a number from {2 .. halt_max_steps}, otherwise 0.
    None where the variant does not explore.

    Args:
        shard: ``(rank, size)``, where the rows are one of ``size`` equal parts of a larger batch; a
            row draws what it would draw in the whole batch.

    Raises:
        InputError: there is no ``key`` to draw with.
    """
    if arch.halt_max_steps == 1 or arch.halt_exploration_prob == 0:
        return None
    if key is None:
        raise InputError("training explores: pass key=mx.random.key(...) or call model.eval()")
    own, count = rows_of_shard(rows, shard)
    chance_key, length_key = mx.random.split(key)
    explores = mx.random.uniform(shape=(count,), key=chance_key) < arch.halt_exploration_prob
    least = mx.random.randint(2, arch.halt_max_steps + 1, (count,), key=length_key)
    return mx.where(explores, least, 0)[own]


def draw_dropout(
    arch: ArchConfig, rows: int, key: mx.array | None, shard: tuple[int, int] = (0, 1)
) -> mx.array | None:
    """Draw a key of dropout for every row, ``[rows, 2]``; None for a model without dropout.

    Args:
        arch: of the model.
        rows: of this shard.
        key: the randomness of a step.
        shard: see `draw_least_steps`.

    Raises:
        InputError: the model drops, and there is no key.
    """
    if not arch.dropout:
        return None
    if key is None:
        raise InputError("training drops: pass key=mx.random.key(...) or call model.eval()")
    own, count = rows_of_shard(rows, shard)
    # The third of three keys is none of the two that exploration splits it into.
    return mx.random.split(mx.random.split(key, 3)[2], count)[own]


class Starts(NamedTuple):
    """Random initial states: ``chosen`` rows, bool ``[rows]``, and ``states [rows, L, D]``."""

    chosen: mx.array
    states: dict[str, mx.array]


def draw_starts(
    states: dict[str, mx.array], share: float, key: mx.array, shard: tuple[int, int] = (0, 1)
) -> Starts:
    """Draw Gaussian initial states for a fraction ``share`` of the rows that begin a puzzle.

    The model then learns to reach the answer from any state (EqR, arXiv 2605.21488).

    Args:
        states: arrays of the shapes and types to draw.
        shard: see `draw_least_steps`.
    """
    rows = len(next(iter(states.values())))
    own, count = rows_of_shard(rows, shard)
    chance_key, *state_keys = mx.random.split(key, 1 + len(states))
    chosen = mx.random.uniform(shape=(count,), key=chance_key)[own] < share
    keys = dict(zip(sorted(states), state_keys, strict=True))
    drawn = {
        name: mx.random.normal((count, *state.shape[1:]), state.dtype, key=keys[name])[own]
        for name, state in states.items()
    }
    return Starts(chosen, drawn)


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
    least_steps: mx.array | None = None,
) -> mx.array:
    """Return which rows halt after this step, bool ``[batch]``.

    Evaluation runs every row to ``halt_max_steps``. Training halts a row whose logit says so, but
    not before ``least_steps`` of `draw_least_steps`.
    """
    last = steps >= arch.halt_max_steps
    if not training or arch.halt_max_steps == 1:
        return last
    halted = last | (q_halt > (0.0 if arch.no_ACT_continue else q_continue))
    return halted if least_steps is None else halted & (steps >= least_steps)


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
    every step, already dispatched to the device. A step is dispatched while the one before it runs,
    and no further ahead: the arrays of all of them would be held.
    """
    for _ in range(steps):
        running = carry
        carry, *results = step(carry, batch)
        # A halted row would start anew with the next call.
        carry = carry._replace(halted=mx.zeros_like(carry.halted))
        mx.async_eval(carry, results)
        mx.eval(running)
        yield carry, *results
