"""Logits and loss of every supervision step of a batch, from one call."""

from typing import NamedTuple

import mlx.core as mx
import numpy as np

from trm_mlx.data.arrays import IGNORE_LABEL
from trm_mlx.errors import InputError
from trm_mlx.models.act import unroll
from trm_mlx.models.model import RecursiveReasoner
from trm_mlx.train.losses import LOSSES, row_losses, total_loss


class Supervised(NamedTuple):
    """Every supervision step of a batch.

    loss: mean of ``losses``; losses: of each step, the mean over the rows of the loss that training
    minimises; logits: of each step, float32 ``[B, S, V]``.
    """

    loss: float
    losses: list[float]
    logits: list[np.ndarray]


def supervise(
    model: RecursiveReasoner,
    inputs: np.ndarray,
    labels: np.ndarray,
    puzzle_identifiers: np.ndarray | None = None,
    max_steps: int | None = None,
    loss: str = "stablemax_cross_entropy",
) -> Supervised:
    """Run all supervision steps of a batch and return the logits and the loss of each.

    Nothing is trained; `Trainer.train_step` does that, a supervision step at a time.

    Args:
        model: put into evaluation mode.
        inputs: tokens ``[B, S]``.
        labels: the answers, tokens ``[B, S]``; -100 where unscored.
        puzzle_identifiers: ``[B]``; all blank by default.
        max_steps: supervision steps; the model's ``halt_max_steps`` by default, more are allowed.
        loss: on the answer tokens, one of the names of the option ``loss``.

    Raises:
        InputError: tokens that do not fit the model, or an unknown loss.
    """
    if loss not in LOSSES:
        raise InputError(f"loss={loss}: choose one of {', '.join(LOSSES)}")
    inputs = _checked(model, inputs, "inputs", least=0)
    labels = _checked(model, labels, "labels", least=IGNORE_LABEL)
    if puzzle_identifiers is None:
        puzzle_identifiers = np.zeros(len(inputs), np.int32)
    batch = {
        "inputs": mx.array(inputs),
        "puzzle_identifiers": mx.array(np.asarray(puzzle_identifiers, np.int32)),
    }
    if len(inputs) != len(labels):
        raise InputError(f"{len(inputs)} inputs and {len(labels)} labels: pass one for each")
    model.eval()
    losses, logits = [], []
    steps = max_steps or model.config.halt_max_steps
    for _, outputs in unroll(model, model.initial_carry(batch), batch, steps):
        rows = row_losses(outputs, mx.array(labels), loss)
        losses.append(total_loss(rows).item() / len(inputs))
        logits.append(np.array(outputs["logits"].astype(mx.float32)))
    return Supervised(float(np.mean(losses)), losses, logits)


def _checked(model: RecursiveReasoner, tokens: np.ndarray, name: str, least: int) -> np.ndarray:
    tokens, config = np.asarray(tokens), model.config
    if tokens.ndim != 2 or tokens.shape[1] != config.seq_len or not len(tokens):
        raise InputError(f"{name} of shape {tokens.shape}: pass tokens [batch, {config.seq_len}]")
    if tokens.min() < least or tokens.max() >= config.vocab_size:
        raise InputError(
            f"{name} hold tokens from {tokens.min()} to {tokens.max()}: they must lie within the "
            f"model's vocabulary 0..{config.vocab_size - 1}"
        )
    return tokens.astype(np.int32)
