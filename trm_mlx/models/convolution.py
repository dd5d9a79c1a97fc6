"""What the neighbours of a cell say to it: a convolution over the square board.

Attention has to learn by positions alone which cells touch; a convolution is told. Depthwise, three
cells by three: nine numbers a channel.
"""

import functools
import math
from collections.abc import Callable

import mlx.core as mx
import mlx.nn as nn

from trm_mlx.device import device_kind
from trm_mlx.models import kernels_cpu, kernels_cuda
from trm_mlx.models.layers import CustomFunction, truncated_normal

STD = 0.1  # of the taps at first, small beside the 1 that a cell says to itself


class BoardConvolution(nn.Module):
    """``x`` plus a depthwise convolution of its board, for ``x [B, P + side**2, D]``.

    Beyond the edge of the board there is nothing. The P positions in front of it stay as they are.

    Args:
        prefix: P.
    """

    def __init__(self, dims: int, prefix: int):
        super().__init__()
        self._prefix = prefix
        self.weight = truncated_normal((3, 3, dims), STD)

    def __call__(self, x: mx.array) -> mx.array:
        return _residual_convolution(self._prefix)(x, self.weight)


@functools.cache
def _residual_convolution(prefix: int) -> Callable:
    """The function ``(x, taps) -> x + convolution(x)``, computed in float32."""

    @CustomFunction
    def forward(x: mx.array, taps: mx.array) -> mx.array:
        return convolve(x, taps, prefix)

    @forward.vjp
    def gradients(primals, cotangent, _output):
        x, taps = primals
        d_taps = taps_gradient(x, cotangent, prefix)
        return convolve(cotangent, taps[::-1, ::-1], prefix), d_taps

    return forward


def convolve(x: mx.array, taps: mx.array, prefix: int) -> mx.array:
    """``x [B, L, D]``, on the board plus ``taps [3, 3, D]`` times the cells around each cell."""
    if device_kind() == "cuda":
        return kernels_cuda.convolve(x, taps, prefix)
    if kernels_cpu.usable(x):
        return kernels_cpu.convolve(x, taps, prefix)
    board = _board(x, prefix)
    mixed = board + sum(
        part * tap for part, tap in zip(_around(board), taps.flatten(0, 1), strict=True)
    )
    mixed = mixed.reshape(len(x), -1, x.shape[2]).astype(x.dtype)
    return mx.concatenate([x[:, :prefix], mixed], axis=1)


def taps_gradient(x: mx.array, cotangent: mx.array, prefix: int) -> mx.array:
    """The gradient ``[3, 3, D]`` of the taps of `convolve` at ``x``."""
    if device_kind() == "cuda":
        return kernels_cuda.taps_gradient(x, cotangent, prefix)
    if kernels_cpu.usable(x):
        return kernels_cpu.taps_gradient(x, cotangent, prefix)
    grad = _board(cotangent, prefix)
    sums = [(part * grad).sum(axis=(0, 1, 2)) for part in _around(_board(x, prefix))]
    return mx.stack(sums).reshape(3, 3, -1)


def _board(x: mx.array, prefix: int) -> mx.array:
    """The board of ``x [B, P + side**2, D]``, float32 ``[B, side, side, D]``."""
    side = math.isqrt(x.shape[1] - prefix)
    return x[:, prefix:].reshape(len(x), side, side, -1).astype(mx.float32)


def _around(board: mx.array) -> list[mx.array]:
    """The board moved by each tap, row by row."""
    side = board.shape[1]
    padded = mx.pad(board, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return [
        padded[:, row : row + side, column : column + side]
        for row in range(3)
        for column in range(3)
    ]
