"""What a GPU or its build of MLX does otherwise, so that the branches for it run without one.

CUDA's kernels are plain functions here.
"""

from contextlib import contextmanager
from unittest import mock

import mlx.core as mx

from trm_mlx import device
from trm_mlx.models import blocks, convolution, kernels_cuda, layers


def split_heads(tokens, cosines, sines, rotated, padded, moved):
    low, high = mx.split(tokens[:, :, :moved], 2, axis=-1)
    if rotated:
        turns = mx.arange(moved)[:, None, None] < rotated
        c, s = cosines[:, None, None], sines[:, None, None]
        low, high = (
            mx.where(turns, low * c - high * s, low),
            mx.where(turns, high * c + low * s, high),
        )
    room = padded - tokens.shape[1]
    parts = mx.pad(mx.concatenate([low, high], axis=-1), ((0, 0), (0, room), *[(0, 0)] * 3))
    return [parts[:, :, i] for i in range(moved)]


def merge_heads(parts, cosines, sines, rotated, length):
    tokens = mx.stack([part[:, :length] for part in parts], axis=2)
    merged = split_heads(tokens, cosines, -sines, rotated, length, len(parts))
    return mx.stack(merged, axis=2)


def copies():
    """Inside, MLX copies whatever it makes contiguous.

    It does so where the buffer is far larger than the array. Builds for GPUs hand such buffers out
    again, also for arrays of the CPU.
    """
    return mock.patch.object(mx, "contiguous", lambda x: x + 0)


def _plain(function):
    """A function of this package as Metal takes it."""

    def run(*arrays):
        with device.assumed("metal", 2**40):
            return function(*arrays)

    return run


def _norm(function):
    return lambda x, epsilon: _plain(function)(x)


def _norm_gradient(function):
    def gradient(x, cotangent):
        return mx.vjp(function, [x], [cotangent])[1][0]

    return lambda x, cotangent, epsilon: _plain(gradient)(x, cotangent)


@contextmanager
def cuda():
    """Inside, the device is said to be CUDA's, and its kernels are plain functions."""
    channels, positions = layers.norm_channels, layers.norm_positions
    kernels = {
        "convolve": _plain(convolution.convolve),
        "taps_gradient": _plain(convolution.taps_gradient),
        "split_heads": split_heads,
        "merge_heads": merge_heads,
        "gated_silu": _plain(blocks.gated_silu),
        "gated_silu_gradients": _plain(blocks.gated_silu_gradients),
        "norm_channels": _norm(channels),
        "norm_positions": _norm(positions),
        "norm_channels_gradient": _norm_gradient(channels),
        "norm_positions_gradient": _norm_gradient(positions),
    }
    with mock.patch.multiple(kernels_cuda, **kernels), device.assumed("cuda", 2**40):
        yield
