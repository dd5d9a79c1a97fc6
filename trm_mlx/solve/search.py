"""Test-time compute: several trajectories of the same puzzle, and a selector among their answers.

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

from trm_mlx.argument_types import check_types
from trm_mlx.errors import InputError
from trm_mlx.models.act import Carry, replace_rows
from trm_mlx.models.model import Batch


class StepOutput(NamedTuple):
    """A puzzle after one supervision step.

    answer: tokens ``[S]``; confidence: the halting probability; cell_confidence: probability of
    each token, float32 ``[S]``; states: every state by name, float32 ``[L, D]``, where kept.
    """

    answer: np.ndarray
    confidence: float
    cell_confidence: np.ndarray
    states: dict[str, np.ndarray]


@dataclass(frozen=True, kw_only=True, eq=False)
class Trajectory:
    """The result of one trajectory of a puzzle.

    answer: tokens ``[S]``; steps: supervision steps taken; confidence: the halting probability
    after the last; halted: whether the model stopped by itself, not at the limit; residual: root
    mean square change of the states in the last step; passes: whether the answer obeys the rules
    of the task, None where no selector checks them; outputs: every step, where kept.
    """

    answer: np.ndarray
    steps: int
    confidence: float
    halted: bool
    residual: float
    passes: bool | None = None
    outputs: tuple[StepOutput, ...] = ()


class Selector(NamedTuple):
    """A rule for choosing an answer.

    settled: whether more trajectories are needless, from those so far and the number of those
    still allowed; choose: the index of the chosen one; meaning: for ``--help``.
    """

    meaning: str
    settled: Callable[[Sequence[Trajectory], int], bool]
    choose: Callable[[Sequence[Trajectory]], int]


def _best(trajectories: Sequence[Trajectory], *values: Callable[[Trajectory], float]) -> int:
    """The index of the trajectory with the largest values, the earliest of equals."""
    scores = [tuple(value(trajectory) for value in values) for trajectory in trajectories]
    return scores.index(max(scores))


def _votes(trajectories: Sequence[Trajectory]) -> Counter:
    return Counter(trajectory.answer.tobytes() for trajectory in trajectories)


def _outvoted(trajectories: Sequence[Trajectory], left: int) -> bool:
    """Whether no answer can still overtake the most frequent one."""
    first, second = ([count for _, count in _votes(trajectories).most_common(2)] + [0])[:2]
    return first > second + left


def _most_frequent(trajectories: Sequence[Trajectory]) -> int:
    votes = _votes(trajectories)
    return _best(trajectories, lambda t: votes[t.answer.tobytes()], lambda t: t.confidence)


SELECTORS = {
    "q": Selector(
        "the highest halting probability; enough when the model halts by itself",
        lambda done, left: done[-1].halted,
        lambda done: _best(done, lambda t: t.confidence),
    ),
    "first": Selector(
        "the first to halt, were all to run side by side",
        lambda done, left: False,  # but later ones get fewer steps, see `steps_allowed`
        lambda done: _best(
            done,
            lambda t: -t.steps if t.halted else -math.inf,
            lambda t: 0 if t.halted else t.confidence,
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
        lambda done, left: False,
        lambda done: _best(done, lambda t: -t.residual),
    ),
    "rule": Selector(
        "the first answer that obeys the rules of the task; where none does, as q",
        lambda done, left: bool(done[-1].passes),
        lambda done: _best(done, lambda t: bool(t.passes), lambda t: t.confidence),
    ),
}


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """The trajectories to run on a puzzle, and how to choose among their answers.

    Args:
        trajectories: at most so many per puzzle, the plain one included.
        noise: standard deviation of Gaussian noise added before every step.
        noise_on: the state it is added to, ``z_L`` or ``z_H``.
        restarts: start from Gaussian states instead of the learned ones.
        symmetries: work on a random symmetric image of the puzzle.
        select: a name in `SELECTORS`.
        seed: of all randomness; results do not depend on the batch size.

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
        check_types(SearchConfig, vars(self))
        if self.trajectories < 1:
            raise InputError(f"trajectories {self.trajectories}: must be at least 1")
        if not 0 <= self.noise < math.inf:
            raise InputError(f"noise {self.noise}: must be at least 0, and finite")
        if self.select not in SELECTORS:
            raise InputError(f"select {self.select!r}: choose one of {', '.join(SELECTORS)}")
        if self.seed < 0:
            raise InputError(f"seed {self.seed}: must be at least 0")
        differ = self.noise > 0 or self.restarts or self.symmetries
        if self.trajectories > 1 and not differ:
            raise InputError(
                f"trajectories {self.trajectories} would all be the same: "
                "add noise, restarts or symmetries"
            )
        if self.trajectories == 1 and differ:
            raise InputError(
                "noise, restarts and symmetries make further trajectories differ from the first: "
                "set trajectories to at least 2"
            )

    def steps_allowed(self, done: Sequence[Trajectory], max_steps: int) -> int:
        """Steps of the next trajectory; more could not make it the first to halt."""
        if self.select != "first":
            return max_steps
        return min((t.steps - 1 for t in done if t.halted), default=max_steps)

    def settled(self, done: Sequence[Trajectory], max_steps: int) -> bool:
        """Whether the trajectories ``done``, in their order, are enough."""
        left = self.trajectories - len(done)
        if left == 0 or self.steps_allowed(done, max_steps) == 0:
            return True
        return SELECTORS[self.select].settled(done, left)


# For tasks whose rules can be checked; most puzzles need one trajectory.
DEFAULT_SEARCH = SearchConfig(trajectories=16, restarts=True, symmetries=True, select="rule")


@dataclass(frozen=True)
class Perturbation:
    """Restarts and noise of the perturbed rows; a row's randomness depends on its job alone."""

    noisy: tuple[str, ...]  # states that get noise
    noise: float
    restarts: bool

    @classmethod
    def of(cls, search: SearchConfig, states: Sequence[str]) -> "Perturbation":
        """The perturbation that a search asks for, of a model with these states.

        Raises:
            InputError: it has none that ``noise_on`` names.
        """
        noisy = tuple(name for name in states if name.startswith(search.noise_on))
        if search.noise and not noisy:
            raise InputError(
                f"noise_on {search.noise_on}: this model has the states {', '.join(states)}"
            )
        return cls(noisy if search.noise else (), search.noise, search.restarts)

    def __call__(self, carry: Carry, fresh: mx.array) -> Batch:
        """The states before a step; ``fresh [B]``: rows that take their first step."""
        states, perturbed = dict(carry.states), carry.batch["perturbed"]
        if self.restarts:
            # Moment 0 of a row's key; the noise before step t has moment t.
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
