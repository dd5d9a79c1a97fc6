"""What of the published experiments fits on a machine: rows at once, passes, memory."""

import time
from collections.abc import Iterator
from typing import NamedTuple

import mlx.core as mx

from trm_mlx.config import ModelConfig, TrainConfig
from trm_mlx.models.model import build_model
from trm_mlx.train.step import TrainState

# Cells, tokens and puzzle identifiers of the data of each.
EXPERIMENTS = {
    "sudoku_fast": (81, 11, 1),
    "sudoku_mlp": (81, 11, 1),
    "sudoku_attention": (81, 11, 1),
    "maze": (900, 6, 1),
    "maze_fast": (900, 6, 1),
    "arc1": (900, 12, 876_406),
}
SMALL_MAC = 36 * 2**30


class Fit(NamedTuple):
    """The plan of an experiment: see `Plan`; ``trace`` is the seconds to trace one pass."""

    experiment: str
    batch: int
    rows: int
    passes: int
    recompute: bool
    peak: int
    trace: float


def working_set(memory: int) -> int:
    """Bytes that macOS recommends for a GPU's arrays on a Mac of ``memory`` bytes."""
    return memory * 2 // 3 if memory < SMALL_MAC else memory * 3 // 4


def fits(configs: dict[str, TrainConfig]) -> Iterator[Fit]:
    """Plan each experiment for the default device, or the one assumed; nothing is computed.

    Args:
        configs: by name, of `EXPERIMENTS`.
    """
    for name, config in configs.items():
        seq_len, vocab_size, identifiers = EXPERIMENTS[name]
        model = ModelConfig.of(
            config.arch,
            seq_len=seq_len,
            vocab_size=vocab_size,
            num_puzzle_identifiers=identifiers,
        )
        state = TrainState(build_model(model), config, total_steps=1)
        batch, plan = config.global_batch_size, state.plan
        seconds = _trace_seconds(state, config, seq_len)
        passes = -(-batch // plan.rows)
        yield Fit(name, batch, plan.rows, passes, plan.recompute, plan.peak, seconds)


def _trace_seconds(state: TrainState, config: TrainConfig, seq_len: int) -> float:
    """Trace one pass as a step would, without computing it."""
    rows = state.plan.rows
    batch = {name: mx.zeros((rows, seq_len), mx.int32) for name in ("inputs", "labels")}
    batch["puzzle_identifiers"] = mx.zeros((rows,), mx.int32)
    start = time.perf_counter()
    state.trace(state.model.initial_carry(batch), batch)
    return time.perf_counter() - start
