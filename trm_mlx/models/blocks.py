"""The nets a recursion applies: stacks of blocks that mix positions, then channels.

Parameter names are those of the published PyTorch code. The gradient of SwiGLU,
``x + down(silu(gate) * up)``, is written out, so that every product is one matrix product on arrays
as they lie in memory, the residual is added inside a product, and only the product of gate and up
is kept for it, or, with ``recompute``, nothing.
"""

import functools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import mlx.core as mx
import mlx.nn as nn

from trm_mlx.config import ModelConfig
from trm_mlx.device import device_kind
from trm_mlx.models import kernels_cpu, kernels_cuda
from trm_mlx.models.attention import Attention
from trm_mlx.models.convolution import BoardConvolution
from trm_mlx.models.layers import CustomFunction, Linear, norm_channels, norm_positions


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


def _by_columns(weight: mx.array) -> mx.array:
    """``weight`` laid out by columns in memory.

    A row of gate and up weights, as long as the puzzle, would not start on the 16-byte boundaries
    that matrix units want. `mx.contiguous` does the same, but `mx.export_function` cannot write it.
    """
    return weight.T.flatten().reshape(weight.shape[::-1]).T


POSITIONS = Axis(
    product=lambda x, gate_up: _by_columns(gate_up) @ x,
    down=lambda x, hidden, down: mx.addmm(x, down, hidden),
    hidden_grad=lambda grad, down: down.T @ grad,
    input_grad=lambda grad, product, gate_up: mx.addmm(grad, _by_columns(gate_up).T, product),
    weight_grads=lambda x, product, hidden, grad: ((x @ product.T).T, grad @ hidden.T),
)


@functools.cache
def residual_swiglu(axis: Axis, recompute: bool) -> Callable:
    """The function ``(x, gate_up, down) -> x + swiglu(x)``, its weights cast to the dtype of x.

    A fourth argument, a dropout mask ``[R, C]``, multiplies what ``down`` reads.

    Args:
        axis: `CHANNELS` for ``x [N, D]`` or `POSITIONS` for ``x [D, N]``, D mixed.
        recompute: keep nothing for the gradient but x; it then costs one more matrix product.
    """

    @CustomFunction
    def forward(
        x: mx.array, gate_up: mx.array, down: mx.array, *mask: mx.array
    ) -> tuple[mx.array, ...]:
        product = axis.product(x, gate_up.astype(x.dtype))
        y = axis.down(x, masked(gated_silu(product), mask), down.astype(x.dtype))
        return (y,) if recompute else (y, product)

    @forward.vjp
    def gradients(primals, cotangents, outputs):
        (x, gate_up, down, *mask), grad = primals, cotangents[0]
        gate_up_cast, down_cast = gate_up.astype(x.dtype), down.astype(x.dtype)
        # Depending on the grad, the product is not made again before it is needed.
        product = axis.product(mx.depends(x, grad), gate_up_cast) if recompute else outputs[1]
        d_hidden = masked(axis.hidden_grad(grad, down_cast), mask)
        d_product, hidden = gated_silu_gradients(product, d_hidden)
        d_gate_up, d_down = axis.weight_grads(x, d_product, masked(hidden, mask), grad)
        # MLX would leave the weights' gradients, which nothing waits for, to the very end, and
        # hold on to all that they read.
        weights = d_gate_up.astype(gate_up.dtype), d_down.astype(down.dtype)
        d_x = mx.depends(axis.input_grad(grad, d_product, gate_up_cast), weights)
        return d_x, *weights, *map(mx.zeros_like, mask)

    return lambda *arrays: forward(*arrays)[0]


def masked(x: mx.array, mask: Sequence[mx.array]) -> mx.array:
    """``x`` times the dropout mask, where there is one."""
    return x * mask[0] if mask else x


Masks = tuple[mx.array, mx.array]


def draw_masks(
    config: ModelConfig, depth: int, length: int, keys: mx.array, dtype: mx.Dtype
) -> list[Masks]:
    """Draw dropout masks for every block of a net, each ``[batch, ...]``, 0 or 1 / (1 - rate).

    A row's masks follow from its key alone, so they are the same however a batch is divided; and
    they stay for all updates of a supervision step, as a recurrent net wants (arXiv 1512.05287).

    Args:
        config: of the model.
        depth: blocks of the net.
        length: positions of the states, which a smaller canvas has fewer of.
        keys: of the rows, ``[batch, 2]``.
        dtype: of the activations.

    Returns:
        For each block the mask of what attention's ``o_proj`` or the first SwiGLU's ``down_proj``
        reads, and that of the second's.
    """
    dims = config.hidden_size
    mixed = (inner_width(length, config.expansion), dims) if config.mlp_t else None
    mixed = mixed or (length, config.num_heads * config.head_dims)
    shapes = [mixed, (length, inner_width(dims, config.expansion))] * depth
    kept = 1 - config.dropout

    def draw(key: mx.array) -> list[mx.array]:
        parts = mx.random.split(key, len(shapes))
        return [
            mx.random.bernoulli(kept, shape, key=part)
            for part, shape in zip(parts, shapes, strict=True)
        ]

    masks = [mask.astype(dtype) * (1 / kept) for mask in mx.vmap(draw)(keys)]
    return list(zip(masks[::2], masks[1::2], strict=True))


