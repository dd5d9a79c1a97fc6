"""The convolution over a board beside a plain statement of the formula."""

import contextlib

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
import stand_ins

from trm_mlx.config import ModelConfig
from trm_mlx.models import kernels_cpu
from trm_mlx.models.blocks import Level
from trm_mlx.models.convolution import BoardConvolution

PREFIX, SIDE, DIMS = 3, 5, 8


def plain_convolution(x, taps):
    """``x [L, D]`` and what the cells around say to each, in loops."""
    x, taps = np.asarray(x, np.float64), np.asarray(taps, np.float64)
    mixed = x.copy()
    for row in range(SIDE):
        for column in range(SIDE):
            for i in (-1, 0, 1):
                for j in (-1, 0, 1):
                    if 0 <= row + i < SIDE and 0 <= column + j < SIDE:
                        near = x[PREFIX + (row + i) * SIDE + column + j]
                        mixed[PREFIX + row * SIDE + column] += taps[1 + i, 1 + j] * near
    return mixed


@pytest.mark.parametrize(
    "way",
    [contextlib.nullcontext, stand_ins.copies, kernels_cpu.disabled],
    ids=["", "copies", "plain"],
)
def test_a_convolution_is_the_plain_formula(way):
    layer = BoardConvolution(DIMS, PREFIX)
    x, grad = (
        mx.random.normal((2, PREFIX + SIDE**2, DIMS), key=mx.random.key(i)) for i in range(2)
    )

    def results():
        def function(x, taps):
            layer.weight = taps
            return layer(x)

        (mixed,), gradients = mx.vjp(function, [x, layer.weight], [grad])
        return mixed, *gradients

    with way():
        mixed, *gradients = results()
    taps = np.array(layer.weight)
    np.testing.assert_allclose(mixed, [plain_convolution(row, taps) for row in x], atol=1e-5)
    for which, found in enumerate(gradients):
        step = np.random.default_rng(which).normal(size=found.shape)

        def moved(share, which=which, step=step):
            arrays = [np.array(x, np.float64), np.array(taps, np.float64)]
            arrays[which] = arrays[which] + share * step
            rows = np.stack([plain_convolution(row, arrays[1]) for row in arrays[0]])
            return (rows * np.array(grad)).sum()

        wanted = moved(0.5) - moved(-0.5)  # linear in either, so exact
        assert float((np.array(found) * step).sum()) == pytest.approx(wanted, rel=1e-4)


def test_a_net_begins_with_its_convolution():
    config = ModelConfig(
        hidden_size=DIMS, num_heads=2, puzzle_emb_len=PREFIX, pos_encodings="rope2d",
        board_convolution=True, vocab_size=6, seq_len=SIDE**2, num_puzzle_identifiers=1,
    )  # fmt: skip
    net = Level(config, depth=1)
    (block,) = net.layers
    x = mx.random.normal((2, config.length, DIMS), key=mx.random.key(0))
    mixed = net(x)
    np.testing.assert_array_equal(mixed, block(net.convolution(x), False, False))
    assert not np.allclose(mixed, block(x, False, False), atol=1e-3)
    gradients = nn.value_and_grad(net, lambda x: net(x, in_grad=True)[0, 5, 0])(x)[1]
    assert mx.abs(gradients["convolution"]["weight"]).max().item() > 0
