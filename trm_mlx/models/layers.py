"""The pieces of every variant: cast-at-use linear maps, attention, SwiGLU, and the block.

Weights are float32 and cast to the activation dtype where they are used. Parameter names are those
of the published PyTorch code, so a converted checkpoint needs no table of names.
"""

import math

import mlx.core as mx
import mlx.nn as nn

from trm_mlx.config import ModelConfig
from trm_mlx.models.activations import gated_silu

NORM_EPSILON = 1e-5
ROPE_BASE = 10000.0
# Standard deviation of a unit normal truncated to [-2, 2].
_TRUNCATED_STD = math.sqrt(1 - 4 * math.exp(-2) / math.sqrt(2 * math.pi) / math.erf(math.sqrt(2)))


def truncated_normal(shape: tuple[int, ...], std: float) -> mx.array:
    """Normal samples cut at two sigmas and rescaled so that their own deviation is ``std``."""
    return mx.random.truncated_normal(-2.0, 2.0, shape) * (std / _TRUNCATED_STD)


def rms_norm(x: mx.array) -> mx.array:
    """RMSNorm over the last axis, without weight, computed in float32."""
    return mx.fast.rms_norm(x, None, NORM_EPSILON)


def rms_norm_positions(x: mx.array, length: int) -> mx.array:
    """RMSNorm over the first axis, whose positions from ``length`` on are zero."""
    wide = x.astype(mx.float32)
    mean = wide.square().sum(axis=0, keepdims=True) / length
    return (wide * mx.rsqrt(mean + NORM_EPSILON)).astype(x.dtype)


class Linear(nn.Module):
    """``x @ weight.T (+ bias)`` with ``weight [outputs, inputs]`` cast to the dtype of ``x``."""

    def __init__(self, inputs: int, outputs: int, bias: bool = False):
        super().__init__()
        self.weight = truncated_normal((outputs, inputs), std=inputs**-0.5)
        if bias:
            self.bias = mx.zeros((outputs,))

    def __call__(self, x: mx.array) -> mx.array:
        y = x @ self.weight.astype(x.dtype).T
        return y + self.bias.astype(x.dtype) if "bias" in self else y


class Embedding(nn.Module):
    """Rows of ``embedding_weight [rows, dims]``, cast to ``dtype``.

    Rows are picked by a product with a one-hot matrix: for a small vocabulary as fast as a gather,
    and its gradient, unlike a scatter's on a GPU, is the same in every run.
    """

    def __init__(self, rows: int, dims: int, dtype: mx.Dtype):
        super().__init__()
        self.embedding_weight = truncated_normal((rows, dims), std=dims**-0.5)
        self._dtype = dtype

    def __call__(self, indices: mx.array) -> mx.array:
        one_hot = indices[..., None] == mx.arange(self.embedding_weight.shape[0])
        return one_hot.astype(self._dtype) @ self.embedding_weight.astype(self._dtype)


class PuzzleEmbedding(nn.Module):
    """A table of one learned row per puzzle identifier, zero at first.

    The model keeps the table frozen: only the rows of a batch are updated, by sign descent (see
    ``train.optim``). ``__call__`` returns float32 rows ``[batch, dims]``.
    """

    def __init__(self, identifiers: int, dims: int):
        super().__init__()
        self.weights = mx.zeros((identifiers, dims))

    def __call__(self, identifiers: mx.array) -> mx.array:
        return self.weights[identifiers]


