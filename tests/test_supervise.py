"""Logits and loss of every step from one call: those of the training step's loss."""

import mlx.core as mx
import numpy as np
import pytest
from tiny import make, make_batch

import trm_mlx
from trm_mlx import InputError
from trm_mlx.models.act import unroll
from trm_mlx.train.losses import row_losses, total_loss

BATCH = make_batch()
INPUTS, LABELS = np.array(BATCH["inputs"]), np.array(BATCH["labels"])


@pytest.mark.parametrize("loss", ["stablemax_cross_entropy", "softmax_cross_entropy"])
def test_losses_and_logits_of_every_step(loss):
    model = make()
    labels = LABELS.copy()
    labels[0, :4] = -100
    found = trm_mlx.supervise(model, INPUTS, labels, [0, 1, 2, 3], max_steps=5, loss=loss)
    batch = {"inputs": BATCH["inputs"], "puzzle_identifiers": mx.array([0, 1, 2, 3])}
    steps = [outputs for _, outputs in unroll(model, model.initial_carry(batch), batch, 5)]
    expected = [total_loss(row_losses(o, mx.array(labels), loss)).item() / 4 for o in steps]
    assert found.losses == pytest.approx(expected, rel=1e-6)
    assert found.loss == pytest.approx(np.mean(expected), rel=1e-6)
    assert len(found.logits) == 5
    for logits, outputs in zip(found.logits, steps, strict=True):
        np.testing.assert_array_equal(logits, np.array(outputs["logits"].astype(mx.float32)))
    *_, last = trm_mlx.refine(model, INPUTS, [0, 1, 2, 3], max_steps=5)
    np.testing.assert_array_equal(found.logits[-1].argmax(-1), last.answers)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inputs": INPUTS[:, :8]}, r"inputs of shape \(4, 8\): pass tokens \[batch, 9\]"),
        ({"labels": LABELS[:3]}, "4 inputs and 3 labels"),
        ({"labels": LABELS + 6}, r"labels hold tokens from \d+ to \d+: they must lie within"),
        ({"inputs": INPUTS - 6}, r"inputs hold tokens from -\d"),
        ({"loss": "mse"}, "loss=mse: choose one of stablemax_cross_entropy"),
    ],
)
def test_what_does_not_fit(changes, message):
    with pytest.raises(InputError, match=message):
        trm_mlx.supervise(make(), **{"inputs": INPUTS, "labels": LABELS, **changes})
