"""What MLX's CPU back end is slow at, done by compiled loops: it computes exp one by one.

Each does the work of a plain function of the same name in ``blocks`` or ``attention``, which
call it for float32 arrays on the CPU; a test compares the two. Arrays are evaluated and their
memory is read and written in place. Numba compiles the loops to vector instructions, each in a
fraction of a second, once per machine; on a GPU it is not imported.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import mlx.core as mx
import numpy as np

from trm_mlx.device import device_kind
from trm_mlx.numba_jit import compiled, uninterrupted

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
    rows, columns = product.shape
    gated = mx.zeros((rows // 2, columns))
    gate, up = _values(product).reshape(2, -1)
    _gated_silu(gate, up, _values(gated).ravel())
    return gated


def gated_silu_gradients(product: mx.array, cotangent: mx.array) -> tuple[mx.array, mx.array]:
    """See ``blocks.gated_silu_gradients``."""
    d_product, gated = mx.zeros(product.shape), mx.zeros(cotangent.shape)
    gate, up = _values(product).reshape(2, -1)
    d_gate, d_up = _values(d_product).reshape(2, -1)
    grad = _values(cotangent).ravel()
    _gated_silu_gradients(gate, up, grad, d_gate, d_up, _values(gated).ravel())
    return d_product, gated


def softmax(scores: mx.array) -> mx.array:
    """See ``attention.softmax``."""
    shares = mx.zeros(scores.shape)
    columns = scores.shape[-1]
    _softmax(_values(scores).reshape(-1, columns), _values(shares).reshape(-1, columns))
    return shares


def _values(x: mx.array) -> np.ndarray:
    """The memory of an array, in rows."""
    x = mx.contiguous(x)
    mx.eval(x)
    return np.array(x, copy=False)


# Nothing in a loop may branch or check for division by zero, or it is no longer vectorised.
_loop = compiled(error_model="numpy", nogil=True)


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


@uninterrupted
@_loop
def _gated_silu(gate, up, gated):
    for i in range(gate.size):
        gated[i] = gate[i] / (np.float32(1.0) + _exp(-gate[i])) * up[i]


@uninterrupted
@_loop
def _gated_silu_gradients(gate, up, grad, d_gate, d_up, gated):
    for i in range(gate.size):
        bottom = np.float32(1.0) + _exp(-gate[i])
        share, silu = np.float32(1.0) / bottom, gate[i] / bottom
        gated[i] = silu * up[i]
        d_up[i] = grad[i] * silu
        d_gate[i] = grad[i] * up[i] * (share + silu * (np.float32(1.0) - share))


@uninterrupted
@_loop
def _softmax(scores, shares):
    for row in range(scores.shape[0]):
        top = scores[row, 0]
        for column in range(scores.shape[1]):
            top = max(top, scores[row, column])
        for column in range(scores.shape[1]):
            shares[row, column] = _exp(scores[row, column] - top)
        total = np.float32(0.0)
        for column in range(scores.shape[1]):
            total += shares[row, column]
        for column in range(scores.shape[1]):
            shares[row, column] /= total
