"""The recursive core: which state is updated from which, by which net, and where gradients begin.

A variant is a `Recursion`; `recurse` executes any of them. No parameters live here: pure functions
of (updates, nets, states, x), so they can be tested with a lambda for the net.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import NamedTuple

import mlx.core as mx

INPUT = "x"


class Update(NamedTuple):
    """``target <- net(sum of sources + sum of inject)``; ``"x"`` is the embedded input.

    The two sums stay apart so that the order of additions, and so every rounding, is the
    published one: ``z_L + (z_H + x)``.
    """

    target: str
    sources: tuple[str, ...]
    inject: tuple[str, ...] = ()
    net: str = "L_level"


@dataclass(frozen=True)
class Recursion:
    """One supervision step: ``cycle`` repeated ``cycles`` times.

    The last ``grad_updates`` updates are differentiated, all earlier ones are not. ``readout``
    names the state that the heads read.
    """

    cycle: tuple[Update, ...]
    cycles: int
    grad_updates: int
    readout: str

    @property
    def free_updates(self) -> tuple[Update, ...]:
        """The updates outside the gradient."""
        return self._updates[: -self.grad_updates]

    @property
    def in_grad_updates(self) -> tuple[Update, ...]:
        """The updates inside the gradient."""
        return self._updates[-self.grad_updates :]

    @property
    def nets(self) -> tuple[str, ...]:
        return tuple(sorted({update.net for update in self.cycle}))

    @property
    def states(self) -> tuple[str, ...]:
        """Every state an update reads or writes, in a fixed order."""
        names = {
            name
            for update in self.cycle
            for name in (update.target, *update.sources, *update.inject)
        }
        return tuple(sorted(names - {INPUT}))

    @property
    def _updates(self) -> tuple[Update, ...]:
        return self.cycle * self.cycles


def recurse(
    updates: Sequence[Update],
    nets: Mapping[str, Callable[[mx.array], mx.array]],
    states: Mapping[str, mx.array],
    x: mx.array,
) -> dict[str, mx.array]:
    """Apply ``updates`` in order and return the new states, each ``[batch, length, dims]``."""
    values = {**states, INPUT: x}
    sums: dict[tuple[str, ...], mx.array] = {}  # of injected states, until one of them changes
    for update in updates:
        hidden = reduce(add, (values[name] for name in update.sources))
        if update.inject:
            if update.inject not in sums:
                sums[update.inject] = reduce(add, (values[name] for name in update.inject))
            hidden = hidden + sums[update.inject]
        values[update.target] = nets[update.net](hidden)
        sums = {names: total for names, total in sums.items() if update.target not in names}
    del values[INPUT]
    return values
