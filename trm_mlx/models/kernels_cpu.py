"""What MLX's CPU back end is slow at, done by compiled loops on all cores.

It computes exp and arctan2 one by one, and whatever is not a matrix product on one core. Each loop
does the work of a plain function of the same name in ``blocks``, ``layers``, ``attention`` or
``train.optim``, which call it for float32 arrays on the CPU; tests compare them. Arrays are
evaluated and their memory is read and written in place. Numba compiles the loops to vector
instructions, each in a fraction of a second, once per machine; on a GPU it is not imported.
"""

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import mlx.core as mx
import numpy as np

from trm_mlx.device import device_kind
from trm_mlx.models.batched_blas import multiply_all
from trm_mlx.numba_jit import compiled, uninterrupted

# Elements below which a second core costs more than it brings.
PART = 2**15

Turn = tuple[np.ndarray, np.ndarray]  # cosines and sines [L, D / 2] of a rotary encoding

_enabled = True


def usable(x: mx.array) -> bool:
    """Whether the loops apply to an array."""
    return _enabled and x.dtype == mx.float32 and device_kind() == "cpu"


@contextmanager
def disabled() -> Iterator[None]:
    """Plain functions only: while ``mx.compile`` traces there are no values to read."""
    global _enabled
    before, _enabled = _enabled, False
    try:
        yield
    finally:
        _enabled = before


