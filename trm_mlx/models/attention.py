"""Multi-head attention over all positions, with its residual and rotary position encoding.

Positions are numbers in a row, or rows and columns of a square board: then one half of a head's
pairs turns by the row, the other by the column.

cuDNN's attention has a fused gradient for lengths that are multiples of 128 only; on CUDA a
sequence is padded to one inside a gradient, and the padding masked.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from trm_mlx.device import device_kind
from trm_mlx.models import kernels_cpu, kernels_cuda
from trm_mlx.models.layers import Linear

ROPE_BASE = 10000.0
# Of head_dims / 4 wavelengths an axis: the longer half of those in one dimension would hardly turn
# over the side of a board.
BOARD_BASE = 100.0
FUSED_LENGTH = 128


class Board(NamedTuple):
    """Positions on a square board of ``side**2`` cells, after ``prefix`` others at (0, 0)."""

    prefix: int
    side: int


class Attention(nn.Module):
    """``x + o_proj(attention(qkv_proj(x)))`` for ``x [B, L, D]``.

    Args:
        rope: queries and keys turn by their number.
        prefix: positions in front of a square board; they turn by their row and column then.
    """

    def __init__(self, dims: int, heads: int, rope: bool, prefix: int | None = None):
        super().__init__()
        self._heads, self._head_dims = heads, dims // heads
        self._turns = Turns(self._head_dims, rope, prefix)
        self._wavelengths = self._turns.wavelengths()
        self.qkv_proj = Linear(dims, 3 * heads * self._head_dims)
        self.o_proj = Linear(heads * self._head_dims, dims)

    def __call__(self, x: mx.array, in_grad: bool, *dropout: mx.array) -> mx.array:
        """Attend; a ``dropout`` mask ``[B, L, H * D / H]`` multiplies what ``o_proj`` reads."""
        batch, length, _ = x.shape
        qkv = self.qkv_proj(x).reshape(batch, length, 3, self._heads, self._head_dims)
        if kernels_cpu.usable(qkv) and self._head_dims % 2 == 0:
            return self._output(x, _attend_in_loops(self._turns, length)(qkv), dropout)
        query, key, value = self._heads_of(qkv, in_grad)
        padded = query.shape[1]
        heads = [part.swapaxes(1, 2) for part in (query, key, value)]
        mask = None if padded == length else _mask(length, padded, x.dtype)
        mixed = _attend(*heads, mask).swapaxes(1, 2)
        if padded != length:
            mixed = _unpad(length, padded)(mixed)
        return self._output(x, mixed, dropout)

    def _output(self, x: mx.array, mixed: mx.array, dropout: Sequence[mx.array]) -> mx.array:
        weight = self.o_proj.weight.astype(x.dtype)
        if dropout:
            mixed = mixed.reshape(dropout[0].shape) * dropout[0]
        mixed = mixed.reshape(-1, weight.shape[1])
        return mx.addmm(x.reshape(-1, x.shape[-1]), mixed, weight.T).reshape(x.shape)

    def _heads_of(self, qkv: mx.array, in_grad: bool) -> Sequence[mx.array]:
        """Rotated queries, rotated keys and values, each ``[B, L or more, H, D / H]``."""
        length = qkv.shape[1]
        query, key, value = (part.squeeze(2) for part in mx.split(qkv, 3, axis=2))
        if device_kind() != "cuda" or self._head_dims % 2:
            return self._rotate(query), self._rotate(key), value
        if in_grad:
            return _split_padded(length)(qkv, *self._turns.rotation(length))
        query, key = kernels_cuda.split_heads(
            qkv, *self._turns.rotation(length), rotated=2, padded=length, moved=2
        )
        return query, key, value

    def _rotate(self, x: mx.array) -> mx.array:
        """The rotary encoding of ``x [B, L, H, D / H]``, if the model has it."""
        if not self._turns.rope:
            return x
        if self._turns.prefix is not None:
            return _turn(x, *self._turns.rotation(x.shape[1]))
        return mx.fast.rope(
            x.swapaxes(1, 2),
            self._head_dims,
            traditional=False,
            base=None,
            scale=1.0,
            offset=0,
            freqs=self._wavelengths,
        ).swapaxes(1, 2)


@dataclass(frozen=True)  # a module would take a tuple for parameters
class Turns:
    """How the heads of an attention turn with their position.

    Args:
        head_dims: of a head.
        rope: whether they turn at all.
        prefix: positions in front of a square board, if there is one.
    """

    head_dims: int
    rope: bool
    prefix: int | None

    def wavelengths(self) -> mx.array:
        """Of positions in a row, ``[D / 2]``, in float32 as PyTorch rounds them.

        MLX's own differ in the last digits.
        """
        return mx.power(ROPE_BASE, mx.arange(0, self.head_dims, 2) / self.head_dims)

    def rotation(self, length: int) -> tuple[mx.array, mx.array]:
        """Cosines and sines ``[L, D / 2]`` of the angles by which positions turn."""
        if not self.rope:
            nothing = mx.zeros((length, self.head_dims // 2))
            return nothing + 1, nothing
        if self.prefix is not None:
            board = Board(self.prefix, math.isqrt(length - self.prefix))
            angles = board_angles(board, self.head_dims)
        else:
            angles = mx.arange(length)[:, None] / self.wavelengths()
        return mx.cos(angles), mx.sin(angles)


def board_angles(board: Board, head_dims: int) -> mx.array:
    """Angles ``[L, head_dims / 2]``: those of the row, then those of the column."""
    wavelengths = mx.power(BOARD_BASE, mx.arange(0, head_dims, 4) / head_dims)
    cells = mx.arange(board.side**2)
    places = mx.stack([cells // board.side, cells % board.side], axis=1)
    places = mx.pad(places, ((board.prefix, 0), (0, 0)))
    return (places[:, :, None] / wavelengths).flatten(1)


def _turn(x: mx.array, cosines: mx.array, sines: mx.array) -> mx.array:
    """Pairs of ``x [B, L, H, D]``, an element of the first half of D and one of the second, turned.

    In float32, as `mx.fast.rope` does, which knows numbers in a row only.
    """
    low, high = mx.split(x.astype(mx.float32), 2, axis=-1)
    cosines, sines = cosines[:, None], sines[:, None]
    turned = [low * cosines - high * sines, high * cosines + low * sines]
    return mx.concatenate(turned, axis=-1).astype(x.dtype)


def _attend(query: mx.array, key: mx.array, value: mx.array, mask: mx.array | None) -> mx.array:
    """Attention of ``[B, H, L, D / H]`` each; ``mask`` is added to the scores."""
    scale = query.shape[-1] ** -0.5
    return mx.fast.scaled_dot_product_attention(query, key, value, scale=scale, mask=mask)


@functools.cache
def _attend_in_loops(turns: Turns, length: int) -> Callable:
    """Attention ``[B, L, H, D]`` of ``[B, L, 3, H, D]`` by the loops of the CPU."""
    cosines, sines = (np.array(array) for array in turns.rotation(length))
    scale = np.float32(turns.head_dims**-0.5)
    still = np.ones_like(cosines), np.zeros_like(sines)
    of_parts = (cosines * scale, sines * scale), (cosines, sines), still

    @mx.custom_function
    def attend(qkv: mx.array) -> mx.array:
        return kernels_cpu.attend(qkv, of_parts)

    @attend.vjp
    def _(qkv, cotangent, _output):
        return kernels_cpu.attend_gradient(qkv, cotangent, of_parts)

    return attend


def _mask(length: int, padded: int, dtype: mx.Dtype) -> mx.array:
    """Added to the scores so that nothing attends to the padding."""
    return mx.where(mx.arange(padded) < length, 0.0, mx.finfo(dtype).min).astype(dtype)


@functools.cache
def _split_padded(length: int) -> Callable:
    """``(qkv, cosines, sines)`` to padded queries, keys and values, one kernel each way."""
    padded = -(-length // FUSED_LENGTH) * FUSED_LENGTH

    @mx.custom_function
    def split(qkv: mx.array, cosines: mx.array, sines: mx.array) -> list[mx.array]:
        return kernels_cuda.split_heads(qkv, cosines, sines, rotated=2, padded=padded, moved=3)

    @split.vjp
    def _(primals, cotangents, _outputs):
        _qkv, cosines, sines = primals
        merged = kernels_cuda.merge_heads(cotangents, cosines, sines, rotated=2, length=length)
        return merged, mx.zeros_like(cosines), mx.zeros_like(sines)

    return split


@functools.cache
def _unpad(length: int, padded: int) -> Callable:
    """``[B, padded, H, D]`` cut to ``[B, length, H, D]``, one kernel each way."""
    unturned = {"cosines": mx.zeros((1,)), "sines": mx.zeros((1,)), "rotated": 0}

    @mx.custom_function
    def merge(heads: mx.array) -> mx.array:
        return kernels_cuda.merge_heads([heads], **unturned, length=length).squeeze(2)

    @merge.vjp
    def _(_heads, cotangent, _output):
        return kernels_cuda.split_heads(cotangent[:, :, None], **unturned, padded=padded, moved=1)[
            0
        ]

    return merge
