"""Element-wise loops over NumPy arrays, which Numba compiles to vector instructions.

Each takes a fraction of a second to compile, once per machine. Nothing in a loop may branch or
check for division by zero, or it is no longer vectorised.
"""

import numpy as np

from trm_mlx.numba_jit import compiled, uninterrupted

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
def gated_silu(gate, up, gated):
    for i in range(gate.size):
        gated[i] = gate[i] / (np.float32(1.0) + _exp(-gate[i])) * up[i]


@uninterrupted
@_loop
def gated_silu_gradients(gate, up, grad, d_gate, d_up, gated):
    for i in range(gate.size):
        bottom = np.float32(1.0) + _exp(-gate[i])
        share, silu = np.float32(1.0) / bottom, gate[i] / bottom
        gated[i] = silu * up[i]
        d_up[i] = grad[i] * silu
        d_gate[i] = grad[i] * up[i] * (share + silu * (np.float32(1.0) - share))


@uninterrupted
@_loop
def softmax(scores, shares):
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
