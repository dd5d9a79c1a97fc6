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

from trm_mlx import device
from trm_mlx.config import ModelConfig
from trm_mlx.device import device_kind, host_memory
from trm_mlx.models.attention import FUSED_LENGTH
from trm_mlx.models.blocks import inner_width
from trm_mlx.models.model import RecursiveReasoner
from trm_mlx.models.recursion import Update

SHARE = 0.75  # of the memory there is that a plan may use
RUN_AHEAD = 4  # blocks that MLX may launch before the first of them is done
# Of a head, for which Metal has a fused gradient of attention (MLX 0.32.4).
METAL_HEAD_DIMS = (64, 72, 80, 96, 128)
VJP_BLOCK = 1024  # queries and keys of which that gradient makes the scores at once


# What a block of a gradient holds on the CPU, in arrays of the size of a state, of gate and up, and
# of the scores. The loops evaluate arrays while the gradient is traced, and the trace keeps each of
# them. Counted by growth from block to block, which a regression over 14 shapes explained to 0.5 %
# before attention kept no scores any more; one array of them stays as room for what else varies.
CPU_TRACE = {"attention": (16.5, 3.2, 1), "tokens": (6.2, 3.1, 0)}


class Sizes(NamedTuple):
    """Bytes of one row: of its ``carry``; and in a supervision step.

    kept: for the gradient; again: the part of it that recomputing would not keep; gradient and
    forward: the largest arrays of one block at once; largest: the largest array of all.
    """

    carry: int
    kept: int
    again: int
    gradient: int
    forward: int
    largest: int
    tokens: int  # of the batch that a step is given
    ahead: int  # of work that MLX launches before what came before it is done


def row_sizes(model: RecursiveReasoner) -> Sizes:
    """What a row of this model takes on the default device, by a count of arrays."""
    config, size, kind = model.config, model.dtype.size, device_kind()
    blocks = _blocks(config, model.recursion.in_grad_updates)
    state, states = config.length * config.hidden_size, len(model.recursion.states)
    products, heads = _products(config), config.seq_len * config.vocab_size
    scores = 0 if config.mlp_t else config.num_heads * config.length**2
    if kind == "cpu":
        of_state, of_products, of_scores = CPU_TRACE["tokens" if config.mlp_t else "attention"]
        block = of_state * state + of_products * sum(products) + of_scores * scores
        if config.bootstrap_q_continue and not config.no_ACT_continue:
            # The step ahead is inside the trace, forwards: somewhat less than half of a block.
            recursion = model.recursion
            blocks += _blocks(config, recursion.free_updates + recursion.in_grad_updates) / 2
        blocks += 0.5  # of the block at work
        again, passing, forward = 0, 0, 2 * scores
    else:
        # Of the block: its input, and what each of the two norms is of and makes.
        kept, passing, forward = _mixing(config, kind)
        again = blocks * sum(products)
        block = 4 * state + sum(products) + kept
    forward = max(max(products) * 3 // 2, forward) + 3 * state
    ends = (states + 3) * state + (32 if kind == "cpu" else 14) * heads
    return Sizes(
        carry=states * state * size + 4 * (2 * config.seq_len + 3),
        kept=int(blocks * block + ends) * size,
        again=again * size,
        # Gate and up, their gradients, and silu; or the scores of attention.
        gradient=(max(2 * max(products), passing) + 3 * state) * size,
        forward=forward * size,
        largest=max(*products, min(passing, scores)) * size,
        tokens=4 * (2 * config.seq_len + 1),
        ahead=min(RUN_AHEAD, _blocks(config, model.recursion.in_grad_updates)) * forward * size,
    )


def evaluation_rows(model: RecursiveReasoner, examples: int) -> int:
    """Rows of a batch of an evaluation: as many as memory holds and still make it faster."""
    available = SHARE * memory_size() - 2 * model_bytes(model)
    most = 128 if device_kind() == "cpu" else 1024
    return max(1, min(examples, most, int(available // evaluation_bytes(model, 1))))


def evaluation_bytes(model: RecursiveReasoner, rows: int) -> int:
    """Bytes that a supervision step of an evaluation takes besides the weights."""
    sizes = row_sizes(model)
    return rows * (4 * sizes.carry + sizes.forward + sizes.ahead)


def evaluation_room(model: RecursiveReasoner, rows: int) -> int:
    """Bytes to bound such a step by: all but two arrays, see `TrainState.room`."""
    return evaluation_bytes(model, rows) - 2 * rows * row_sizes(model).largest


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
    if (assumed := device.assumed_memory()) is not None:
        return assumed
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


def _blocks(config: ModelConfig, updates: tuple[Update, ...]) -> int:
    return sum(
        config.H_layers if update.net == "H_level" else config.L_layers for update in updates
    )


def _products(config: ModelConfig) -> tuple[int, int]:
    """Elements of gate and up, along channels and along positions."""
    length, dims, expansion = config.length, config.hidden_size, config.expansion
    channels = 2 * length * inner_width(dims, expansion)
    return channels, 2 * dims * inner_width(length, expansion) if config.mlp_t else 0


def _mixing(config: ModelConfig, kind: str) -> tuple[int, int, int]:
    """Elements that mixing positions keeps of a block, makes in its gradient, and forwards."""
    state, heads, length = config.length * config.hidden_size, config.num_heads, config.length
    if config.mlp_t:  # the norm over positions, in plain functions
        return 0 if kind == "cuda" else 2 * state, 0, 0
    if kind == "cuda":
        padded = -(-length // FUSED_LENGTH) * FUSED_LENGTH * config.hidden_size
        return 4 * padded + state, 4 * padded + 3 * state, 4 * state
    if attention_is_fused(config):
        block = min(length, int(os.environ.get("MLX_SDPA_VJP_BLOCK", VJP_BLOCK)))
        return 6 * state, 3 * heads * block**2 + 8 * state, 5 * state
    scores = heads * length**2
    return 6 * state + scores, 3 * scores + 6 * state, 2 * scores + 4 * state


def attention_is_fused(config: ModelConfig) -> bool:
    """Whether Metal has a kernel for the gradient of this model's attention."""
    off = int(os.environ.get("MLX_SDPA_VJP_FALLBACK", 0))
    return not off and config.hidden_size // config.num_heads in METAL_HEAD_DIMS
