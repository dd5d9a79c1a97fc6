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


class Solution(NamedTuple):
    """answers: tokens ``[B, S]`` after the last step; halt_steps: the first step at which each row
    would have stopped, ``[B]``; refinements: every step."""

    answers: np.ndarray
    halt_steps: np.ndarray
    refinements: list[Refinement]


def solve(
    model: RecursiveReasoner,
    inputs: np.ndarray,
    puzzle_identifiers: np.ndarray | None = None,
    max_steps: int | None = None,
) -> Solution:
    """Run every puzzle for all supervision steps, as the published evaluation does.

    Args:
        inputs: tokens ``[B, S]``.
        puzzle_identifiers: ``[B]``; all blank by default.
        max_steps: supervision steps; the model's ``halt_max_steps`` by default.

    Raises:
        InputError: inputs that do not fit the model.
    """
    refinements = list(refine(model, inputs, puzzle_identifiers, max_steps))
    halts = np.stack([refinement.halts for refinement in refinements])
    return Solution(refinements[-1].answers, halts.argmax(axis=0) + 1, refinements)


def refine(
    model: RecursiveReasoner,
    inputs: np.ndarray,
    puzzle_identifiers: np.ndarray | None = None,
    max_steps: int | None = None,
) -> Iterator[Refinement]:
    """Like `solve`, yielding each step as soon as it is computed."""
    batch = _batch(model, np.asarray(inputs), puzzle_identifiers)
    steps = max_steps or model.config.halt_max_steps
    model.eval()
    carry = model.initial_carry(batch)
    for step in range(1, steps + 1):
        carry, outputs = model(carry, batch)
        # Rows stay in place until the caller has seen all steps, however many it asked for.
        carry = carry._replace(halted=mx.zeros_like(carry.halted))
        q_halt, q_continue = outputs["q_halt_logits"], outputs["q_continue_logits"]
        boundary = 0.0 if model.config.no_ACT_continue else q_continue
        halts = (q_halt > boundary) | (step == steps)
        probabilities = mx.softmax(outputs["logits"].astype(mx.float32), axis=-1)
        answers = mx.argmax(probabilities, axis=-1)
        halt_probability = mx.sigmoid(q_halt - boundary)
        mx.eval(carry, answers, probabilities, halts, halt_probability)
        yield Refinement(
            step,
            np.array(answers),
            np.array(probabilities.max(axis=-1)),
            np.array(halt_probability),
            np.array(halts),
        )


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
