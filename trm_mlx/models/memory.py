"""What one row of a batch takes in memory, and the limits that follow from it.

Counted from what the program holds; ``train.memory`` makes the plan of a training step of it. Tests
compare both with measured peaks (tests/test_memory.py).
"""

import os
from collections.abc import Iterable, Iterator
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
GPU_POSITIONS = 2**18  # of an evaluation at once: 286 boards of 900 cells; more were not timed
RUN_AHEAD = 4  # blocks that MLX may launch before the first of them is done
# Of a head, for which Metal has a fused gradient of attention (MLX 0.32.4).
METAL_HEAD_DIMS = (64, 72, 80, 96, 128)
VJP_BLOCK = 1024  # queries and keys of which that gradient makes the scores at once


class Arrays(NamedTuple):
    """A number of arrays of the size of a state, of gate and up, and of the scores of attention."""

    states: float
    products: float
    scores: float = 0


class Trace(NamedTuple):
    """What the trace of a gradient keeps on the CPU: of a block, and of states an update adds up.

    The loops evaluate arrays while the gradient is traced, and the trace keeps each of them, unless
    a loop alone has read it.

    forwards: those of the block that are there before its gradient; dropped: added by dropout.
    """

    block: Arrays
    forwards: Arrays
    dropped: Arrays
    added: int


ATTENTION = Trace(Arrays(13, 3), Arrays(8, 1.5), Arrays(1, 0.5), added=2)
ODD_HEADS = Trace(Arrays(20, 3, 6), Arrays(12, 1.5, 3), Arrays(1, 0.5), added=2)  # no loop attends
TOKENS = Trace(Arrays(6, 3), Arrays(4, 1.5), Arrays(0, 1), added=1)


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


def row_sizes(model: RecursiveReasoner, compiled: bool = False) -> Sizes:
    """What a row of this model takes on the default device, by a count of arrays."""
    config, size, kind = model.config, model.dtype.size, device_kind()
    blocks = _blocks(config, model.recursion.in_grad_updates)
    state, states = config.length * config.hidden_size, len(model.recursion.states)
    products, heads = _products(config), config.seq_len * config.vocab_size
    scores = 0 if config.mlp_t else config.num_heads * config.length**2
    if in_loops(model, compiled):
        again, passing, forward = 0, 0, 0 if _trace(config) is ATTENTION else 2 * scores
        # Of what is not of a block: the input, and half of the products at work.
        kept = _traced(model) + 2 * state + sum(products) / 2 + 32 * heads
    else:
        # Of the block: its input, and what each of the two norms is of and makes.
        mixing, passing, forward = _mixing(config, kind)
        again = blocks * sum(products)
        block = 4 * state + sum(products) + mixing
        kept = blocks * block + (states + 3) * state + 14 * heads
    if config.board_convolution:  # its input, for the gradient of its taps
        kept += len(model.recursion.in_grad_updates) * state
    forward = max(max(products) * 3 // 2, forward) + 3 * state
    return Sizes(
        carry=states * state * size + 4 * (2 * config.seq_len + 3),
        kept=int(kept + _masks(model)) * size,
        again=again * size,
        # Gate and up, their gradients, and silu; or the scores of attention.
        gradient=(max(2 * max(products), passing) + 3 * state) * size,
        forward=forward * size,
        largest=max(*products, min(passing, scores)) * size,
        tokens=4 * (2 * config.seq_len + 1),
        ahead=min(RUN_AHEAD, _blocks(config, model.recursion.in_grad_updates)) * forward * size,
    )


def in_loops(model: RecursiveReasoner, compiled: bool) -> bool:
    """Whether the CPU's loops compute a step; what is ``compiled`` has none."""
    return device_kind() == "cpu" and model.dtype == mx.float32 and not compiled


def evaluation_rows(model: RecursiveReasoner, examples: int, length: int | None = None) -> int:
    """Rows of a batch of an evaluation: as many as memory holds and still make it faster.

    Args:
        length: positions of a row; the model's by default, and fewer on a smaller canvas.
    """
    available = SHARE * memory_size() - 2 * model_bytes(model)
    most = 128
    if device_kind() != "cpu":
        most = min(1024, GPU_POSITIONS // (length or model.config.length))
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


def _trace(config: ModelConfig) -> Trace:
    if config.mlp_t:
        return TOKENS
    return ODD_HEADS if config.hidden_size // config.num_heads % 2 else ATTENTION


def _traced(model: RecursiveReasoner) -> float:
    """Elements of a row that the trace keeps of the updates inside a gradient."""
    config, recursion, trace = model.config, model.recursion, _trace(model.config)
    state, products = config.length * config.hidden_size, sum(_products(config))
    scores = config.num_heads * config.length**2

    def size(arrays: Arrays) -> float:
        return arrays.states * state + arrays.products * products + arrays.scores * scores

    def sums(updates: tuple[Update, ...], added: int) -> int:
        return sum(len(update.sources + update.inject) - 1 + added for update in updates) * state

    updates = recursion.in_grad_updates
    kept = _blocks(config, updates) * size(trace.block) + sums(updates, trace.added)
    if config.dropout:
        kept += _blocks(config, updates) * size(trace.dropped)
    if config.bootstrap_q_continue and not config.no_ACT_continue:
        # The step ahead, forwards; its input is embedded twice, and the heads read their part.
        updates = recursion.free_updates + updates
        kept += _blocks(config, updates) * size(trace.forwards) + sums(updates, 0)
        kept += 5 * state + 4 * config.seq_len * config.vocab_size
    return kept


def _masks(model: RecursiveReasoner) -> int:
    """Elements of a row's dropout masks, of both parts of a block, once for all updates."""
    config, updates = model.config, model.recursion.in_grad_updates
    mixed = 0 if config.mlp_t else config.length * config.hidden_size
    nets = {update.net: update for update in updates}.values()
    return _blocks(config, nets) * (mixed + sum(_products(config)) // 2) if config.dropout else 0


def gradient_copies(model: RecursiveReasoner, compiled: bool) -> int:
    """Bytes of the gradients of weights by update, all of which are there before they are summed.

    A gradient of SwiGLU waits for those of its weights; attention's are computed after the last
    update, unless the pass is ``compiled``. The trace of the CPU's loops keeps gate and up twice:
    laid out anew, or in two parts.
    """
    config = model.config
    dims, inner = config.hidden_size, inner_width(config.hidden_size, config.expansion)
    matrix = inner * dims
    if config.mlp_t:
        matrix += inner_width(config.length, config.expansion) * config.length
    block = (5 if in_loops(model, compiled) else 3) * matrix
    if compiled and not config.mlp_t:
        block += 4 * dims**2
    return block * _blocks(config, model.recursion.in_grad_updates) * mx.float32.size


def _blocks(config: ModelConfig, updates: Iterable[Update]) -> int:
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
