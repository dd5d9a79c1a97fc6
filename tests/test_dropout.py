"""Dropout: what is dropped and when; passes and resuming change nothing."""

import mlx.core as mx
import numpy as np
import pytest
from runs import arrays_of, assert_same, config, take_steps
from tiny import make, make_batch

from trm_mlx.errors import InputError
from trm_mlx.models.act import draw_dropout
from trm_mlx.models.blocks import CHANNELS, POSITIONS, draw_masks, residual_swiglu
from trm_mlx.models.variants import VARIANTS
from trm_mlx.run.trainer import Trainer

RATE = {"dropout": 0.25}


def logits(model, key):
    batch = make_batch()
    _, outputs = model(model.initial_carry(batch), batch, key)
    return np.array(outputs["logits"])


@pytest.mark.parametrize("changes", [{}, {"mlp_t": True, "pos_encodings": "none"}])
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_drops_while_training_alone(variant, changes):
    depths = {"H_layers": 1, "num_heads": 2, **changes}
    plain, dropping = (make(variant, **depths, dropout=rate) for rate in (0.0, 0.25))
    dropping.update(plain.parameters())
    first, second = mx.random.key(1), mx.random.key(2)
    with_first = logits(dropping, first)
    assert np.isfinite(with_first).all()
    np.testing.assert_array_equal(with_first, logits(dropping, first))
    assert np.abs(with_first - logits(dropping, second)).max() > 1e-3
    assert np.abs(with_first - logits(plain, first)).max() > 1e-3
    plain.eval()
    dropping.eval()
    np.testing.assert_array_equal(logits(dropping, None), logits(plain, None))


def test_without_dropout_nothing_is_drawn():
    assert draw_dropout(make().config, 4, mx.random.key(0)) is None
    with pytest.raises(InputError, match="training drops: pass key="):
        draw_dropout(make(**RATE).config, 4, None)


def test_masks():
    """They keep the mean, and each row's follow from its key alone."""
    model = make(L_layers=2, num_heads=2, **RATE)
    keys = draw_dropout(model.config, 8, mx.random.key(3))
    masks = draw_masks(model.config, 2, 11, keys, mx.float32)
    assert [[mask.shape for mask in pair] for pair in masks] == [[(8, 11, 16), (8, 11, 256)]] * 2
    for mask in (mask for pair in masks for mask in pair):
        values, counts = np.unique(np.array(mask), return_counts=True)
        np.testing.assert_allclose(values, [0, 4 / 3], rtol=1e-6)
        assert abs(counts[0] / counts.sum() - 0.25) < 0.05
    assert not mx.array_equal(masks[0][1], masks[1][1])
    some = draw_masks(model.config, 2, 11, keys[3:5], mx.float32)
    assert mx.array_equal(some[1][0], masks[1][0][3:5])
    assert mx.array_equal(keys[4:], draw_dropout(model.config, 4, mx.random.key(3), (1, 2)))


@pytest.mark.parametrize("axis", [CHANNELS, POSITIONS])
@pytest.mark.parametrize("recompute", [False, True])
def test_gradient_of_a_masked_swiglu(axis, recompute):
    mx.random.seed(0)
    x = mx.random.normal((6, 6))
    gate_up, down = 0.5 * mx.random.normal((8, 6)), mx.random.normal((6, 4))
    mask = (mx.random.uniform(shape=(6, 4) if axis is CHANNELS else (4, 6)) < 0.6) * 2.0

    def plain(x, gate_up, down):
        rows = x if axis is CHANNELS else x.T
        gate, up = mx.split(rows @ gate_up.T, 2, axis=1)
        hidden = gate * mx.sigmoid(gate) * up * (mask if axis is CHANNELS else mask.T)
        y = rows + hidden @ down.T
        return y if axis is CHANNELS else y.T

    def ours(*arrays):
        return residual_swiglu(axis, recompute)(*arrays, mask)

    cotangent = mx.random.normal((6, 6))
    (expected,), expected_grads = mx.vjp(lambda *a: plain(*a), [x, gate_up, down], [cotangent])
    (found,), grads = mx.vjp(lambda *a: ours(*a), [x, gate_up, down], [cotangent])
    for first, second in zip([found, *grads], [expected, *expected_grads], strict=True):
        np.testing.assert_allclose(np.array(first), np.array(second), rtol=1e-4, atol=1e-5)


def test_passes_change_nothing(data, tmp_path):
    results = []
    for rows in ("2", "auto"):
        trainer = Trainer(config(data, tmp_path / rows, RATE, batch_size=rows))
        assert trainer.state.plan.rows == (2 if rows == "2" else trainer.config.global_batch_size)
        results.append(take_steps(trainer, 3))
    plain = take_steps(Trainer(config(data, tmp_path / "plain")), 3)
    assert plain[0] != pytest.approx(results[0][0], rel=1e-3)
    for first, second in zip(*results, strict=True):
        assert first == pytest.approx(second, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("compiled", ["false", pytest.param("true", marks=pytest.mark.slow)])
def test_a_resumed_run_goes_on_bit_for_bit(data, tmp_path, compiled):
    options = {"arch": RATE, "compile": compiled}
    whole = Trainer(config(data, tmp_path / "whole", **options))
    expected = take_steps(whole, 4)
    cut = Trainer(config(data, tmp_path / "cut", **options))
    take_steps(cut, 2)
    cut.save()
    resumed = Trainer(config(data, tmp_path / "cut", **options), resume=tmp_path / "cut")
    assert take_steps(resumed, 2) == expected[2:]
    assert_same(arrays_of(whole), arrays_of(resumed))
