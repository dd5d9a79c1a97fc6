"""The fast ways of computing beside the plain ones: loops, CUDA kernels, written-out gradients."""

import contextlib
import dataclasses

import mlx.core as mx
import numpy as np
import pytest
import stand_ins
from mlx.utils import tree_flatten

from trm_mlx import device
from trm_mlx.config import ModelConfig
from trm_mlx.config_io import arch_config, load_config
from trm_mlx.evaluate.evaluate import EvaluationStep
from trm_mlx.models import attention, batched_blas, blocks, convolution, kernels_cpu, layers
from trm_mlx.models.attention import Attention
from trm_mlx.models.blocks import CHANNELS, POSITIONS, residual_swiglu
from trm_mlx.models.memory import bounded
from trm_mlx.models.model import build_model
from trm_mlx.train.optim import AdamATan2
from trm_mlx.train.step import TrainState

ON_CUDA = mx.cuda.is_available()
SHAPES = [(37, 24), (64, 1536), (5, 7)]


def normal(*shape, seed=0, dtype=mx.float32, scale=3.0):
    return (mx.random.normal(shape, key=mx.random.key(seed)) * scale).astype(dtype)


def close(ours, plain, tolerance):
    ours, plain = (np.array(array.astype(mx.float32)) for array in (ours, plain))
    np.testing.assert_allclose(ours, plain, rtol=tolerance, atol=tolerance * np.abs(plain).max())


# The CPU's loops


@pytest.fixture(params=[contextlib.nullcontext, stand_ins.copies], ids=["", "copies"])
def on_cpu(request):
    with mx.stream(mx.cpu), request.param():
        yield


@pytest.mark.parametrize("shape", SHAPES)
def test_loops_compute_the_plain_functions(on_cpu, shape):
    rows, columns = shape
    product, grad = normal(2 * rows, columns), normal(rows, columns, seed=1)
    assert kernels_cpu.usable(product)
    fast = blocks.gated_silu(product), *blocks.gated_silu_gradients(product, grad)
    with kernels_cpu.disabled():
        assert not kernels_cpu.usable(product)
        plain = blocks.gated_silu(product), *blocks.gated_silu_gradients(product, grad)
    for ours, theirs in zip(fast, plain, strict=True):
        close(ours, theirs, 1e-6)


def test_loops_read_what_lies_scattered_in_memory():
    product = normal(24, 36).T[::2]
    expected = blocks.gated_silu(mx.array(np.array(product)))
    assert mx.array_equal(blocks.gated_silu(product), expected)


@pytest.mark.parametrize("cached", [4, 2**17])
@pytest.mark.parametrize(
    ("scale", "tolerance"), [(1.0, 2e-6), (10.0, 2e-4)], ids=["", "large scores"]
)
@pytest.mark.parametrize(
    ("rope", "prefix"), [(True, None), (True, 1), (False, None)], ids=["rope", "board", "none"]
)
def test_attention_with_loops_and_without(
    monkeypatch, on_cpu, rope, prefix, scale, tolerance, cached
):
    monkeypatch.setattr(kernels_cpu, "CACHED", cached)
    layer, x = Attention(32, 4, rope, prefix), normal(3, 10, 32, scale=scale)
    grad = normal(3, 10, 32, seed=1)

    def results():
        values, gradients = mx.vjp(lambda x: layer(x, in_grad=True), [x], [grad])
        return [*values, *gradients]

    fast = results()
    with kernels_cpu.disabled():
        for ours, plain in zip(fast, results(), strict=True):
            close(ours, plain, tolerance)


@pytest.mark.parametrize("library", [None, device.blas()], ids=["NumPy", "MKL"])
def test_products_of_many_matrices(monkeypatch, library):
    monkeypatch.setattr(batched_blas, "blas", lambda: library)
    rng = np.random.default_rng(0)
    left, right = (rng.normal(size=(3, 8, 7)).astype(np.float32) for _ in range(2))
    result = np.ones((3, 10, 8), np.float32)
    batched_blas.multiply_all(left, right.swapaxes(1, 2), result[:, 2:])
    np.testing.assert_allclose(result[:, 2:], left @ right.swapaxes(1, 2), rtol=1e-5, atol=1e-6)
    assert (result[:, :2] == 1).all()
    square = np.ones((3, 7, 7), np.float32)
    batched_blas.multiply_all(left[:, 2:].swapaxes(1, 2), right[:, :6], square, adds=True)
    expected = 1 + left[:, 2:].swapaxes(1, 2) @ right[:, :6]
    np.testing.assert_allclose(square, expected, rtol=1e-5, atol=1e-6)


