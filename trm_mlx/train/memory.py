"""How many rows of a batch fit through a training step at once, and what the step then takes."""

from typing import NamedTuple

from trm_mlx import device
from trm_mlx.config import TrainConfig
from trm_mlx.device import device_kind
from trm_mlx.models.memory import (
    SHARE,
    Sizes,
    gradient_copies,
    in_loops,
    memory_size,
    model_bytes,
    row_sizes,
    trainable_bytes,
)
from trm_mlx.models.model import RecursiveReasoner

CPU_ROOM = 2 * 2**30  # bytes; larger passes spend their time on fresh pages of memory
FEW_ROWS = 32  # fewer at once, and computing products twice is the better deal


class Plan(NamedTuple):
    """How a training step goes about its batch.

    rows: at once; recompute: products made twice, not kept; peak: bytes of memory it takes at most,
    weights and optimizer included.
    """

    rows: int
    recompute: bool
    peak: int


def plan(config: TrainConfig, model: RecursiveReasoner, held: int, processes: int = 1) -> Plan:
    """The plan that ``batch_size`` and ``grad_checkpoint`` ask for, or that memory allows.

    It is that of one of several ``processes``, for its part of the global batch.

    Args:
        held: bytes of the weights, the optimizer's state and the moving average.
    """
    batch = config.global_batch_size // processes
    available, on_cpu = SHARE * memory_size(), device_kind() == "cpu"
    if on_cpu:
        available = min(available, held + CPU_ROOM)

    def peak_of(rows: int, recompute: bool) -> int:
        return peak(config, model, held, batch, rows, recompute)

    def most_rows(recompute: bool) -> int:
        """By bisection: the peak grows with the rows, but a single pass holds less beside them."""
        least = peak_of(1, recompute)  # of the carry alone, maybe

        def fits(rows: int) -> bool:
            return peak_of(rows, recompute) <= max(available, least)

        low, high = (batch, batch) if fits(batch) else (1, batch)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if fits(middle) else (low, middle - 1)
        return low

    choice = config.grad_checkpoint
    short = choice == "auto" and not on_cpu and most_rows(False) < min(batch, FEW_ROWS)
    recompute = choice == "true" or short
    wanted = most_rows(recompute) if config.batch_size == "auto" else int(config.batch_size)
    rows = even_rows(batch, wanted)
    return Plan(rows, recompute, peak_of(rows, recompute))


def even_rows(batch: int, most: int) -> int:
    """The rows of a pass where a batch takes as few passes of at most so many, all alike."""
    passes = -(-batch // min(most, batch))
    return -(-batch // passes)


def beyond_limit(sizes: Sizes) -> int:
    """Bytes of a row that a GPU takes beyond its limit where passes follow one another.

    Measured on an H200, where MLX 0.32.4 looks at the limit between graphs of up to 1,000 MB; on
    Metal buffers of commands end after 40 or 50 MB.
    """
    return sizes.ahead if device_kind() == "cuda" else 0


def peak(
    config: TrainConfig,
    model: RecursiveReasoner,
    held: int,
    batch: int,
    rows: int,
    recompute: bool,
) -> int:
    """Bytes that a training step of ``batch`` rows takes, ``rows`` of them at once."""
    compiled = device.compiles(config.compile)
    sizes, weights = row_sizes(model, compiled), trainable_bytes(model)
    passes = -(-batch // rows)
    row = sizes.kept - (sizes.again if recompute else 0)
    if not in_loops(model, compiled):  # their trace holds all these already
        row += sizes.gradient + sizes.ahead
        if passes > 1:
            row += beyond_limit(sizes)
    # The carry before the step and after it; it is joined from the passes while those are held.
    # Random starts are drawn for the whole batch, in float32 first.
    carries = 4 if config.random_starts else 2
    computing = carries * batch * sizes.carry + rows * row
    if weights:
        computing += gradient_copies(model, compiled)
    if passes > 1:
        computing += (carries - 1) * rows * sizes.carry  # cut out of the batch's
    joining = 3 * batch * sizes.carry if passes > 1 else 0
    # The sum of the updates and what is next added to it; the same of the passes.
    gradients = (4 if passes > 1 else 2) * weights
    updating = held - model_bytes(model) + weights
    return held + batch * sizes.tokens + gradients + max(computing, joining, updating)
