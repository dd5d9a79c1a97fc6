"""Test-time compute as one thing: some trajectories of the same puzzle, and a selector.

The first trajectory of a puzzle is always the plain one. Further ones differ from it by noise on a
state before every step (PTRM, arXiv 2605.19943), by random initial states (EqR, arXiv 2605.21488),
or by working on a symmetric image of the puzzle (arXiv 2601.19085), in any combination; they run
one after another, and only until the selector is satisfied.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import mlx.core as mx
import numpy as np

from trm_mlx.errors import InputError, shortened
from trm_mlx.models.act import Carry, replace_rows
from trm_mlx.models.model import Batch


class Attempt(NamedTuple):
    """How one trajectory of a puzzle ended; fields as in ``desk.Finished``.

    passes: whether the answer obeys the rules of its task, None where nobody asked.
    """

    answer: np.ndarray
    steps: int
    confidence: float
    halted: bool
    residual: float
    passes: bool | None = None
    thoughts: tuple = ()


class Selector(NamedTuple):
    """A notion of which answer is right.

    settled: whether more trajectories are needless, from the attempts so far and the number of
    trajectories still allowed; choose: the place of the chosen attempt; meaning: for ``--help``.
    """

    meaning: str
    settled: Callable[[Sequence[Attempt], int], bool]
    choose: Callable[[Sequence[Attempt]], int]


def _best(attempts: Sequence[Attempt], *values: Callable[[Attempt], float]) -> int:
    """The place of the attempt with the largest values, the earliest of equals."""
    scores = [tuple(value(attempt) for value in values) for attempt in attempts]
    return scores.index(max(scores))


def _votes(attempts: Sequence[Attempt]) -> Counter:
    return Counter(attempt.answer.tobytes() for attempt in attempts)


def _outvoted(attempts: Sequence[Attempt], left: int) -> bool:
    """Whether no answer can still overtake the most frequent one."""
    first, second = ([count for _, count in _votes(attempts).most_common(2)] + [0])[:2]
    return first > second + left


def _most_frequent(attempts: Sequence[Attempt]) -> int:
    votes = _votes(attempts)
    return _best(attempts, lambda a: votes[a.answer.tobytes()], lambda a: a.confidence)


SELECTORS = {
    "q": Selector(
        "the highest halting probability; enough when the model halts by itself",
        lambda attempts, left: attempts[-1].halted,
        lambda attempts: _best(attempts, lambda a: a.confidence),
    ),
    "first": Selector(
        "the first to halt, were all to run side by side",
        lambda attempts, left: False,  # but later ones get fewer steps, see `steps_allowed`
        lambda attempts: _best(
            attempts,
            lambda a: -a.steps if a.halted else -math.inf,
            lambda a: 0 if a.halted else a.confidence,
        ),
    ),
    "mode": Selector(
        "the most frequent answer, right ones counting as the same where a puzzle has several; "
        "enough when no other can overtake it",
        _outvoted,
        _most_frequent,
    ),
    "residual": Selector(
        "the smallest change of the states in the last step; runs all trajectories",
        lambda attempts, left: False,
        lambda attempts: _best(attempts, lambda a: -a.residual),
    ),
    "rule": Selector(
        "an answer that obeys the rules of the task, else as q; enough when one does",
        lambda attempts, left: bool(attempts[-1].passes),
        lambda attempts: _best(attempts, lambda a: bool(a.passes), lambda a: a.confidence),
    ),
}


@dataclass(frozen=True, kw_only=True)
class Search:
    """What to try on a puzzle beyond one plain trajectory.

    Args:
        trajectories: at most so many per puzzle, the plain one included.
        noise: standard deviation of Gaussian noise added before every step.
        noise_on: the state it is added to, ``z_L`` or ``z_H``.
        restarts: start from Gaussian states instead of the learned ones.
        symmetries: work on a random symmetric image of the puzzle.
        select: a name in `SELECTORS`.
        seed: of all of this; the same for every batch size.

    Raises:
        InputError: options that contradict each other.
    """

    trajectories: int = 1
    noise: float = 0.0
    noise_on: str = "z_L"
    restarts: bool = False
    symmetries: bool = False
    select: str = "q"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.trajectories < 1:
            raise InputError(f"trajectories {shortened(self.trajectories)}: must be at least 1")
        if not 0 <= self.noise < math.inf:
            raise InputError(f"noise {self.noise}: must be at least 0, and finite")
        if self.select not in SELECTORS:
            raise InputError(
                f"select {shortened(repr(self.select))}: choose one of {', '.join(SELECTORS)}"
            )
        if self.seed < 0:
            raise InputError(f"seed {shortened(self.seed)}: must be at least 0")
        differ = self.noise > 0 or self.restarts or self.symmetries
        if self.trajectories > 1 and not differ:
            raise InputError(
                f"trajectories {shortened(self.trajectories)} would all be the same: "
                "add noise, restarts or symmetries"
            )
        if self.trajectories == 1 and differ:
            raise InputError(
                "noise, restarts and symmetries make further trajectories differ from the first: "
                "set trajectories to at least 2"
            )

    def steps_allowed(self, attempts: Sequence[Attempt], max_steps: int) -> int:
        """Steps of the next trajectory; more could not make it the first to halt."""
        if self.select != "first":
            return max_steps
        return min((a.steps - 1 for a in attempts if a.halted), default=max_steps)

    def settled(self, attempts: Sequence[Attempt], max_steps: int) -> bool:
        """Whether ``attempts``, in the order of their trajectories, are enough."""
        left = self.trajectories - len(attempts)
        if left == 0 or self.steps_allowed(attempts, max_steps) == 0:
            return True
        return SELECTORS[self.select].settled(attempts, left)


# For a puzzle that is to be solved, by a task whose rules can be checked: most need one trajectory.
THOROUGH = Search(trajectories=16, restarts=True, symmetries=True, select="rule")


@dataclass(frozen=True)
class Perturbation:
    """The states of the perturbed rows before a step; a row's randomness is its job's alone."""

    noisy: tuple[str, ...]  # states that get noise
    noise: float
    restarts: bool

    @classmethod
    def of(cls, search: Search, states: Sequence[str]) -> "Perturbation":
        """For a model with these states.

        Raises:
            InputError: it has none that ``noise_on`` names.
        """
        noisy = tuple(name for name in states if name.startswith(search.noise_on))
        if search.noise and not noisy:
            raise InputError(
                f"noise_on {shortened(search.noise_on)}: this model has the states "
                f"{', '.join(states)}"
            )
        return cls(noisy if search.noise else (), search.noise, search.restarts)

    def __call__(self, carry: Carry, fresh: mx.array) -> Batch:
        """The states to go on from; ``fresh [B]``: rows that have just begun."""
        states, perturbed = dict(carry.states), carry.batch["perturbed"]
        if self.restarts:
            # Step 0 of a row's randomness, the noise before step t has the t-th.
            drawn = _gaussian(carry, mx.zeros_like(carry.steps), len(states))
            for place, (name, state) in enumerate(states.items()):
                start = drawn[:, place].astype(state.dtype)
                states[name] = replace_rows(perturbed & fresh, start, state)
        if self.noisy:
            drawn = self.noise * _gaussian(carry, carry.steps + 1, len(self.noisy))
            for place, name in enumerate(self.noisy):
                moved = states[name] + drawn[:, place].astype(states[name].dtype)
                states[name] = replace_rows(perturbed, moved, states[name])
        return states


def _gaussian(carry: Carry, moment: mx.array, count: int) -> mx.array:
    """Standard normal ``[B, count, L, D]``; each row from its own key and its ``moment [B]``."""
    shape = (count, *next(iter(carry.states.values())).shape[1:])
    keys = carry.batch["key"]
    keys = mx.stack([keys[:, 0], keys[:, 1] ^ moment.astype(mx.uint32)], axis=1)
    return mx.vmap(lambda key: mx.random.normal(shape, key=key))(keys)
