"""What one row of a batch takes in memory, and the limits that follow from it.

Counted from what the program holds; ``train.memory`` makes the plan of a training step of it. Tests
compare both with measured peaks (tests/test_memory.py).
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import mlx.core as mx
from mlx.utils import tree_flatten

from trm_mlx.config import ModelConfig
from trm_mlx.device import device_kind
from trm_mlx.host_memory import host_memory
from trm_mlx.models.attention import FUSED_LENGTH
from trm_mlx.models.model import RecursiveReasoner

SHARE = 0.75  # of the memory there is that a plan may use
RUN_AHEAD = 2  # blocks that MLX may launch before the first of them is done
# Of a head, for which Metal has a fused gradient of attention (MLX 0.32.4).
METAL_HEAD_DIMS = (64, 72, 80, 96, 128)
VJP_BLOCK = 1024  # queries and keys of which that gradient makes the scores at once


class Sizes(NamedTuple):
    """Bytes of one row: of its ``carry``; and in a supervision step.

    kept: for the gradient; again: the part of it that recomputing would not keep; working: the
    arrays of one block at once, with a ``gradient`` or in the ``forward`` pass alone.
    """

    carry: int
    kept: int
    again: int
    gradient: int
    forward: int


def row_sizes(model: RecursiveReasoner) -> Sizes:
    config, size = model.config, model.dtype.size
    blocks = sum(
        config.H_layers if update.net == "H_level" else config.L_layers
        for update in model.recursion.in_grad_updates
    )
    state = config.length * config.hidden_size
    channels, positions = _products(config)
    products = channels + positions
    kept, scores = _attention(config)
    # Of the block: its input, and what each of the two norms is of and makes.
    block = 4 * state + products + kept
    heads = config.seq_len * config.vocab_size
    ends = (len(model.recursion.states) + 3) * state + 8 * heads
    largest = max(channels, positions)
    batch = 4 * (2 * config.seq_len + 1)
    return Sizes(
        carry=len(model.recursion.states) * state * size + batch,
        kept=(blocks * block + ends) * size,
        again=blocks * products * size,
        gradient=(max(2 * largest, scores) + 3 * state) * size,
        forward=(largest * 3 // 2 + 3 * state) * size,
    )


def evaluation_rows(model: RecursiveReasoner, examples: int) -> int:
    """Rows of a batch of an evaluation: as many as memory holds and still make it faster."""
    available = SHARE * memory_size() - 2 * model_bytes(model)
    most = 128 if device_kind() == "cpu" else 1024
    return max(1, min(examples, most, int(available // _evaluation_row(model))))


def evaluation_bytes(model: RecursiveReasoner, rows: int) -> int:
    """Bytes that a supervision step of an evaluation takes besides the weights."""
    return rows * _evaluation_row(model)


def _evaluation_row(model: RecursiveReasoner) -> int:
    sizes = row_sizes(model)
    return 4 * sizes.carry + (1 + RUN_AHEAD) * sizes.forward


@contextmanager
def bounded(room: int) -> Iterator[None]:
    """Inside, MLX launches no work ahead that would take more than ``room`` further bytes.

    It waits instead. Left alone it launches up to ten buffers of commands before the first is done,
    and all their arrays are there at once.
    """
    if device_kind() == "cpu":  # arrays are held by the trace, not by work launched ahead
        yield
        return
    before = mx.set_memory_limit(mx.get_active_memory() + room)
    try:
        yield
    finally:
        mx.set_memory_limit(before)


def memory_size() -> int:
    """Bytes that arrays of the default device may take."""
    if device_kind() == "cpu":
        return host_memory()
    info = mx.device_info()
    on_metal = info.get("max_recommended_working_set_size")
    return int(on_metal or info["total_memory"])


def trainable_bytes(model: RecursiveReasoner) -> int:
    return sum(array.nbytes for _, array in tree_flatten(model.trainable_parameters()))


def model_bytes(model: RecursiveReasoner) -> int:
    """Of all weights, the puzzle table included."""
    return sum(array.nbytes for _, array in tree_flatten(model.parameters()))


def _products(config: ModelConfig) -> tuple[int, int]:
    """Elements of gate and up, along channels and along positions."""

    def inner(dims: int) -> int:
        return -(-round(config.expansion * dims * 2 / 3) // 256) * 256

    channels = 2 * config.length * inner(config.hidden_size)
    return channels, 2 * config.hidden_size * inner(config.length) if config.mlp_t else 0


def _attention(config: ModelConfig) -> tuple[int, int]:
    """Elements that the gradient of attention keeps of a block, and those it makes in passing."""
    if config.mlp_t:
        return 0, 0
    state, heads, length = config.length * config.hidden_size, config.num_heads, config.length
    kind = device_kind()
    if kind == "cuda":
        padded = -(-length // FUSED_LENGTH) * FUSED_LENGTH * config.hidden_size
        return 4 * padded + state, 4 * padded + 3 * state
    if kind == "metal" and attention_is_fused(config):
        block = min(length, int(os.environ.get("MLX_SDPA_VJP_BLOCK", VJP_BLOCK)))
        return 6 * state, 3 * heads * block**2 + 8 * state
    return 6 * state + heads * length**2, 3 * heads * length**2 + 6 * state


def attention_is_fused(config: ModelConfig) -> bool:
    """Whether Metal has a kernel for the gradient of this model's attention."""
    off = int(os.environ.get("MLX_SDPA_VJP_FALLBACK", 0))
    return not off and config.hidden_size // config.num_heads in METAL_HEAD_DIMS
