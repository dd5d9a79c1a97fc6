"""The loss of one supervision step and its metrics, both as sums over the batch.

Published in float64 (PyTorch ``losses.py``); written here for float32, which GPUs have.
"""

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


def act_loss(
    carry: Carry, outputs: dict[str, mx.array], loss: str, skip_unlabelled: bool = False
) -> tuple[mx.array, dict[str, mx.array]]:
    """Loss and metrics of one supervision step.

    Args:
        carry: after the step; its batch holds ``labels [B, S]``, `IGNORE_LABEL` where unscored.
        outputs: of the model's call.
        loss: a name in `LOSSES`.
        skip_unlabelled: leave rows without any label out of the losses too. Evaluation does, as
            such rows are padding there; training does not, as the published code.

    Returns:
        The loss summed over rows, float32, and sums of metrics: ``count``, ``accuracy``,
        ``exact_accuracy``, ``q_halt_accuracy`` and ``steps`` over the rows that halted in this
        step and have a label; ``lm_loss``, ``q_halt_loss`` (and ``q_continue_loss``) over all rows.
    """
    labels, logits = carry.batch["labels"], outputs["logits"]
    scored = labels != IGNORE_LABEL
    scored_per_row = scored.sum(axis=-1)
    has_labels = scored_per_row > 0
    divisor = mx.maximum(scored_per_row, 1)

    correct = scored & (mx.argmax(logits, axis=-1) == labels)
    exact = correct.sum(axis=-1) == scored_per_row
    reported = carry.halted & has_labels

    def total(values: mx.array, rows: mx.array) -> mx.array:
        return mx.where(rows, values, 0).astype(mx.float32).sum()

    token_loss = LOSSES[loss](logits.astype(mx.float32), mx.where(scored, labels, 0))
    row_loss = mx.where(scored, token_loss, 0).sum(axis=-1) / divisor
    q_halt_loss = binary_cross_entropy(outputs["q_halt_logits"], exact.astype(mx.float32))
    losses = {"lm_loss": row_loss, "q_halt_loss": q_halt_loss}
    if "target_q_continue" in outputs:
        losses["q_continue_loss"] = binary_cross_entropy(
            outputs["q_continue_logits"], outputs["target_q_continue"]
        )
    rows = has_labels if skip_unlabelled else mx.ones_like(has_labels)
    losses = {name: total(values, rows) for name, values in losses.items()}
    metrics = {
        "count": total(reported, reported),
        "accuracy": total(correct.sum(axis=-1) / divisor, reported),
        "exact_accuracy": total(exact, reported),
        "q_halt_accuracy": total((outputs["q_halt_logits"] >= 0) == exact, reported),
        "steps": total(carry.steps, reported),
        **losses,
    }
    halting = losses["q_halt_loss"] + losses.get("q_continue_loss", 0.0)
    return losses["lm_loss"] + 0.5 * halting, metrics