def inner_width(dims: int, expansion: float) -> int:
    """Inner width of a SwiGLU on ``dims``, a multiple of 256."""
    return -(-round(expansion * dims * 2 / 3) // 256) * 256


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
    """The weights of ``down(silu(gate(x)) * up(x))``."""

    def __init__(self, dims: int, expansion: float):
        super().__init__()
        inner = inner_width(dims, expansion)
        self.gate_up_proj = Linear(dims, 2 * inner)
        self.down_proj = Linear(inner, dims)

    def __call__(self, x: mx.array, axis: Axis, recompute: bool, *mask: mx.array) -> mx.array:
        """``x`` plus its SwiGLU; ``x`` is two-dimensional, see `residual_swiglu`."""
        weights = self.gate_up_proj.weight, self.down_proj.weight
        return residual_swiglu(axis, recompute)(x, *weights, *mask)


HALVES_AHEAD = 2  # of blocks, launched before the device is done with what came before them

_launched: deque[mx.array] | None = None


@contextmanager
def paced() -> Iterator[None]:
    """Inside, what is computed without a gradient runs half a block at a time on a GPU.

    The host launches `HALVES_AHEAD` and waits. Left alone MLX launches up to ten buffers of
    commands before the first is done, and the arrays of all of them are there at once. Not for
    what is compiled: while it is traced there is nothing to run.
    """
    global _launched
    before, _launched = _launched, None if device_kind() == "cpu" else deque()
    try:
        yield
    finally:
        _launched = before


def _launch(x: mx.array, in_grad: bool) -> mx.array:
    """Let the device begin with half a block, if it is `paced`; return its result."""
    if _launched is not None and not in_grad:
        mx.async_eval(x)
        _launched.append(x)
        if len(_launched) > HALVES_AHEAD:
            mx.eval(_launched.popleft())
    return x


class AttentionBlock(nn.Module):
    """Attention, then SwiGLU on channels, each with a residual and a norm after it.

    States are ``[batch, positions, dims]``.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        rope = config.pos_encodings in ("rope", "rope2d")
        prefix = config.prefix if config.pos_encodings == "rope2d" else None
        self.self_attn = Attention(config.hidden_size, config.num_heads, rope, prefix)
        self.mlp = SwiGLU(config.hidden_size, config.expansion)

    def __call__(
        self, x: mx.array, in_grad: bool, recompute: bool, masks: Masks | None = None
    ) -> mx.array:
        shape = x.shape
        first, second = ([masks[0]], [masks[1].flatten(0, 1)]) if masks else ([], [])
        x = norm_channels(self.self_attn(x, in_grad, *first).reshape(-1, shape[-1]))
        x = norm_channels(self.mlp(_launch(x, in_grad), CHANNELS, recompute, *second))
        return _launch(x, in_grad).reshape(shape)


class TokenMixingBlock(nn.Module):
    """SwiGLU on positions, then on channels, each with a residual and a norm after it.

    States are ``[positions, batch, dims]``, so that neither product needs a transpose.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.mlp_t = SwiGLU(config.length, config.expansion)
        self.mlp = SwiGLU(config.hidden_size, config.expansion)

    def __call__(
        self, x: mx.array, in_grad: bool, recompute: bool, masks: Masks | None = None
    ) -> mx.array:
        shape, first, second = x.shape, [], []
        if masks:
            first, second = ([to_blocks(mask, True)] for mask in masks)
            first, second = [first[0].flatten(1)], [second[0].flatten(0, 1)]
        x = norm_positions(self.mlp_t(x.reshape(shape[0], -1), POSITIONS, recompute, *first))
        x = _launch(x, in_grad).reshape(-1, shape[-1])
        x = norm_channels(self.mlp(x, CHANNELS, recompute, *second))
        return _launch(x, in_grad).reshape(shape)


class Level(nn.Module):
    """A stack of blocks: one of the nets a recursion applies, in the blocks' own layout.

    A convolution over the board may come before them.
    """

    def __init__(self, config: ModelConfig, depth: int):
        super().__init__()
        if config.board_convolution:
            self.convolution = BoardConvolution(config.hidden_size, config.prefix)
        block = TokenMixingBlock if config.mlp_t else AttentionBlock
        self.layers = [block(config) for _ in range(depth)]

    def __call__(
        self,
        x: mx.array,
        in_grad: bool = False,
        recompute: bool = False,
        masks: Sequence[Masks] = (),
    ) -> mx.array:
        """Apply the blocks.

        Args:
            x: states in the blocks' layout.
            in_grad: a gradient will be asked for, so choose what is fast with one.
            recompute: keep less for that gradient and compute it again.
            masks: dropout masks of the blocks, from `draw_masks`.
        """
        if "convolution" in self:
            x = self.convolution(x)
        for layer, own in zip(self.layers, masks or [None] * len(self.layers), strict=True):
            x = layer(x, in_grad, recompute, own)
        return x


def to_blocks(x: mx.array, mlp_t: bool) -> mx.array:
    """States ``[batch, positions, dims]`` in the layout of the blocks; its own inverse."""
    return x.swapaxes(0, 1) if mlp_t else x
