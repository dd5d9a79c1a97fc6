"""The gated activation of SwiGLU and its gradients."""

import mlx.core as mx

from trm_mlx.backend import device_name
from trm_mlx.models import cpu_kernels, cuda_kernels


def gated_silu(product: mx.array) -> mx.array:
    """``silu(gate) * up``, ``[R, C]``, of ``product [2R, C]``, gate above up."""
    if device_name() == "cuda":
        return cuda_kernels.gated_silu(product)
    if cpu_kernels.usable(product):
        return cpu_kernels.gated_silu(product)
    gate, up = mx.split(product, 2)
    wide = gate.astype(mx.float32)
    return (wide * mx.sigmoid(wide)).astype(gate.dtype) * up


def gated_silu_gradients(product: mx.array, cotangent: mx.array) -> tuple[mx.array, mx.array]:
    """The gradient ``[2R, C]`` of `gated_silu` at ``product``, and its value once more.

    The value is cheap to make again, and a gradient needs it next: nobody has to keep it.
    """
    if device_name() == "cuda":
        return cuda_kernels.gated_silu_gradients(product, cotangent)
    if cpu_kernels.usable(product):
        return cpu_kernels.gated_silu_gradients(product, cotangent)
    gate, up = mx.split(product, 2)
    wide = gate.astype(mx.float32)
    share = mx.sigmoid(wide)
    silu = (wide * share).astype(gate.dtype)
    d_gate = (cotangent * up).astype(mx.float32) * (share + silu * (1 - share))
    return mx.concatenate([d_gate.astype(gate.dtype), cotangent * silu]), silu * up
