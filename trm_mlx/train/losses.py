"""The loss of one supervision step and its metrics.

Published in float64 (PyTorch ``losses.py``); written here for float32, which GPUs have.
"""

from collections.abc import Sequence

import mlx.core as mx
import mlx.nn as nn

from trm_mlx.data.arrays import IGNORE_LABEL
from trm_mlx.models.act import Carry


def stablemax_cross_entropy(
    logits: mx.array, labels: mx.array, label_smoothing: float = 0.0
) -> mx.array:
    """-log(s(logit of the label) / sum of s), with s(v) = v + 1 for v >= 0, else 1 / (1 - v).

    ``label_smoothing`` of the target is spread over all V tokens evenly.
    """
    # The untaken branch is clamped: 1 / (1 - v) at v = 1 would turn the gradient into NaN.
    scores = mx.where(logits < 0, 1 / (1 - mx.minimum(logits, 0)), logits + 1)
    chosen = mx.take_along_axis(scores, labels[..., None], axis=-1).squeeze(-1)
    target = mx.log(chosen)
    if label_smoothing:
        spread = mx.log(scores).mean(axis=-1)
        target = (1 - label_smoothing) * target + label_smoothing * spread
    return mx.log(scores.sum(axis=-1)) - target


def softmax_cross_entropy(
    logits: mx.array, labels: mx.array, label_smoothing: float = 0.0
) -> mx.array:
    """The usual cross entropy; ``label_smoothing`` as above."""
    return nn.losses.cross_entropy(logits, labels, label_smoothing=label_smoothing)


Metrics = dict[str, mx.array]

LOSSES = {
    "stablemax_cross_entropy": stablemax_cross_entropy,
    "softmax_cross_entropy": softmax_cross_entropy,
}


@mx.custom_function
def binary_cross_entropy(logits: mx.array, targets: mx.array) -> mx.array:
    """Per-element cross entropy of sigmoid(logits), stable for any logit."""
    return nn.losses.binary_cross_entropy(logits, targets, with_logits=True, reduction="none")


@binary_cross_entropy.vjp
def _binary_cross_entropy_gradient(primals, cotangent: mx.array, _output: mx.array):
    """As PyTorch writes it: exactly 0 where ``targets`` are ``sigmoid(logits)``.

    The gradient of logaddexp would leave rounding noise, of which AdamATan2 makes a whole step.
    """
    logits, targets = primals
    return cotangent * (mx.sigmoid(mx.contiguous(logits)) - targets), mx.zeros_like(targets)


def row_losses(
    outputs: dict[str, mx.array], labels: mx.array, loss: str, label_smoothing: float = 0.0
) -> dict[str, mx.array]:
    """What each row of one supervision step adds to the loss, each float32 ``[B]``.

    Args:
        outputs: of the model's call.
        labels: ``[B, S]``, `IGNORE_LABEL` where unscored.
        loss: a name in `LOSSES`.
        label_smoothing: share of the target that is spread over all tokens.

    Returns:
        ``lm_loss``, the mean over a row's scored cells; ``q_halt_loss``; and ``q_continue_loss``
        where the outputs hold a target for it.
    """
    scored, correct = _scored(outputs["logits"], labels)
    logits, chosen = outputs["logits"].astype(mx.float32), mx.where(scored, labels, 0)
    divisor = mx.maximum(scored.sum(axis=-1), 1)
    exact = (correct == scored).all(axis=-1).astype(mx.float32)
    cell_losses = LOSSES[loss](logits, chosen, label_smoothing)
    losses = {
        "lm_loss": mx.where(scored, cell_losses, 0).sum(axis=-1) / divisor,
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


def total_loss(
    losses: dict[str, mx.array], weights: mx.array | float = 1.0, q_weight: float = 0.5
) -> mx.array:
    """The loss of all rows together, a float32 scalar.

    Args:
        losses: from `row_losses`.
        weights: of the rows, ``[B]``, as of `step_weights`.
        q_weight: what the losses of the halting head count.
    """
    halting = losses["q_halt_loss"] + losses.get("q_continue_loss", 0.0)
    return (weights * (losses["lm_loss"] + q_weight * halting)).sum()


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


def mean_metrics(sums: dict[str, mx.array], rows: int) -> dict[str, float]:
    """Return a step's sums as means: losses per row of the batch, the others per reported row.

    Metrics of reported rows are left out where no row halted in this step.
    """
    values = {name: value.item() for name, value in sums.items()}
    count = values["count"]
    means = {"count": count}
    for name, value in values.items():
        if name.endswith("loss"):
            means[name] = value / rows
        elif name in ("lr", "grad_norm", "pflop"):
            means[name] = value
        elif name != "count" and count:
            means[name] = value / count
    return means
