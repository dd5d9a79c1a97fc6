"""The nets a recursion applies: stacks of blocks that mix positions, then channels.

Parameter names are those of the published PyTorch code. The gradient of SwiGLU,
``x + down(silu(gate) * up)``, is written out, so that every product is one matrix product on arrays
as they lie in memory, the residual is added inside a product, and only the product of gate and up
is kept for it, or, with ``recompute``, nothing.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import mlx.core as mx
import mlx.nn as nn

from trm_mlx.config import ModelConfig
from trm_mlx.device import device_kind
from trm_mlx.models import kernels_cpu, kernels_cuda
from trm_mlx.models.attention import Attention, Board
from trm_mlx.models.layers import Linear, norm_channels, norm_positions


class Axis(NamedTuple):
    """The matrix products of a SwiGLU along one axis; weights are cast, ``x`` is two-dimensional.

    gate_up ``[2J, D]`` and down ``[D, J]`` are the published weights, hidden is ``[R, C]`` and
    product ``[2R, C]``, gate above up.
    """

    product: Callable  # (x, gate_up) -> product
    down: Callable  # (x, hidden, down) -> x + down(hidden)
    hidden_grad: Callable  # (grad, down) -> gradient of hidden
    input_grad: Callable  # (grad, product's gradient, gate_up) -> gradient of x
    weight_grads: Callable  # (x, product's gradient, hidden, grad) -> of gate_up, of down


def _channel_product(x: mx.array, gate_up: mx.array) -> mx.array:
    planes = x @ gate_up.reshape(2, -1, gate_up.shape[1]).swapaxes(1, 2)
    return planes.reshape(-1, planes.shape[2])


def _channel_input_grad(grad: mx.array, product: mx.array, gate_up: mx.array) -> mx.array:
    for part, weight in zip(mx.split(product, 2), mx.split(gate_up, 2), strict=True):
        grad = mx.addmm(grad, part, weight)
    return grad


def _channel_weight_grads(
    x: mx.array, product: mx.array, hidden: mx.array, grad: mx.array
) -> tuple[mx.array, mx.array]:
    gate_up = [part.T @ x for part in mx.split(product, 2)]
    return mx.concatenate(gate_up), grad.T @ hidden


CHANNELS = Axis(
    product=_channel_product,
    down=lambda x, hidden, down: mx.addmm(x, hidden, down.T),
    hidden_grad=lambda grad, down: grad @ down,
    input_grad=_channel_input_grad,
    weight_grads=_channel_weight_grads,
)

# Gate and up weights are used transposed in memory: a row of them, as long as the puzzle, would
# not start on the 16-byte boundaries that matrix units want.
POSITIONS = Axis(
    product=lambda x, gate_up: mx.contiguous(gate_up.T).T @ x,
    down=lambda x, hidden, down: mx.addmm(x, down, hidden),
    hidden_grad=lambda grad, down: down.T @ grad,
    input_grad=lambda grad, product, gate_up: mx.addmm(grad, mx.contiguous(gate_up.T), product),
    weight_grads=lambda x, product, hidden, grad: ((x @ product.T).T, grad @ hidden.T),
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
        (x, gate_up, down), grad = primals, cotangents[0]
        gate_up_cast, down_cast = gate_up.astype(x.dtype), down.astype(x.dtype)
        # Depending on the grad, the product is not made again before it is needed.
        product = axis.product(mx.depends(x, grad), gate_up_cast) if recompute else outputs[1]
        d_product, hidden = gated_silu_gradients(product, axis.hidden_grad(grad, down_cast))
        d_gate_up, d_down = axis.weight_grads(x, d_product, hidden, grad)
        # MLX would leave the weights' gradients, which nothing waits for, to the very end, and
        # hold on to all that they read.
        weights = d_gate_up.astype(gate_up.dtype), d_down.astype(down.dtype)
        return mx.depends(axis.input_grad(grad, d_product, gate_up_cast), weights), *weights

    return lambda x, gate_up, down: forward(x, gate_up, down)[0]


def gated_silu(product: mx.array) -> mx.array:
    """``silu(gate) * up``, ``[R, C]``, of ``product [2R, C]``, gate above up."""
    if device_kind() == "cuda":
        return kernels_cuda.gated_silu(product)
    if kernels_cpu.usable(product):
        return kernels_cpu.gated_silu(product)
    gate, up = mx.split(product, 2)
    x32 = gate.astype(mx.float32)
    return (x32 * mx.sigmoid(x32)).astype(gate.dtype) * up


def gated_silu_gradients(product: mx.array, cotangent: mx.array) -> tuple[mx.array, mx.array]:
    """The gradient ``[2R, C]`` of `gated_silu` at ``product``, and its value once more.

    The value is cheap to make again, and a gradient needs it next: nobody has to keep it.
    """
    if device_kind() == "cuda":
        return kernels_cuda.gated_silu_gradients(product, cotangent)
    if kernels_cpu.usable(product):
        return kernels_cpu.gated_silu_gradients(product, cotangent)
    gate, up = mx.split(product, 2)
    x32 = gate.astype(mx.float32)
    share = mx.sigmoid(x32)
    silu = (x32 * share).astype(gate.dtype)
    d_gate = (cotangent * up).astype(mx.float32) * (share + silu * (1 - share))
    return mx.concatenate([d_gate.astype(gate.dtype), cotangent * silu]), silu * up


class SwiGLU(nn.Module):
    """The weights of ``down(silu(gate(x)) * up(x))``; the inner width is a multiple of 256."""

    def __init__(self, dims: int, expansion: float):
        super().__init__()
        inner = -(-round(expansion * dims * 2 / 3) // 256) * 256
        self.gate_up_proj = Linear(dims, 2 * inner)
        self.down_proj = Linear(inner, dims)

    def __call__(self, x: mx.array, axis: Axis, recompute: bool) -> mx.array:
        """``x`` plus its SwiGLU; ``x`` is two-dimensional, see `residual_swiglu`."""
        weights = self.gate_up_proj.weight, self.down_proj.weight
        return residual_swiglu(axis, recompute)(x, *weights)


class AttentionBlock(nn.Module):
    """Attention, then SwiGLU on channels, each with a residual and a norm after it.

    States are ``[batch, positions, dims]``.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        rope = config.pos_encodings in ("rope", "rope2d")
        board = Board(config.prefix, config.side) if config.pos_encodings == "rope2d" else None
        self.self_attn = Attention(config.hidden_size, config.num_heads, rope, board)
        self.mlp = SwiGLU(config.hidden_size, config.expansion)

    def __call__(self, x: mx.array, in_grad: bool, recompute: bool) -> mx.array:
        shape = x.shape
        x = norm_channels(self.self_attn(x, in_grad).reshape(-1, shape[-1]))
        return norm_channels(self.mlp(x, CHANNELS, recompute)).reshape(shape)


