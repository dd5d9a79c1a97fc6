"""What MLX's CPU back end is slow at, done by compiled loops: it computes exp one by one.

Each does the work of a plain function of the same name in ``blocks`` or ``attention``, which
call it for float32 arrays on the CPU; a test compares the two. Arrays are evaluated and their
memory is read and written in place. The loops are imported when first used: a GPU needs none.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import mlx.core as mx
import numpy as np

from trm_mlx.device import device_kind

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
    from trm_mlx.models import kernels_cpu_loops

    gated = mx.zeros((rows // 2, columns))
    gate, up = _values(product).reshape(2, -1)
    kernels_cpu_loops.gated_silu(gate, up, _values(gated).ravel())
    return gated


def gated_silu_gradients(product: mx.array, cotangent: mx.array) -> tuple[mx.array, mx.array]:
    """See ``blocks.gated_silu_gradients``."""
    from trm_mlx.models import kernels_cpu_loops

    d_product, gated = mx.zeros(product.shape), mx.zeros(cotangent.shape)
    gate, up = _values(product).reshape(2, -1)
    d_gate, d_up = _values(d_product).reshape(2, -1)
    grad = _values(cotangent).ravel()
    kernels_cpu_loops.gated_silu_gradients(gate, up, grad, d_gate, d_up, _values(gated).ravel())
    return d_product, gated


def softmax(scores: mx.array) -> mx.array:
    """See ``attention.softmax``."""
    from trm_mlx.models import kernels_cpu_loops

    shares = mx.zeros(scores.shape)
    columns = scores.shape[-1]
    kernels_cpu_loops.softmax(
        _values(scores).reshape(-1, columns), _values(shares).reshape(-1, columns)
    )
    return shares


def _values(x: mx.array) -> np.ndarray:
    """The memory of an array, in rows."""
    x = mx.contiguous(x)
    mx.eval(x)
    return np.array(x, copy=False)
