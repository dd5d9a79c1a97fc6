"""Solving puzzles with a trained model, one supervision step at a time."""

from collections.abc import Iterator
from typing import NamedTuple

import mlx.core as mx
import numpy as np

from trm_mlx.errors import InputError
from trm_mlx.models.model import RecursiveReasoner


class Refinement(NamedTuple):
    """What a model thinks after a supervision step.

    step: counted from 1; answers: tokens ``[B, S]``; confidence: probability of each answered
    token ``[B, S]``; halt_probability: ``[B]``; halts: whether it would stop here, bool ``[B]``.
    """

    step: int
    answers: np.ndarray
    confidence: np.ndarray
    halt_probability: np.ndarray
    halts: np.ndarray


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
    batch = _batch(model, np.asarray(inputs), puzzle_identifiers)
    model.eval()
    carry = model.initial_carry(batch)
    steps = max_steps or model.config.halt_max_steps
    for step in range(1, steps + 1):
        carry, outputs = model(carry, batch)
        # A row that has halted would start anew with the next call.
        carry = carry._replace(halted=mx.zeros_like(carry.halted))
        q_halt = outputs["q_halt_logits"]
        boundary = 0.0 if model.config.no_ACT_continue else outputs["q_continue_logits"]
        probabilities = mx.softmax(outputs["logits"].astype(mx.float32), axis=-1)
        refinement = (
            mx.argmax(outputs["logits"], axis=-1),
            probabilities.max(axis=-1),
            mx.sigmoid(q_halt - boundary),
            (q_halt > boundary) | (step == steps),
        )
        mx.eval(carry, refinement)
        yield Refinement(step, *map(np.array, refinement))


def _batch(
    model: RecursiveReasoner, inputs: np.ndarray, identifiers: np.ndarray | None
) -> dict[str, mx.array]:
    config = model.config
    if inputs.ndim != 2 or inputs.shape[1] != config.seq_len:
        raise InputError(
            f"inputs of shape {inputs.shape} do not fit a model of {config.seq_len} positions: "
            f"pass tokens [batch, {config.seq_len}]"
        )
    if inputs.min() < 0 or inputs.max() >= config.vocab_size:
        raise InputError(f"a token lies outside the model's vocabulary 0..{config.vocab_size - 1}")
    if identifiers is None:
        identifiers = np.zeros(len(inputs))
    return {
        "inputs": mx.array(inputs.astype(np.int32)),
        "puzzle_identifiers": mx.array(np.asarray(identifiers).astype(np.int32)),
    }
