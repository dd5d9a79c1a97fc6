"""The loss of one supervision step and its metrics.

Published in float64 (PyTorch ``losses.py``); written here for float32, which GPUs have.
"""

from collections.abc import Sequence

import mlx.core as mx
import mlx.nn as nn

from trm_mlx.data.schema import IGNORE_LABEL
from trm_mlx.models.act import Carry


def stablemax_cross_entropy(logits: mx.array, labels: mx.array) -> mx.array:
    """-log(s(logit of the label) / sum of s), with s(v) = v + 1 for v >= 0, else 1 / (1 - v)."""
    # The untaken branch is clamped: 1 / (1 - v) at v = 1 would turn the gradient into NaN.
    scores = mx.where(logits < 0, 1 / (1 - mx.minimum(logits, 0)), logits + 1)
    chosen = mx.take_along_axis(scores, labels[..., None], axis=-1).squeeze(-1)
    return mx.log(scores.sum(axis=-1)) - mx.log(chosen)


def softmax_cross_entropy(logits: mx.array, labels: mx.array) -> mx.array:
    """The usual cross entropy."""
    return nn.losses.cross_entropy(logits, labels)


LOSSES = {
    "stablemax_cross_entropy": stablemax_cross_entropy,
    "softmax_cross_entropy": softmax_cross_entropy,
}


def binary_cross_entropy(logits: mx.array, targets: mx.array) -> mx.array:
    """Per-element cross entropy of sigmoid(logits), stable for any logit."""
    return nn.losses.binary_cross_entropy(logits, targets, with_logits=True, reduction="none")


def row_losses(outputs: dict[str, mx.array], labels: mx.array, loss: str) -> dict[str, mx.array]:
    """What each row of one supervision step adds to the loss, each float32 ``[B]``.

    Args:
        outputs: of the model's call.
        labels: ``[B, S]``, `IGNORE_LABEL` where unscored.
        loss: a name in `LOSSES`.

    Returns:
        ``lm_loss``, the mean over a row's scored cells; ``q_halt_loss``; and ``q_continue_loss``
        where the outputs hold a target for it.
    """
    scored, correct = _scored(outputs["logits"], labels)
    logits, chosen = outputs["logits"].astype(mx.float32), mx.where(scored, labels, 0)
    divisor = mx.maximum(scored.sum(axis=-1), 1)
    exact = (correct == scored).all(axis=-1).astype(mx.float32)
    losses = {
        "lm_loss": mx.where(scored, LOSSES[loss](logits, chosen), 0).sum(axis=-1) / divisor,
        "q_halt_loss": binary_cross_entropy(outputs["q_halt_logits"], exact),
    }
    if "target_q_continue" in outputs:
        target = outputs["target_q_continue"]
        losses["q_continue_loss"] = binary_cross_entropy(outputs["q_continue_logits"], target)
    return losses


def step_weights(weights: Sequence[float], steps_before: mx.array) -> mx.array | float:
    """What the loss of each row counts, by the supervision steps it has taken before this one.

    Args:
        weights: of the first step, the second and so on, the last of them for all later steps;
            none: every step counts 1, as published.
    """
    if not weights:
        return 1.0
    return mx.array(weights)[mx.minimum(steps_before, len(weights) - 1)]


def total_loss(losses: dict[str, mx.array], weights: mx.array | float = 1.0) -> mx.array:
    """The loss of all rows together, a float32 scalar; ``weights [B]`` as of `step_weights`."""
    halting = losses["q_halt_loss"] + losses.get("q_continue_loss", 0.0)
    return (weights * (losses["lm_loss"] + 0.5 * halting)).sum()


def act_metrics(
    carry: Carry,
    outputs: dict[str, mx.array],
    losses: dict[str, mx.array],
    skip_unlabelled: bool = False,
) -> dict[str, mx.array]:
    """Sums over the batch of what is reported of one supervision step.

    Args:
        carry: after the step; its batch holds ``labels``.
        outputs: of the model's call.
        losses: from `row_losses`.
        skip_unlabelled: leave rows without any label out of the losses too. Evaluation does, as
            such rows are padding there; training does not, as the published code.

    Returns:
        ``count``, ``accuracy``, ``exact_accuracy``, ``q_halt_accuracy`` and ``steps`` over the rows
        that halted in this step and have a label; the losses over all rows.
    """
    scored, correct = _scored(outputs["logits"], carry.batch["labels"])
    scored_per_row, correct_per_row = scored.sum(axis=-1), correct.sum(axis=-1)
    has_labels = scored_per_row > 0
    exact = correct_per_row == scored_per_row
    reported = carry.halted & has_labels

    def total(values: mx.array, rows: mx.array) -> mx.array:
        return mx.where(rows, values, 0).astype(mx.float32).sum()

    rows = has_labels if skip_unlabelled else mx.ones_like(has_labels)
    return {
        "count": total(reported, reported),
        "accuracy": total(correct_per_row / mx.maximum(scored_per_row, 1), reported),
        "exact_accuracy": total(exact, reported),
        "q_halt_accuracy": total((outputs["q_halt_logits"] >= 0) == exact, reported),
        "steps": total(carry.steps, reported),
        **{name: total(values, rows) for name, values in losses.items()},
    }


def _scored(logits: mx.array, labels: mx.array) -> tuple[mx.array, mx.array]:
    """Which cells ``[B, S]`` have a label, and which of those are answered correctly."""
    scored = labels != IGNORE_LABEL
    return scored, scored & (mx.argmax(logits, axis=-1) == labels)
