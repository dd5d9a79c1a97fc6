"""SwiGLU with its residual, ``x + down(silu(gate) * up)``, along channels or along positions.

The gradient is written out, so that every product is one matrix product on arrays as they lie in
memory, the residual is added inside a product, and only the product of gate and up is kept for
it, or, with ``recompute``, nothing.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import mlx.core as mx

from trm_mlx.models.activations import gated_silu, gated_silu_gradients


class Axis(NamedTuple):
    """The matrix products of a SwiGLU along one axis; weights are cast, ``x`` is two-dimensional.

    gate_up ``[2J, D]`` and down ``[D, J]`` are the published weights, hidden is ``[R, C]`` and
    product ``[2R, C]``, gate above up.
    """

    product: Callable  # (x, gate_up) -> product
    down: Callable  # (x, hidden, down) -> x + down(hidden)
    hidden_slope: Callable  # (slope, down) -> gradient of hidden
    input_slope: Callable  # (slope, product's gradient, gate_up) -> gradient of x
    weight_slopes: Callable  # (x, product's gradient, hidden, slope) -> of gate_up, of down


def _channel_product(x: mx.array, gate_up: mx.array) -> mx.array:
    planes = x @ gate_up.reshape(2, -1, gate_up.shape[1]).swapaxes(1, 2)
    return planes.reshape(-1, planes.shape[2])


def _channel_input_slope(slope: mx.array, product: mx.array, gate_up: mx.array) -> mx.array:
    for part, weight in zip(mx.split(product, 2), mx.split(gate_up, 2), strict=True):
        slope = mx.addmm(slope, part, weight)
    return slope


def _channel_weight_slopes(
    x: mx.array, product: mx.array, hidden: mx.array, slope: mx.array
) -> tuple[mx.array, mx.array]:
    planes = product.reshape(2, -1, product.shape[1])
    # x with a batch axis too: for a plain matrix MLX would copy the transposed planes.
    gate_up = planes.swapaxes(1, 2) @ x[None]
    return gate_up.reshape(-1, x.shape[1]), slope.T @ hidden


CHANNELS = Axis(
    product=_channel_product,
    down=lambda x, hidden, down: mx.addmm(x, hidden, down.T),
    hidden_slope=lambda slope, down: slope @ down,
    input_slope=_channel_input_slope,
    weight_slopes=_channel_weight_slopes,
)

# Gate and up weights are used transposed in memory: a row of them, as long as the puzzle, would
# not start on the 16-byte boundaries that matrix units want.
POSITIONS = Axis(
    product=lambda x, gate_up: mx.contiguous(gate_up.T).T @ x,
    down=lambda x, hidden, down: mx.addmm(x, down, hidden),
    hidden_slope=lambda slope, down: down.T @ slope,
    input_slope=lambda slope, product, gate_up: mx.addmm(slope, mx.contiguous(gate_up.T), product),
    weight_slopes=lambda x, product, hidden, slope: ((x @ product.T).T, slope @ hidden.T),
)


@functools.cache
def residual_swiglu(axis: Axis, recompute: bool) -> Callable:
    """The function ``(x, gate_up, down) -> x + swiglu(x)``, its weights cast to the dtype of x.

    Args:
        axis: `CHANNELS` for ``x [N, D]`` or `POSITIONS` for ``x [D, N]``, D mixed.
        recompute: keep nothing for the gradient but x; it then costs one more matrix product.
    """

    @mx.custom_function
    def forward(x: mx.array, gate_up: mx.array, down: mx.array) -> tuple[mx.array, ...]:
        product = axis.product(x, gate_up.astype(x.dtype))
        y = axis.down(x, gated_silu(product), down.astype(x.dtype))
        return (y,) if recompute else (y, product)

    @forward.vjp
    def gradients(primals, cotangents, outputs):
        (x, gate_up, down), slope = primals, cotangents[0]
        gate_up_cast, down_cast = gate_up.astype(x.dtype), down.astype(x.dtype)
        # Depending on the slope, the product is not made again before it is needed.
        product = axis.product(mx.depends(x, slope), gate_up_cast) if recompute else outputs[1]
        d_product, hidden = gated_silu_gradients(product, axis.hidden_slope(slope, down_cast))
        d_gate_up, d_down = axis.weight_slopes(x, d_product, hidden, slope)
        # MLX would leave the weights' gradients, which nothing waits for, to the very end, and
        # hold on to all that they read.
        weights = d_gate_up.astype(gate_up.dtype), d_down.astype(down.dtype)
        return mx.depends(axis.input_slope(slope, d_product, gate_up_cast), weights), *weights

    return lambda x, gate_up, down: forward(x, gate_up, down)[0]