class SwiGLU(nn.Module):
    """``down(silu(gate(x)) * up(x))``; the inner width is a multiple of 256."""

    def __init__(self, dims: int, expansion: float):
        super().__init__()
        inner = -(-round(expansion * dims * 2 / 3) // 256) * 256
        self.gate_up_proj = Linear(dims, 2 * inner)
        self.down_proj = Linear(inner, dims)

    def __call__(self, x: mx.array) -> mx.array:
        # Cutting the weight costs less than cutting the product, above all in the backward pass.
        gate, up = mx.split(self.gate_up_proj.weight.astype(x.dtype), 2)
        return self.down_proj(gated_silu(x @ gate.T, x @ up.T))


class Attention(nn.Module):
    """Multi-head attention over all positions, with rotary position encoding if asked for."""

    def __init__(self, dims: int, heads: int, rope: bool):
        super().__init__()
        self._heads, self._head_dims = heads, dims // heads
        # Wavelengths in float32 as PyTorch rounds them; MLX's own differ in the last digits.
        exponents = mx.arange(0, self._head_dims, 2) / self._head_dims
        self._wavelengths = mx.power(ROPE_BASE, exponents) if rope else None
        self.qkv_proj = Linear(dims, 3 * heads * self._head_dims)
        self.o_proj = Linear(heads * self._head_dims, dims)

    def _rotate(self, x: mx.array) -> mx.array:
        return mx.fast.rope(
            x,
            self._head_dims,
            traditional=False,
            base=None,
            scale=1.0,
            offset=0,
            freqs=self._wavelengths,
        )

    def __call__(self, x: mx.array) -> mx.array:
        batch, length, _ = x.shape
        qkv = self.qkv_proj(x).reshape(batch, length, 3, self._heads, self._head_dims)
        query, key, value = qkv.transpose(2, 0, 3, 1, 4)
        if self._wavelengths is not None:
            query, key = self._rotate(query), self._rotate(key)
        mixed = mx.fast.scaled_dot_product_attention(query, key, value, scale=self._head_dims**-0.5)
        return self.o_proj(mixed.transpose(0, 2, 1, 3).reshape(batch, length, -1))


class TokenSwiGLU(SwiGLU):
    """SwiGLU along the first axis of ``x [positions, batch, dims]``.

    The weights multiply from the left, so every product, forward and backward, is one matrix
    product without a transpose. ``x`` may have more positions than the weights, all zero; they
    stay zero.
    """

    def __call__(self, x: mx.array) -> mx.array:
        positions = x.shape[0]
        tokens = x.reshape(positions, -1)
        extra = positions - self.down_proj.weight.shape[0]
        gate, up = mx.split(self.gate_up_proj.weight.astype(x.dtype), 2)
        gate, up = (mx.pad(weight, ((0, 0), (0, extra))) for weight in (gate, up))
        down = mx.pad(self.down_proj.weight.astype(x.dtype), ((0, extra), (0, 0)))
        return (down @ gated_silu(gate @ tokens, up @ tokens)).reshape(x.shape)


class AttentionBlock(nn.Module):
    """Attention, then SwiGLU on channels, each with a residual and a norm after it.

    States are ``[batch, positions, dims]``.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        rope = config.pos_encodings == "rope"
        self.self_attn = Attention(config.hidden_size, config.num_heads, rope)
        self.mlp = SwiGLU(config.hidden_size, config.expansion)

    def __call__(self, x: mx.array) -> mx.array:
        x = rms_norm(x + self.self_attn(x))
        return rms_norm(x + self.mlp(x))


class TokenMixingBlock(nn.Module):
    """SwiGLU on positions, then on channels, each with a residual and a norm after it.

    States are ``[positions, batch, dims]``, padded with zero positions (see `to_blocks`).
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self._length = config.length
        self.mlp_t = TokenSwiGLU(config.length, config.expansion)
        self.mlp = SwiGLU(config.hidden_size, config.expansion)

    def __call__(self, x: mx.array) -> mx.array:
        x = rms_norm_positions(x + self.mlp_t(x), self._length)
        return rms_norm(x + self.mlp(x))


class Level(nn.Module):
    """A stack of blocks: one of the nets a recursion applies, in the blocks' own layout."""

    def __init__(self, config: ModelConfig, depth: int):
        super().__init__()
        block = TokenMixingBlock if config.mlp_t else AttentionBlock
        self.layers = [block(config) for _ in range(depth)]

    def __call__(self, x: mx.array) -> mx.array:
        for layer in self.layers:
            x = layer(x)
        return x


def to_blocks(x: mx.array, mlp_t: bool) -> mx.array:
    """States ``[batch, positions, dims]`` in the layout of the blocks.

    Token mixing wants positions first, and a multiple of 8 of them: matrix units are several
    times slower on rows that do not start on a 16-byte boundary.
    """
    if not mlp_t:
        return x
    return mx.pad(x.swapaxes(0, 1), ((0, -x.shape[1] % 8), (0, 0), (0, 0)))


def from_blocks(x: mx.array, length: int, mlp_t: bool) -> mx.array:
    """The inverse of `to_blocks`, for states of ``length`` positions."""
    return x[:length].swapaxes(0, 1) if mlp_t else x
