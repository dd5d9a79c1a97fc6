"""RMSNorm without weight, along channels or along positions, computed in float32."""

import mlx.core as mx

from trm_mlx.backend import device_name
from trm_mlx.models import cuda_kernels

EPSILON = 1e-5


@mx.custom_function
def norm_channels(x: mx.array) -> mx.array:
    """RMSNorm over the last axis of ``x [N, D]``."""
    if device_name() == "cuda":
        return cuda_kernels.norm_channels(x, EPSILON)
    return mx.fast.rms_norm(x, None, EPSILON)


@norm_channels.vjp
def _norm_channels_gradient(x: mx.array, cotangent: mx.array, _output: mx.array) -> mx.array:
    if device_name() == "cuda":
        return cuda_kernels.norm_channels_gradient(x, cotangent, EPSILON)
    _, (gradient,) = mx.vjp(lambda x: mx.fast.rms_norm(x, None, EPSILON), [x], [cotangent])
    return gradient


@mx.custom_function
def norm_positions(x: mx.array) -> mx.array:
    """RMSNorm over the first axis of ``x [L, N]``."""
    if device_name() == "cuda":
        return cuda_kernels.norm_positions(x, EPSILON)
    wide = x.astype(mx.float32)
    return (wide * _scale(wide)).astype(x.dtype)


@norm_positions.vjp
def _norm_positions_gradient(x: mx.array, cotangent: mx.array, _output: mx.array) -> mx.array:
    if device_name() == "cuda":
        return cuda_kernels.norm_positions_gradient(x, cotangent, EPSILON)
    wide, slope = x.astype(mx.float32), cotangent.astype(mx.float32)
    scale = _scale(wide)
    pull = (wide * slope).mean(axis=0, keepdims=True) * scale**3
    return (slope * scale - wide * pull).astype(x.dtype)


def _scale(wide: mx.array) -> mx.array:
    return mx.rsqrt(wide.square().mean(axis=0, keepdims=True) + EPSILON)