def test_adam_atan2_with_loops_and_without(on_cpu):
    """Where nothing has ever been learnt nothing moves but the decay."""
    gradients = [normal(300, 120, seed=seed, scale=10.0 ** -(3 * seed)) for seed in range(3)]
    gradients = [mx.where(mx.arange(120) < 7, 0.0, gradient) for gradient in gradients]

    def results():
        optimizer = AdamATan2(1e-2, (0.9, 0.95), weight_decay=0.1)
        state = {"weight": normal(300, 120, seed=5)}
        for gradient in gradients:
            state = optimizer.apply_gradients({"weight": gradient}, state)
        moments = optimizer.state["weight"]
        return [state["weight"], moments["m"], moments["v"]]

    fast = results()
    with kernels_cpu.disabled():
        for ours, plain in zip(fast, results(), strict=True):
            close(ours, plain, 1e-6)
    decayed = normal(300, 120, seed=5) * (1 - 1e-2 * 0.1) ** 3
    close(fast[0][:, :7], decayed[:, :7], 1e-6)
    assert not fast[1][:, :7].any()


# Written-out gradients


def plain_swiglu(x, gate_up, down, axis):
    """A statement in products, without the residual_swiglu's care for memory."""
    tokens = x if axis is CHANNELS else x.T
    gate, up = mx.split(tokens @ gate_up.T, 2, axis=1)
    y = tokens + (gate * mx.sigmoid(gate) * up) @ down.T
    return y if axis is CHANNELS else y.T


@pytest.mark.parametrize("axis", [CHANNELS, POSITIONS], ids=["channels", "positions"])
@pytest.mark.parametrize("recompute", [False, True])
def test_swiglu_and_its_gradients(on_cpu, axis, recompute):
    x = normal(12, 20, scale=1.0) if axis is CHANNELS else normal(20, 12, scale=1.0)
    weights = normal(2 * 16, 20, seed=1, scale=0.3), normal(20, 16, seed=2, scale=0.3)
    grad = normal(*x.shape, seed=3)
    (value,), ours = mx.vjp(residual_swiglu(axis, recompute), [x, *weights], [grad])
    (expected,), plain = mx.vjp(lambda *a: plain_swiglu(*a, axis), [x, *weights], [grad])
    close(value, expected, 2e-6)
    for gradient, wanted in zip(ours, plain, strict=True):
        close(gradient, wanted, 5e-6)


@pytest.mark.parametrize(
    ("norm", "axis"),
    [(layers.norm_channels, 1), (layers.norm_positions, 0)],
    ids=["rows", "columns"],
)
def test_gradients_of_norms(on_cpu, norm, axis):
    x, grad = normal(13, 24), normal(13, 24, seed=1)

    def plain(x):
        return x / mx.sqrt(x.square().mean(axis=axis, keepdims=True) + layers.EPSILON)

    (value,), (ours,) = mx.vjp(norm, [x], [grad])
    (expected,), (wanted,) = mx.vjp(plain, [x], [grad])
    close(value, expected, 1e-6)
    close(ours, wanted, 5e-6)


# CUDA's branches, with plain functions for its kernels


def gradients_and_logits(words, changes):
    """Carry, metrics and gradients of a training step, and the logits of an evaluation."""
    small = {"hidden_size": 16, "H_cycles": 2, "L_cycles": 1, "L_layers": 1}
    arch = arch_config("trm", **{**small, "forward_dtype": "float32", "num_heads": 2, **changes})
    words = ["data_paths=[none]", "global_batch_size=3", *words]
    config = dataclasses.replace(load_config(words), arch=arch)
    sizes = {"seq_len": 9, "vocab_size": 6, "num_puzzle_identifiers": 3}
    state = TrainState(build_model(ModelConfig.of(arch, **sizes)), config, total_steps=10)
    state.model.q_head.weight = normal(2, 16, scale=0.1)
    tokens = mx.random.randint(1, 6, (3, 9), key=mx.random.key(7))
    batch = {"inputs": tokens, "labels": tokens[::-1], "puzzle_identifiers": mx.arange(3)}
    carry = state.model.initial_carry(batch)
    with bounded(state.room):
        results = state.gradients(carry, batch, mx.random.key(1))
        mx.eval(results)
    step = EvaluationStep(state.model.eval(), config.loss)
    with step.bounded(3):
        _, outputs, _ = step(carry, batch)
    flat = tree_flatten([*results, outputs["logits"]])
    return {name: np.array(array.astype(mx.float32)) for name, array in flat}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, []),
        ({"pos_encodings": "none", "mlp_t": True}, []),
        ({"pos_encodings": "rope2d", "dropout": 0.2}, ["grad_checkpoint=true", "batch_size=2"]),
        ({"pos_encodings": "none"}, []),
        ({"pos_encodings": "rope2d", "board_convolution": True}, []),
    ],
    ids=["attention", "positions", "rope2d, dropout, passes", "no positions", "convolution"],
)
def test_gradients_on_cuda_are_those_of_any_device(changes, words):
    plain = gradients_and_logits([*words, "compile=false"], changes)
    with stand_ins.cuda():
        ours = gradients_and_logits(words, changes)
    assert ours.keys() == plain.keys()
    for name, array in ours.items():
        room = 1e-5 * max(1.0, np.abs(plain[name]).max())
        np.testing.assert_allclose(array, plain[name], rtol=1e-4, atol=room, err_msg=name)


