"""The simplest pieces of every variant: initial weights, linear maps, embeddings.

Weights are float32 and cast to the activation dtype where they are used. Parameter names are those
of the published PyTorch code, so a converted checkpoint needs no table of names.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import mlx.core as mx
import mlx.nn as nn

from trm_mlx.device import assumed, device_kind
from trm_mlx.models import kernels_cpu, kernels_cuda

# Standard deviation of a unit normal truncated to [-2, 2].
_TRUNCATED_STD = math.sqrt(1 - 4 * math.exp(-2) / math.sqrt(2 * math.pi) / math.erf(math.sqrt(2)))

_plain = False


class CustomFunction:
    """`mx.custom_function`, except that inside `plain_functions` it is the function alone."""

    def __init__(self, function: Callable):
        self._function, self._custom = function, mx.custom_function(function)
        self.vjp = self._custom.vjp

    def __call__(self, *arrays: mx.array):
        return (self._function if _plain else self._custom)(*arrays)


@contextmanager
def plain_functions() -> Iterator[None]:
    """Inside, MLX's own operations alone are traced, which `mx.export_function` can write.

    There are no custom gradients, and, as on Metal, neither numba's loops nor CUDA kernels.
    """
    global _plain
    before, _plain = _plain, True
    try:
        with assumed("metal", 0):
            yield
    finally:
        _plain = before


def truncated_normal(shape: tuple[int, ...], std: float) -> mx.array:
    """Normal samples cut at two sigmas and rescaled so that their own deviation is ``std``."""
    return mx.random.truncated_normal(-2.0, 2.0, shape) * (std / _TRUNCATED_STD)


class Linear(nn.Module):
    """``x @ weight.T (+ bias)`` with ``weight [outputs, inputs]`` cast to the dtype of ``x``."""

    def __init__(self, inputs: int, outputs: int, bias: bool = False):
        super().__init__()
        self.weight = truncated_normal((outputs, inputs), std=inputs**-0.5)
        if bias:
            self.bias = mx.zeros((outputs,))

    def __call__(self, x: mx.array) -> mx.array:
        y = x @ self.weight.astype(x.dtype).T
        return y + self.bias.astype(x.dtype) if "bias" in self else y


class Embedding(nn.Module):
    """Rows of ``embedding_weight [rows, dims]``, cast to ``dtype``.

    Rows are picked by a product with a one-hot matrix: for a small vocabulary as fast as a gather,
    and its gradient, unlike a scatter's on a GPU, is the same in every run.
    """

    def __init__(self, rows: int, dims: int, dtype: mx.Dtype):
        super().__init__()
        self.embedding_weight = truncated_normal((rows, dims), std=dims**-0.5)
        self._dtype = dtype

    def __call__(self, indices: mx.array) -> mx.array:
        one_hot = indices[..., None] == mx.arange(self.embedding_weight.shape[0])
        return one_hot.astype(self._dtype) @ self.embedding_weight.astype(self._dtype)


class PuzzleEmbedding(nn.Module):
    """A table of learned rows, zero at first: one per puzzle identifier, or several that are added.

    The model keeps the table frozen: only the rows of a batch are updated, by sign descent (see
    ``train.optim``). ``__call__`` returns float32 rows ``[batch, dims]``.

    parts: the rows of every identifier ``[N, K]``; None where it has its own.
    """

    def __init__(self, rows: int, dims: int):
        super().__init__()
        self.weights = mx.zeros((rows, dims))
        self._parts = None

    @property
    def parts(self) -> mx.array | None:
        return self._parts

    def compose(self, parts: mx.array) -> None:
        """Make the embedding of every identifier the sum of its ``parts [N, K]``."""
        self._parts = parts

    def __call__(self, identifiers: mx.array) -> mx.array:
        if self._parts is None:
            return self.weights[identifiers]
        return self.weights[self._parts[identifiers]].sum(axis=1)


EPSILON = 1e-5


@CustomFunction
def norm_channels(x: mx.array) -> mx.array:
    """RMSNorm over the last axis of ``x [N, D]``."""
    if device_kind() == "cuda":
        return kernels_cuda.norm_channels(x, EPSILON)
    if kernels_cpu.usable(x):
        return kernels_cpu.norm_channels(x, EPSILON)
    return mx.fast.rms_norm(x, None, EPSILON)


@norm_channels.vjp
def _norm_channels_gradient(x: mx.array, cotangent: mx.array, _output: mx.array) -> mx.array:
    if device_kind() == "cuda":
        return kernels_cuda.norm_channels_gradient(x, cotangent, EPSILON)
    if kernels_cpu.usable(x):
        return kernels_cpu.norm_channels_gradient(x, cotangent, EPSILON)
    _, (gradient,) = mx.vjp(lambda x: mx.fast.rms_norm(x, None, EPSILON), [x], [cotangent])
    return gradient


@CustomFunction
def norm_positions(x: mx.array) -> mx.array:
    """RMSNorm over the first axis of ``x [L, N]``."""
    if device_kind() == "cuda":
        return kernels_cuda.norm_positions(x, EPSILON)
    if kernels_cpu.usable(x):
        return kernels_cpu.norm_positions(x, EPSILON)
    x32 = x.astype(mx.float32)
    return (x32 * _scale(x32)).astype(x.dtype)


@norm_positions.vjp
def _norm_positions_gradient(x: mx.array, cotangent: mx.array, _output: mx.array) -> mx.array:
    if device_kind() == "cuda":
        return kernels_cuda.norm_positions_gradient(x, cotangent, EPSILON)
    if kernels_cpu.usable(x):
        return kernels_cpu.norm_positions_gradient(x, cotangent, EPSILON)
    x32, grad = x.astype(mx.float32), cotangent.astype(mx.float32)
    scale = _scale(x32)
    dot = (x32 * grad).mean(axis=0, keepdims=True) * scale**3
    return (grad * scale - x32 * dot).astype(x.dtype)


def _scale(x32: mx.array) -> mx.array:
    return mx.rsqrt(x32.square().mean(axis=0, keepdims=True) + EPSILON)
