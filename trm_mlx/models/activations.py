"""The gated activation of SwiGLU, with a backward pass that keeps its two inputs and no more.

MLX's CPU back end computes exp one element at a time; `_vectorised_exp` uses additions,
multiplications and bit shifts alone, which it vectorises, and is more accurate (1e-7 relative).
"""

import mlx.core as mx

from trm_mlx.backend import device_name

# Adding this to a small float32 rounds it to a whole number, which its low bits then hold.
_ROUNDER = 1.5 * 2**23
# exp(r) = 1 + r + r² (...) for |r| <= ln(2) / 2; the coefficients of Cephes' expf, highest first.
_COEFFICIENTS = (
    1.9875691500e-4,
    1.3981999507e-3,
    8.3334519073e-3,
    4.1665795894e-2,
    1.6666665459e-1,
    5.0000001201e-1,
    1.0,
    1.0,
)


def _vectorised_exp(x: mx.array) -> mx.array:
    """exp of float32 ``x``, clipped to [-87, 88]: 2^n · exp(r) with n = round(x / ln 2)."""
    x = mx.clip(x, -87.0, 88.0)
    rounded = x * 1.44269504088896341 + _ROUNDER
    n = rounded - _ROUNDER
    # ln 2 in two parts, so that n times the first is exact.
    r = x - n * 0.693359375 + n * 2.12194440e-4
    result = mx.array(_COEFFICIENTS[0])
    for coefficient in _COEFFICIENTS[1:]:
        result = result * r + coefficient
    exponent = mx.left_shift(rounded.view(mx.int32), 23)
    return (result.view(mx.int32) + exponent).view(mx.float32)


def sigmoid(x: mx.array) -> mx.array:
    """1 / (1 + exp(-x))."""
    vectorised = x.dtype == mx.float32 and device_name() == "cpu"
    return 1 / (1 + _vectorised_exp(-x)) if vectorised else mx.sigmoid(x)


@mx.custom_function
def gated_silu(gate: mx.array, up: mx.array) -> mx.array:
    """``silu(gate) * up``."""
    return gate * sigmoid(gate) * up


@gated_silu.vjp
def _gated_silu_vjp(
    primals: tuple[mx.array, mx.array], cotangent: mx.array, _output: mx.array
) -> tuple[mx.array, mx.array]:
    gate, up = primals
    share = sigmoid(gate)
    silu = gate * share
    return cotangent * up * (share + silu * (1 - share)), cotangent * silu