def test_an_evaluation_goes_half_a_block_at_a_time(monkeypatch, on_cpu):
    """A GPU would hold the arrays of all that is launched ahead of it."""
    launched = []
    monkeypatch.setattr(blocks.mx, "async_eval", launched.append)
    words = ["compile=false"]
    gradients_and_logits(words, {})
    assert not launched
    with stand_ins.cuda():
        gradients_and_logits(words, {})
    assert len(launched) == 2 * 4  # halves of the blocks of 2 cycles of 2 updates


# CUDA's kernels, where there is a GPU to run them


def both_ways(monkeypatch, function):
    """The results of a function with CUDA's kernels and with the plain functions."""
    with mx.stream(mx.gpu):
        results = []
        for name in ("cuda", "metal"):
            for module in (blocks, attention, convolution, kernels_cpu, layers):
                monkeypatch.setattr(module, "device_kind", lambda name=name: name)
            results.append(function())
            mx.eval(results[-1])
    return zip(*results, strict=True)


@pytest.mark.skipif(not ON_CUDA, reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("shape", [*SHAPES, (200, 16)])
def test_kernels_compute_the_plain_functions(monkeypatch, dtype, shape):
    rows, columns = shape
    product = normal(2 * rows, columns, dtype=dtype)
    x, grad = normal(rows, columns, dtype=dtype), normal(rows, columns, seed=1, dtype=dtype)

    def results():
        return [
            blocks.gated_silu(product),
            *blocks.gated_silu_gradients(product, grad),
            *(norm(x) for norm in (layers.norm_channels, layers.norm_positions)),
            mx.vjp(layers.norm_channels, [x], [grad])[1][0],
            mx.vjp(layers.norm_positions, [x], [grad])[1][0],
        ]

    for ours, plain in both_ways(monkeypatch, results):
        close(ours, plain, 2e-6 if dtype == mx.float32 else 2**-7)


@pytest.mark.skipif(not ON_CUDA, reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("batch", "prefix", "side", "dims"), [(5, 3, 1, 4), (5, 0, 9, 24), (20, 16, 30, 512)]
)
def test_the_convolution_computes_the_plain_function(monkeypatch, dtype, batch, prefix, side, dims):
    shape = (batch, prefix + side**2, dims)
    x, grad = normal(*shape, dtype=dtype), normal(*shape, seed=1, dtype=dtype)
    taps = normal(3, 3, dims, seed=2)

    def results():
        mixed = convolution.convolve(x, taps, prefix)
        return [mixed, convolution.taps_gradient(x, grad, prefix) / side]

    for ours, plain in both_ways(monkeypatch, results):
        close(ours, plain, 2e-5 if dtype == mx.float32 else 2**-6)


@pytest.mark.skipif(not ON_CUDA, reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("length", [97, 128, 20])
@pytest.mark.parametrize("rope", [True, False])
def test_padded_attention_is_attention(monkeypatch, length, rope):
    with mx.stream(mx.gpu):
        layer = Attention(64, 4, rope)
        x, grad = normal(3, length, 64, scale=1.0), normal(3, length, 64, seed=1)

    def results():
        values, gradients = mx.vjp(lambda x: layer(x, in_grad=True), [x], [grad])
        return [layer(x, in_grad=False), *values, *gradients]

    for ours, plain in both_ways(monkeypatch, results):
        close(ours, plain, 1e-5)