class TokenMixingBlock(nn.Module):
    """SwiGLU on positions, then on channels, each with a residual and a norm after it.

    States are ``[positions, batch, dims]``, so that neither product needs a transpose.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.mlp_t = SwiGLU(config.length, config.expansion)
        self.mlp = SwiGLU(config.hidden_size, config.expansion)

    def __call__(self, x: mx.array, in_grad: bool, recompute: bool) -> mx.array:
        shape = x.shape
        x = norm_positions(self.mlp_t(x.reshape(shape[0], -1), POSITIONS, recompute))
        x = x.reshape(-1, shape[-1])
        return norm_channels(self.mlp(x, CHANNELS, recompute)).reshape(shape)


class Level(nn.Module):
    """A stack of blocks: one of the nets a recursion applies, in the blocks' own layout."""

    def __init__(self, config: ModelConfig, depth: int):
        super().__init__()
        block = TokenMixingBlock if config.mlp_t else AttentionBlock
        self.layers = [block(config) for _ in range(depth)]

    def __call__(self, x: mx.array, in_grad: bool = False, recompute: bool = False) -> mx.array:
        """Apply the blocks.

        Args:
            x: states in the blocks' layout.
            in_grad: a gradient will be asked for, so choose what is fast with one.
            recompute: keep less for that gradient and compute it again.
        """
        for layer in self.layers:
            x = layer(x, in_grad, recompute)
        return x


def to_blocks(x: mx.array, mlp_t: bool) -> mx.array:
    """States ``[batch, positions, dims]`` in the layout of the blocks; its own inverse."""
    return x.swapaxes(0, 1) if mlp_t else x
