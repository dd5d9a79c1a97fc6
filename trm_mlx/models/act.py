"""Adaptive computation time: what a batch carries from one supervision step to the next.

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
    part: tuple[int, int] = (0, 1),
) -> Carry:
    """Give a share of the rows that begin a puzzle Gaussian states instead of the learned ones.

    The model then learns to come to the answer from anywhere (EqR, arXiv 2605.21488).

    Args:
        begins: bool ``[batch]``, rows that have taken a new puzzle.
        share: of those rows, from 0 to 1.
        part: see `halting_rows`.
    """
    own, count = part_rows(begins.size, part)
    chance_key, *state_keys = mx.random.split(key, 1 + len(carry.states))
    rows = begins & (mx.random.uniform(shape=(count,), key=chance_key)[own] < share)
    keys = dict(zip(sorted(carry.states), state_keys, strict=True))

    def start(name: str, state: mx.array) -> mx.array:
        drawn = mx.random.normal((count, *state.shape[1:]), state.dtype, key=keys[name])
        return replace_rows(rows, drawn[own], state)

    return carry._replace(states={name: start(name, s) for name, s in carry.states.items()})


def part_rows(size: int, part: tuple[int, int]) -> tuple[slice, int]:
    """Where the ``size`` rows of a part are in the whole batch, and how many rows that has."""
    number, parts = part
    return slice(number * size, (number + 1) * size), parts * size


def halting_rows(
    arch: ArchConfig,
    steps: mx.array,
    q_halt: mx.array,
    q_continue: mx.array,
    training: bool,
    key: mx.array | None,
    part: tuple[int, int] = (0, 1),
) -> mx.array:
    """Which rows halt after this step, bool ``[batch]``.

    Evaluation runs every row to ``halt_max_steps``. Training halts a row that says so, but with
    probability ``halt_exploration_prob`` not before a minimum drawn from {2 .. halt_max_steps}.

    Args:
        part: the rows are the first of two equal parts of a larger batch for ``(0, 2)``, and so on;
            what is drawn for a row is what it would be in the whole batch.

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
        rows, count = part_rows(steps.size, part)
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
    """What ``q_continue`` should be, ``[batch]``: the value of the best choice one step later."""
    last = steps >= arch.halt_max_steps
    return mx.sigmoid(mx.where(last, next_q_halt, mx.maximum(next_q_halt, next_q_continue)))


def halting_logit(arch: ArchConfig, outputs: dict[str, mx.array]) -> mx.array:
    """How much a model prefers halting to going on, ``[batch]``: it would halt above 0."""
    q_halt = outputs["q_halt_logits"]
    return q_halt if arch.no_ACT_continue else q_halt - outputs["q_continue_logits"]


def unroll(step: Callable, carry: Carry, batch: dict[str, mx.array], steps: int) -> Iterator[tuple]:
    """Take every row of a batch through the same number of supervision steps.

    A row that would halt goes on. Yields what ``step(carry, batch)`` returns, a carry first, for
    every step, already dispatched to the device.
    """
    for _ in range(steps):
        carry, *results = step(carry, batch)
        # A halted row would start anew with the next call.
        carry = carry._replace(halted=mx.zeros_like(carry.halted))
        mx.async_eval(carry, results)
        yield carry, *results
