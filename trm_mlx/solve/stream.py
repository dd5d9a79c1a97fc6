"""Many jobs through a batch of few rows: a row that halts takes the next job with its next step.

Which row takes which job is decided on the device, by the carry that also serves training
(``models/act.py``): the batch brings a pool of waiting jobs, and the n-th halted row takes the n-th
of them. So the host dispatches step t + 1 before it has read which rows halted in step t, and the
device never waits. Rows without a job hold job number -1.
"""

import math
from collections.abc import Callable, Iterator

import mlx.core as mx

from trm_mlx.models import cpu_kernels
from trm_mlx.models.act import Carry, halting_logit
from trm_mlx.models.model import Batch, RecursiveReasoner
from trm_mlx.solve.desk import Desk, Finished, Job, Reading, Watch
from trm_mlx.solve.refinement import cell_confidence


class Stream:
    """Runs jobs through the rows of one batch.

    Args:
        model: put into evaluation mode by `run`.
        threshold: the confidence above which a row halts; None: every row runs to its limit.
        perturb: ``(carry, fresh [B]) -> states`` before every step, as in `search.Perturbation`.
        keep_thoughts: record every step of every job; then all of it comes to the host.
        keep_states: the states of every step among it.
        compiled: whether to `mx.compile` the step.
    """

    def __init__(
        self,
        model: RecursiveReasoner,
        threshold: float | None,
        perturb: Callable[[Carry, mx.array], Batch],
        keep_thoughts: bool,
        keep_states: bool,
        compiled: bool,
    ):
        self.model, self.perturb = model, perturb
        self.keep_thoughts, self.keep_states = keep_thoughts, keep_states
        self._bound = math.inf if threshold is None else _logit(threshold)
        advance = cpu_kernels.disabled()(self._advance)
        self._step = mx.compile(advance, inputs=model.state) if compiled else self._advance

    def run(
        self, jobs: Iterator[Job | None], rows: int, watch: Watch | None = None
    ) -> Iterator[Finished]:
        """Yield results as they come; the order is that of halting.

        Args:
            jobs: asked for the next one whenever there is room. None says "nothing now, ask again
                after the next results": what it gives may depend on the results so far.
            rows: of the batch.
            watch: told every thought as it comes, where thoughts are kept.
        """
        self.model.eval()
        desk = Desk(jobs, rows, self.model.config.seq_len, watch)
        carry = self.model.initial_carry(desk.pool())
        current, vacant, finished = None, rows, []
        while True:
            desk.fill()
            following = None
            if desk.goes_on():
                carry, following = self._step(carry, desk.pool())
                mx.async_eval(carry, following)
            if current is not None:
                vacant, finished = desk.read(current, self.keep_thoughts)
            if following is not None:
                desk.start(vacant)
            yield from finished
            if current is None and following is None:
                return
            current, finished = following, []

    def _advance(self, carry: Carry, pool: Batch) -> tuple[Carry, Reading]:
        """One supervision step of every row, after the vacant rows have taken from the pool."""
        fresh = carry.halted
        turn = mx.maximum(mx.cumsum(fresh.astype(mx.int32)) - 1, 0)
        carry = self.model.begin(carry, {name: rows[turn] for name, rows in pool.items()})
        carry = carry._replace(halted=mx.zeros_like(fresh))
        carry = carry._replace(states=self.perturb(carry, fresh))
        before, jobs = carry.states, carry.batch
        carry, outputs = self.model(carry, jobs)
        certainty = halting_logit(self.model.config, outputs)
        halted = certainty > self._bound
        vacant = halted | (carry.steps >= jobs["limit"]) | (jobs["number"] < 0)
        reading = Reading(
            vacant,
            jobs["number"],
            mx.argmax(outputs["logits"], axis=-1),
            carry.steps,
            mx.sigmoid(certainty),
            halted,
            _root_mean_square(before, carry.states),
            {"confidence": cell_confidence(outputs["logits"])} if self.keep_thoughts else {},
            {n: s.astype(mx.float32) for n, s in carry.states.items() if self.keep_states},
        )
        return carry._replace(halted=vacant), reading


def _root_mean_square(before: Batch, after: Batch) -> mx.array:
    """Of the change of all states of a row, ``[B]``."""
    squares = [
        mx.square(after[name].astype(mx.float32) - before[name].astype(mx.float32)).mean((1, 2))
        for name in after
    ]
    return mx.sqrt(sum(squares) / len(squares))


def _logit(probability: float) -> float:
    if probability in (0, 1):
        return math.inf if probability else -math.inf
    return math.log(probability / (1 - probability))
