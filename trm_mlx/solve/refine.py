"""All supervision steps of a batch of puzzles, one at a time."""

from collections.abc import Iterator
from typing import NamedTuple

import mlx.core as mx
import numpy as np

from trm_mlx.models.act import halting_logit, unroll
from trm_mlx.models.model import RecursiveReasoner
from trm_mlx.solve.batcher import cell_confidence
from trm_mlx.solve.solver import HALT_THRESHOLD, check_tokens


class Refinement(NamedTuple):
    """A batch after a supervision step.

    step: counted from 1; answers: tokens ``[B, S]``; confidence: probability of each answered
    token ``[B, S]``; halt_probability: ``[B]``; halts: whether `Solver` would stop here by
    default, bool ``[B]``; states: every state, float32 ``[B, L, D]``, by name.
    """

    step: int
    answers: np.ndarray
    confidence: np.ndarray
    halt_probability: np.ndarray
    halts: np.ndarray
    states: dict[str, np.ndarray]


def refine(
    model: RecursiveReasoner,
    inputs: np.ndarray,
    puzzle_identifiers: np.ndarray | None = None,
    max_steps: int | None = None,
) -> Iterator[Refinement]:
    """Work on every puzzle for all supervision steps, yielding each step as it is computed.

    The last step's answers are those of the published evaluation.

    Args:
        model: put into evaluation mode.
        inputs: tokens ``[B, S]``.
        puzzle_identifiers: ``[B]``; all blank by default.
        max_steps: supervision steps; the model's ``halt_max_steps`` by default, more are allowed.

    Raises:
        InputError: inputs that do not fit the model.
    """
    inputs = check_tokens(model, np.asarray(inputs))
    if puzzle_identifiers is None:
        puzzle_identifiers = np.zeros(len(inputs), np.int32)
    batch = {
        "inputs": mx.array(inputs),
        "puzzle_identifiers": mx.array(np.asarray(puzzle_identifiers, np.int32)),
    }
    model.eval()
    steps = max_steps or model.config.halt_max_steps
    loop = unroll(model, model.initial_carry(batch), batch, steps)
    for step, (carry, outputs) in enumerate(loop, start=1):
        logit = halting_logit(model.config, outputs)
        yield Refinement(
            step,
            np.array(mx.argmax(outputs["logits"], axis=-1)),
            np.array(cell_confidence(outputs["logits"])),
            np.array(mx.sigmoid(logit)),
            np.array((mx.sigmoid(logit) > HALT_THRESHOLD) | (step == steps)),
            {name: np.array(state.astype(mx.float32)) for name, state in carry.states.items()},
        )
