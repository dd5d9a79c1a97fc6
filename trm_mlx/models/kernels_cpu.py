"""What MLX's CPU back end is slow at, done by compiled loops on all cores.

It computes exp and arctan2 one by one, and whatever is not a matrix product on one core. Each loop
does the work of a plain function of the same name in ``blocks``, ``layers``, ``attention``,
``convolution`` or ``train.optim``, which call it for float32 arrays on the CPU; tests compare them.
Arrays are evaluated and their memory is read and written in place. Numba compiles the loops to
vector instructions, each in a fraction of a second, once per machine; on a GPU it is not imported.
"""

import functools
import math
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
CACHED = 2**17  # scores that a core works on at a time, in elements

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
    gated, target = _new(len(product) // 2, product.shape[1])
    gate, up = _values(product).reshape(2, -1)
    _share(_gated_silu, gate.size, gate.size, gate, up, target.ravel())
    return gated


def gated_silu_gradients(product: mx.array, cotangent: mx.array) -> tuple[mx.array, mx.array]:
    """See ``blocks.gated_silu_gradients``."""
    (d_product, d_target), (gated, target) = _new(*product.shape), _new(*cotangent.shape)
    gate, up = _values(product).reshape(2, -1)
    arrays = _values(cotangent).ravel(), *d_target.reshape(2, -1), target.ravel()
    _share(_gated_silu_gradients, gate.size, gate.size, gate, up, *arrays)
    return d_product, gated


def norm_channels(x: mx.array, epsilon: float) -> mx.array:
    """See ``layers.norm_channels``; ``x [R, D]``."""
    normed, target = _new(*x.shape)
    _share(_norm_channels, len(x), x.size, _values(x), target, np.float32(epsilon))
    return normed


def norm_channels_gradient(x: mx.array, cotangent: mx.array, epsilon: float) -> mx.array:
    """The gradient of `norm_channels` at ``x``."""
    gradient, target = _new(*x.shape)
    arrays = _values(x), _values(cotangent), target
    _share(_norm_channels_gradient, len(x), x.size, *arrays, np.float32(epsilon))
    return gradient


def norm_positions(x: mx.array, epsilon: float) -> mx.array:
    """See ``layers.norm_positions``; ``x [L, N]``."""
    normed, target = _new(*x.shape)
    _share(_norm_positions, x.shape[1], x.size, _values(x), target, np.float32(epsilon))
    return normed


def norm_positions_gradient(x: mx.array, cotangent: mx.array, epsilon: float) -> mx.array:
    """The gradient of `norm_positions` at ``x``."""
    gradient, target = _new(*x.shape)
    arrays = _values(x), _values(cotangent), target
    _share(_norm_positions_gradient, x.shape[1], x.size, *arrays, np.float32(epsilon))
    return gradient


def attend(qkv: mx.array, turns: Sequence[Turn]) -> mx.array:
    """Attention ``[B, L, H, D]`` of every head of ``qkv [B, L, 3, H, D]``, its scores not scaled.

    Args:
        turns: of queries, keys and values.
    """
    batch, length, _, heads, dims = qkv.shape
    mixed, target = _new(batch, length, 1, heads, dims)
    count = batch * heads
    _share(_attend, count, count * length**2, _values(qkv), target, turns)
    return mixed.squeeze(2)


def attend_gradient(qkv: mx.array, cotangent: mx.array, turns: Sequence[Turn]) -> mx.array:
    """The gradient ``[B, L, 3, H, D]`` of `attend` at ``qkv``."""
    batch, length, _, heads, _ = qkv.shape
    gradient, target = _new(*qkv.shape)
    count, arrays = batch * heads, map(_values, (qkv, cotangent[:, :, None]))
    _share(_attend_gradient, count, count * length**2, *arrays, target, turns)
    return gradient


def _attend(
    start: int, stop: int, tokens: np.ndarray, mixed: np.ndarray, turns: Sequence[Turn]
) -> None:
    for heads in _in_cache(start, stop, tokens.shape[1]):
        query, key, value = _split(tokens, heads, turns)
        for rows, shares in _attention(query, key):
            multiply_all(shares, value, query[:, rows])  # nobody else needs these queries
        _turn(heads.start, 0, True, mixed, query, *turns[2])


def _attend_gradient(
    start: int,
    stop: int,
    tokens: np.ndarray,
    cotangent: np.ndarray,
    gradient: np.ndarray,
    turns: Sequence[Turn],
) -> None:
    for heads in _in_cache(start, stop, tokens.shape[1]):
        query, key, value = _split(tokens, heads, turns)
        (grad,) = _split(cotangent, heads, turns[2:])
        gradients = [np.zeros_like(query) for _ in range(3)]
        for rows, shares in _attention(query, key):
            multiply_all(shares.swapaxes(1, 2), grad[:, rows], gradients[2], adds=True)
            scores = np.empty_like(shares)
            multiply_all(grad[:, rows], value.swapaxes(1, 2), scores)
            _softmax_gradient(shares, scores)
            multiply_all(scores, key, gradients[0][:, rows])
            multiply_all(scores.swapaxes(1, 2), query[:, rows], gradients[1], adds=True)
        for part, (array, (cosines, sines)) in enumerate(zip(gradients, turns, strict=True)):
            _turn(heads.start, part, True, gradient, array, cosines, -sines)


def _in_cache(start: int, stop: int, length: int) -> Iterator[range]:
    """So many heads at a time that the scores stay in a core's cache."""
    step = max(1, CACHED // length**2)
    for first in range(start, stop, step):
        yield range(first, min(first + step, stop))


def _split(tokens: np.ndarray, heads: range, turns: Sequence[Turn]) -> list[np.ndarray]:
    """The parts ``[heads, L, D]`` of ``tokens [B, L, parts, H, D]``, each turned by its turn."""
    parts = []
    for part, turn in enumerate(turns):
        parts.append(np.empty((len(heads), tokens.shape[1], tokens.shape[4]), np.float32))
        _turn(heads.start, part, False, tokens, parts[-1], *turn)
    return parts


def _attention(query: np.ndarray, key: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """What the positions of some rows take of each position, ``[heads, rows, L]``."""
    count, length, _ = query.shape
    step = max(1, CACHED // (count * length))
    for first in range(0, length, step):
        rows = slice(first, first + step)
        shares = np.empty((count, query[:, rows].shape[1], length), np.float32)
        multiply_all(query[:, rows], key.swapaxes(1, 2), shares)
        _softmax(shares)
        yield rows, shares


def convolve(x: mx.array, taps: mx.array, prefix: int) -> mx.array:
    """See ``convolution.convolve``."""
    mixed, target = _new(*x.shape)
    values = _values(x)
    target[:] = values
    boards = _boards(values, prefix), _boards(target, prefix)
    _share(_convolve, len(x) * boards[0].shape[1], x.size, *boards, _values(taps))
    return mixed


def taps_gradient(x: mx.array, cotangent: mx.array, prefix: int) -> mx.array:
    """See ``convolution.taps_gradient``."""
    gradient, target = _new(3, 3, x.shape[2])
    boards = (_boards(_values(array), prefix) for array in (x, cotangent))
    _share(_taps_gradient, x.shape[2], x.size, *boards, target)
    return gradient


def _boards(values: np.ndarray, prefix: int) -> np.ndarray:
    """The boards ``[B, side, side, D]`` of ``values [B, P + side**2, D]``."""
    side = math.isqrt(values.shape[1] - prefix)
    return values[:, prefix:].reshape(len(values), side, side, -1)


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
    results, targets = zip(*(_new(*parameter.shape) for _ in range(3)), strict=True)
    values = map(_values, (gradient, parameter, *moments))
    arrays = [array.ravel() for array in (*values, *targets)]
    _share(_adam_atan2, parameter.size, parameter.size, *arrays, *map(np.float32, factors))
    return results


def _values(x: mx.array) -> np.ndarray:
    """The values of an array, in rows, to read: its memory or a copy."""
    x = mx.contiguous(x)  # a copy too of what lies in a buffer that is far larger, as GPUs reuse
    mx.eval(x)
    return np.array(x, copy=False)


def _new(*shape: int) -> tuple[mx.array, np.ndarray]:
    """An array of zeros, and its memory to write its values into."""
    x = mx.zeros(shape)
    mx.eval(x)
    return x, np.array(x, copy=False)


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
def _convolve(start, stop, boards, mixed, taps):
    side = boards.shape[1]
    for item in range(start, stop):
        board, row = item // side, item % side
        for column in range(side):
            target = mixed[board, row, column]
            for i in range(max(row - 1, 0), min(row + 2, side)):
                for j in range(max(column - 1, 0), min(column + 2, side)):
                    values, tap = boards[board, i, j], taps[i - row + 1, j - column + 1]
                    for channel in range(len(target)):
                        target[channel] += values[channel] * tap[channel]


@_loop
def _taps_gradient(start, stop, boards, grad, gradient):
    side = boards.shape[1]
    for board in range(len(boards)):
        for row in range(side):
            for column in range(side):
                slopes = grad[board, row, column, start:stop]
                for i in range(max(row - 1, 0), min(row + 2, side)):
                    for j in range(max(column - 1, 0), min(column + 2, side)):
                        values = boards[board, i, j, start:stop]
                        target = gradient[i - row + 1, j - column + 1, start:stop]
                        for channel in range(len(slopes)):
                            target[channel] += values[channel] * slopes[channel]


@_loop
def _turn(first, part, merges, tokens, heads, cosines, sines):
    half = cosines.shape[1]
    for number in range(len(heads)):
        sample, head = (first + number) // tokens.shape[3], (first + number) % tokens.shape[3]
        for row in range(tokens.shape[1]):
            outside, inside = tokens[sample, row, part, head], heads[number, row]
            source, target = (inside, outside) if merges else (outside, inside)
            for i in range(half):
                low, high, c, s = source[i], source[half + i], cosines[row, i], sines[row, i]
                target[i] = low * c - high * s
                target[half + i] = high * c + low * s


@_summing_loop
def _softmax(scores):
    """In place of the scores."""
    for head in range(scores.shape[0]):
        for row in range(scores.shape[1]):
            shares = scores[head, row]
            top = shares[0]
            for i in range(len(shares)):
                top = max(top, shares[i])
            total = np.float32(0.0)
            for i in range(len(shares)):
                shares[i] = _exp(shares[i] - top)
                total += shares[i]
            for i in range(len(shares)):
                shares[i] /= total


@_summing_loop
def _softmax_gradient(shares, grad):
    """In place of the gradient of the shares."""
    for head in range(shares.shape[0]):
        for row in range(shares.shape[1]):
            share, slope = shares[head, row], grad[head, row]
            dot = np.float32(0.0)
            for i in range(len(share)):
                dot += share[i] * slope[i]
            for i in range(len(share)):
                slope[i] = share[i] * (slope[i] - dot)


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
