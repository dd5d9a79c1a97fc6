"""The nets a recursion applies: stacks of blocks that mix positions, then channels.

Parameter names are those of the published PyTorch code.
"""

import mlx.core as mx
import mlx.nn as nn

from trm_mlx.config import ModelConfig
from trm_mlx.models.attention import Attention, Board
from trm_mlx.models.layers import Linear
from trm_mlx.models.norms import norm_channels, norm_positions
from trm_mlx.models.swiglu import CHANNELS, POSITIONS, Axis, residual_swiglu


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

    def __call__(self, x: mx.array, graded: bool, recompute: bool) -> mx.array:
        shape = x.shape
        x = norm_channels(self.self_attn(x, graded).reshape(-1, shape[-1]))
        return norm_channels(self.mlp(x, CHANNELS, recompute)).reshape(shape)


class TokenMixingBlock(nn.Module):
    """SwiGLU on positions, then on channels, each with a residual and a norm after it.

    States are ``[positions, batch, dims]``, so that neither product needs a transpose.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.mlp_t = SwiGLU(config.length, config.expansion)
        self.mlp = SwiGLU(config.hidden_size, config.expansion)

    def __call__(self, x: mx.array, graded: bool, recompute: bool) -> mx.array:
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

    def __call__(self, x: mx.array, graded: bool = False, recompute: bool = False) -> mx.array:
        """Apply the blocks.

        Args:
            x: states in the blocks' layout.
            graded: a gradient will be asked for, so choose what is fast with one.
            recompute: keep less for that gradient and compute it again.
        """
        for layer in self.layers:
            x = layer(x, graded, recompute)
        return x


def to_blocks(x: mx.array, mlp_t: bool) -> mx.array:
    """States ``[batch, positions, dims]`` in the layout of the blocks; its own inverse."""
    return x.swapaxes(0, 1) if mlp_t else x
