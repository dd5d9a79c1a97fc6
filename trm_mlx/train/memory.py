"""How many rows of a batch fit through a training step at once.

An estimate from the sizes of what a gradient keeps, checked against measured peaks (see
docs/performance.md); it errs towards fewer rows.
"""

from typing import NamedTuple

import mlx.core as mx
from mlx.utils import tree_flatten

from trm_mlx.config import ModelConfig, TrainConfig
from trm_mlx.device import default_dtype, device_kind
from trm_mlx.host_memory import host_memory
from trm_mlx.models.model import RecursiveReasoner

SHARE = 0.75  # of the memory there is that a plan may use
CPU_FACTOR = 4  # its loops are run while the gradient is traced, and then nothing is let go
CPU_ROOM = 2 * 2**30  # bytes; larger passes spend their time on fresh pages of memory
FEW_ROWS = 32  # fewer at once, and computing products twice is the better deal


class Plan(NamedTuple):
    """How a training step goes about its batch: ``rows`` at once, products made twice or kept."""

    rows: int
    recompute: bool


def plan(config: TrainConfig, model: RecursiveReasoner, processes: int = 1) -> Plan:
    """The plan that ``batch_size`` and ``grad_checkpoint`` ask for, or that memory allows.

    It is that of one of several ``processes``, for its part of the global batch.
    """
    batch = config.global_batch_size // processes
    available = SHARE * memory_size() - fixed_bytes(model)
    on_cpu = device_kind() == "cpu"
    if on_cpu:
        available = min(available, CPU_ROOM)
    rows = {
        recompute: max(1, int(available // row_bytes(model, recompute)))
        for recompute in (False, True)
    }
    short = rows[False] < min(batch, FEW_ROWS) and not on_cpu
    recompute = config.grad_checkpoint == "true" or (config.grad_checkpoint == "auto" and short)
    wanted = rows[recompute] if config.batch_size == "auto" else int(config.batch_size)
    passes = -(-batch // min(wanted, batch))
    return Plan(-(-batch // passes), recompute)


def evaluation_rows(model: RecursiveReasoner, examples: int) -> int:
    """Rows of a batch of an evaluation: as many as memory holds and still make it faster."""
    available = SHARE * memory_size() - fixed_bytes(model)
    rows = available // row_bytes(model, recompute=True)
    most = 128 if device_kind() == "cpu" else 1024
    return max(1, min(examples, most, int(rows)))


def memory_size() -> int:
    """Bytes that arrays of the default device may take."""
    if device_kind() == "cpu":
        return host_memory()
    info = mx.device_info()
    on_metal = info.get("max_recommended_working_set_size")
    return int(on_metal or info["total_memory"])


def fixed_bytes(model: RecursiveReasoner) -> int:
    """Weights, gradients, two moments, an average and what an update makes in passing."""
    return 8 * sum(array.nbytes for _, array in tree_flatten(model.trainable_parameters()))


def row_bytes(model: RecursiveReasoner, recompute: bool) -> int:
    """What a gradient keeps of one row of a batch, and its largest intermediate arrays."""
    config = model.config
    dtype = default_dtype() if config.forward_dtype == "auto" else config.forward_dtype
    products = sum(_products(config))
    blocks = sum(
        config.H_layers if update.net == "H_level" else config.L_layers
        for update in model.recursion.in_grad_updates
    )
    kept = 4 * config.length * config.hidden_size + _attention(config)
    on_cpu = device_kind() == "cpu"
    kept += 0 if recompute and not on_cpu else products
    elements = (blocks * kept + 3 * products) * (CPU_FACTOR if on_cpu else 1)
    return getattr(mx, dtype).size * elements


def _products(config: ModelConfig) -> tuple[int, int]:
    """Elements of gate and up, along channels and along positions."""

    def inner(dims: int) -> int:
        return -(-round(config.expansion * dims * 2 / 3) // 256) * 256

    channels = 2 * config.length * inner(config.hidden_size)
    return channels, 2 * config.hidden_size * inner(config.length) if config.mlp_t else 0


def _attention(config: ModelConfig) -> int:
    """Elements that the gradient of attention keeps."""
    if config.mlp_t:
        return 0
    heads = 8 * config.length * config.hidden_size
    fused = device_kind() == "cuda"
    return heads if fused else heads + 3 * config.num_heads * config.length**2