def gated_silu(product: mx.array) -> mx.array:
    """See ``blocks.gated_silu``."""
    gated = mx.zeros((len(product) // 2, product.shape[1]))
    gate, up = _values(product).reshape(2, -1)
    _share(_gated_silu, gate.size, gate.size, gate, up, _values(gated).ravel())
    return gated


def gated_silu_gradients(product: mx.array, cotangent: mx.array) -> tuple[mx.array, mx.array]:
    """See ``blocks.gated_silu_gradients``."""
    d_product, gated = mx.zeros(product.shape), mx.zeros(cotangent.shape)
    gate, up = _values(product).reshape(2, -1)
    d_gate, d_up = _values(d_product).reshape(2, -1)
    arrays = _values(cotangent).ravel(), d_gate, d_up, _values(gated).ravel()
    _share(_gated_silu_gradients, gate.size, gate.size, gate, up, *arrays)
    return d_product, gated


def norm_channels(x: mx.array, epsilon: float) -> mx.array:
    """See ``layers.norm_channels``; ``x [R, D]``."""
    normed = mx.zeros(x.shape)
    _share(_norm_channels, len(x), x.size, _values(x), _values(normed), np.float32(epsilon))
    return normed


def norm_channels_gradient(x: mx.array, cotangent: mx.array, epsilon: float) -> mx.array:
    """The gradient of `norm_channels` at ``x``."""
    gradient = mx.zeros(x.shape)
    arrays = _values(x), _values(cotangent), _values(gradient)
    _share(_norm_channels_gradient, len(x), x.size, *arrays, np.float32(epsilon))
    return gradient


def norm_positions(x: mx.array, epsilon: float) -> mx.array:
    """See ``layers.norm_positions``; ``x [L, N]``."""
    normed = mx.zeros(x.shape)
    arrays = _values(x), _values(normed)
    _share(_norm_positions, x.shape[1], x.size, *arrays, np.float32(epsilon))
    return normed


def norm_positions_gradient(x: mx.array, cotangent: mx.array, epsilon: float) -> mx.array:
    """The gradient of `norm_positions` at ``x``."""
    gradient = mx.zeros(x.shape)
    arrays = _values(x), _values(cotangent), _values(gradient)
    _share(_norm_positions_gradient, x.shape[1], x.size, *arrays, np.float32(epsilon))
    return gradient


def attend(qkv: mx.array, turns: Sequence[Turn]) -> list[mx.array]:
    """Attention of every head of ``qkv [B, L, 3, H, D]``, without the scaling of its scores.

    Args:
        turns: of queries and of keys.

    Returns:
        The result ``[B, L, H, D]``, and what `attend_gradient` wants: turned queries and keys
        ``[B, H, L, D]`` and what each position takes of the others, ``[B, H, L, L]``.
    """
    batch, length, _, heads, dims = qkv.shape
    in_heads = batch, heads, length
    shapes = (batch, length, heads, dims), (*in_heads, dims), (*in_heads, dims), (*in_heads, length)
    results = [mx.zeros(shape) for shape in shapes]
    arrays = [_values(x) for x in (qkv, *results)]
    _share(_attend, batch, results[-1].size, arrays, turns)
    return results


def attend_gradient(
    qkv: mx.array, cotangent: mx.array, kept: Sequence[mx.array], turns: Sequence[Turn]
) -> mx.array:
    """The gradient ``[B, L, 3, H, D]`` of `attend` at ``qkv``; ``kept`` are its other results."""
    gradient = mx.zeros(qkv.shape)
    arrays = [_values(x) for x in (qkv, cotangent, *kept, gradient)]
    back = [(cosines, -sines) for cosines, sines in turns]
    _share(_attend_gradient, len(qkv), kept[-1].size, arrays, back)
    return gradient


def _attend(start: int, stop: int, arrays: Sequence[np.ndarray], turns: Sequence[Turn]) -> None:
    tokens, mixed, query, key, shares = (array[start:stop] for array in arrays)
    for part, (heads, turn) in enumerate(zip((query, key), turns, strict=True)):
        _turn(part, False, tokens, heads, *turn)
    multiply_all(query, key.swapaxes(2, 3), shares)
    _softmax(shares.reshape(-1, shares.shape[3]))
    multiply_all(shares, tokens[:, :, 2].swapaxes(1, 2), mixed.swapaxes(1, 2))


def _attend_gradient(
    start: int, stop: int, arrays: Sequence[np.ndarray], back: Sequence[Turn]
) -> None:
    tokens, grad, query, key, shares, target = (array[start:stop] for array in arrays)
    grad, length = grad.swapaxes(1, 2), shares.shape[3]
    scores, heads = np.empty_like(shares), np.empty_like(query)
    multiply_all(shares.swapaxes(2, 3), grad, target[:, :, 2].swapaxes(1, 2))
    multiply_all(grad, tokens[:, :, 2].transpose(0, 2, 3, 1), scores)
    _softmax_gradient(shares.reshape(-1, length), scores.reshape(-1, length))
    multiply_all(scores, key, heads)
    _turn(0, True, target, heads, *back[0])
    multiply_all(scores.swapaxes(2, 3), query, heads)
    _turn(1, True, target, heads, *back[1])


def adam_atan2(
    gradient: mx.array,
    parameter: mx.array,
    moments: tuple[mx.array, mx.array],
    factors: Sequence[float],
) -> tuple[mx.array, mx.array, mx.array]:
    """See ``train.optim.AdamATan2``; returns the parameter and both moments.

    Args:
        factors: 1 - beta of both moments, the bias correction of the deviation, the length of the
            change, and what decay leaves of the parameter.
    """
    results = [mx.zeros(parameter.shape) for _ in range(3)]
    arrays = [_values(x).ravel() for x in (gradient, parameter, *moments, *results)]
    _share(_adam_atan2, parameter.size, parameter.size, *arrays, *map(np.float32, factors))
    return tuple(results)


def _values(x: mx.array) -> np.ndarray:
    """The memory of an array, in rows."""
    x = mx.contiguous(x)
    mx.eval(x)
    return np.array(x, copy=False)


@uninterrupted
def _share(loop: Callable, count: int, size: int, *arguments) -> None:
    """Run ``loop(start, stop, *arguments)`` over ``count`` items, on all cores.

    Args:
        size: of the arrays, in elements.
    """
    cores = min(_cores(), count, max(1, size // PART))
    bounds = [count * i // cores for i in range(cores + 1)]
    others = [
        _threads(os.getpid()).submit(loop, *bounds[i : i + 2], *arguments) for i in range(1, cores)
    ]
    loop(*bounds[:2], *arguments)
    for other in others:
        other.result()


@functools.cache
def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def _threads(_process: int) -> ThreadPoolExecutor:
    """The threads of this process: one that is forked has none of its parent's."""
    return ThreadPoolExecutor(_cores(), thread_name_prefix="loops")


# Nothing in a loop may branch or check for division by zero, or it is no longer vectorised. Nor may
# an index that counts from a variable: it could be negative, and mean an element from the end.
_loop = compiled(error_model="numpy", nogil=True, fastmath={"contract"})
# Nor may a sum keep its order.
_summing_loop = compiled(error_model="numpy", nogil=True, fastmath={"contract", "reassoc"})


@_loop
def _exp(x):
    """2^n · exp(r) with n = round(x / ln 2), after Cephes' expf; relative error 2e-7."""
    x = np.float32(-87.0) if x < np.float32(-87.0) else x
    x = np.float32(88.0) if x > np.float32(88.0) else x
    # Adding and taking away 1.5 · 2^23 rounds to a whole number.
    n = (x * np.float32(1.44269504088896341) + np.float32(12582912.0)) - np.float32(12582912.0)
    r = x - n * np.float32(0.693359375) + n * np.float32(2.12194440e-4)
    p = np.float32(1.9875691500e-4)
    p = p * r + np.float32(1.3981999507e-3)
    p = p * r + np.float32(8.3334519073e-3)
    p = p * r + np.float32(4.1665795894e-2)
    p = p * r + np.float32(1.6666665459e-1)
    p = p * r + np.float32(5.0000001201e-1)
    p = p * r * r + r + np.float32(1.0)
    return p * np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)


@_loop
def _gated_silu(start, stop, gate, up, gated):
    gate, up, gated = gate[start:stop], up[start:stop], gated[start:stop]
    for i in range(len(gate)):
        gated[i] = gate[i] / (np.float32(1.0) + _exp(-gate[i])) * up[i]


@_loop
def _gated_silu_gradients(start, stop, gate, up, grad, d_gate, d_up, gated):
    gate, up, grad = gate[start:stop], up[start:stop], grad[start:stop]
    d_gate, d_up, gated = d_gate[start:stop], d_up[start:stop], gated[start:stop]
    for i in range(len(gate)):
        bottom = np.float32(1.0) + _exp(-gate[i])
        share, silu = np.float32(1.0) / bottom, gate[i] / bottom
        gated[i] = silu * up[i]
        d_up[i] = grad[i] * silu
        d_gate[i] = grad[i] * up[i] * (share + silu * (np.float32(1.0) - share))


@_summing_loop
def _norm_channels(start, stop, x, normed, epsilon):
    columns = x.shape[1]
    for row in range(start, stop):
        total = np.float32(0.0)
        for column in range(columns):
            total += x[row, column] * x[row, column]
        scale = np.float32(1.0) / np.sqrt(total / np.float32(columns) + epsilon)
        for column in range(columns):
            normed[row, column] = x[row, column] * scale


@_summing_loop
def _norm_channels_gradient(start, stop, x, grad, gradient, epsilon):
    columns = x.shape[1]
    for row in range(start, stop):
        total, dot = np.float32(0.0), np.float32(0.0)
        for column in range(columns):
            total += x[row, column] * x[row, column]
            dot += x[row, column] * grad[row, column]
        scale = np.float32(1.0) / np.sqrt(total / np.float32(columns) + epsilon)
        dot *= scale * scale * scale / np.float32(columns)
        for column in range(columns):
            gradient[row, column] = grad[row, column] * scale - x[row, column] * dot


@_loop
def _norm_positions(start, stop, x, normed, epsilon):
    scale = np.zeros(stop - start, np.float32)
    for row in range(len(x)):
        values = x[row, start:stop]
        for i in range(len(scale)):
            scale[i] += values[i] * values[i]
    for i in range(len(scale)):
        scale[i] = np.float32(1.0) / np.sqrt(scale[i] / np.float32(len(x)) + epsilon)
    for row in range(len(x)):
        values, target = x[row, start:stop], normed[row, start:stop]
        for i in range(len(scale)):
            target[i] = values[i] * scale[i]


@_loop
def _norm_positions_gradient(start, stop, x, grad, gradient, epsilon):
    scale, dot = np.zeros(stop - start, np.float32), np.zeros(stop - start, np.float32)
    for row in range(len(x)):
        values, slopes = x[row, start:stop], grad[row, start:stop]
        for i in range(len(scale)):
            scale[i] += values[i] * values[i]
            dot[i] += values[i] * slopes[i]
    for i in range(len(scale)):
        scale[i] = np.float32(1.0) / np.sqrt(scale[i] / np.float32(len(x)) + epsilon)
        dot[i] *= scale[i] * scale[i] * scale[i] / np.float32(len(x))
    for row in range(len(x)):
        values, slopes = x[row, start:stop], grad[row, start:stop]
        target = gradient[row, start:stop]
        for i in range(len(scale)):
            target[i] = slopes[i] * scale[i] - values[i] * dot[i]


@_loop
def _turn(part, merges, tokens, heads, cosines, sines):
    half = cosines.shape[1]
    for sample in range(len(tokens)):
        for row in range(tokens.shape[1]):
            for head in range(tokens.shape[3]):
                outside, inside = tokens[sample, row, part, head], heads[sample, head, row]
                source, target = (inside, outside) if merges else (outside, inside)
                for i in range(half):
                    low, high, c, s = source[i], source[half + i], cosines[row, i], sines[row, i]
                    target[i] = low * c - high * s
                    target[half + i] = high * c + low * s


@_summing_loop
def _softmax(scores):
    """In place of the scores."""
    for row in range(len(scores)):
        top = scores[row, 0]
        for column in range(scores.shape[1]):
            top = max(top, scores[row, column])
        total = np.float32(0.0)
        for column in range(scores.shape[1]):
            scores[row, column] = _exp(scores[row, column] - top)
            total += scores[row, column]
        for column in range(scores.shape[1]):
            scores[row, column] /= total


@_summing_loop
def _softmax_gradient(shares, grad):
    """In place of the gradient of the shares."""
    for row in range(len(shares)):
        dot = np.float32(0.0)
        for column in range(shares.shape[1]):
            dot += shares[row, column] * grad[row, column]
        for column in range(shares.shape[1]):
            grad[row, column] = shares[row, column] * (grad[row, column] - dot)


@_loop
def _arctan2(y, x):
    """For x from 0 on, after Cephes' atanf; relative error 3e-7, and 0 where y is 0."""
    size = abs(y)
    small, large = min(size, x), max(size, x)
    ratio = small / (large if large > np.float32(0.0) else np.float32(1.0))
    steep = ratio > np.float32(0.41421356)  # tan(pi / 8)
    z = (ratio - np.float32(1.0)) / (ratio + np.float32(1.0)) if steep else ratio
    square = z * z
    p = np.float32(8.05374449538e-2)
    p = p * square - np.float32(1.38776856032e-1)
    p = p * square + np.float32(1.99777106478e-1)
    p = p * square - np.float32(3.33329491539e-1)
    angle = p * square * z + z + (np.float32(0.78539816) if steep else np.float32(0.0))
    angle = np.float32(1.57079633) - angle if size > x else angle
    angle = -angle if y < np.float32(0.0) else angle
    return angle * (np.float32(1.0) + np.float32(0.0) * y)  # not a number where y is not


@_loop
def _adam_atan2(
    start, stop, grad, parameter, m, v, changed, new_m, new_v, gain_m, gain_v, bias, length, kept
):
    grad, parameter, changed = grad[start:stop], parameter[start:stop], changed[start:stop]
    m, v, new_m, new_v = m[start:stop], v[start:stop], new_m[start:stop], new_v[start:stop]
    for i in range(len(grad)):
        new_m[i] = m[i] + gain_m * (grad[i] - m[i])
        new_v[i] = v[i] + gain_v * (grad[i] * grad[i] - v[i])
        angle = _arctan2(new_m[i], np.sqrt(new_v[i]) / bias)
        changed[i] = parameter[i] * kept - length * angle
