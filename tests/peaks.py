"""Measures the memory of a training step."""

import mlx.core as mx
import numpy as np

from trm_mlx.config import ModelConfig
from trm_mlx.models.memory import bounded
from trm_mlx.models.model import build_model
from trm_mlx.train.step import TrainState


def measured_peak(config, seq_len, vocab_size, steps=1):
    """The peak of a training step on random tokens, limited as in a run, and its ``Plan``.

    Args:
        config: a ``TrainConfig``; its ``global_batch_size`` is the number of rows.
        steps: training steps before the one that is measured, so that all state exists.

    Returns:
        ``(bytes, plan)``: the peak of MLX's memory during the step, in bytes, weights included.
    """
    sizes = {"seq_len": seq_len, "vocab_size": vocab_size, "num_puzzle_identifiers": 1}
    before = mx.get_active_memory()  # of others: what fixtures and caches hold
    state = TrainState(build_model(ModelConfig.of(config.arch, **sizes)), config, total_steps=10)
    rng, shape = np.random.default_rng(0), (config.global_batch_size, seq_len)
    batch = {
        "inputs": mx.array(rng.integers(1, vocab_size, shape), mx.int32),
        "labels": mx.array(rng.integers(1, vocab_size, shape), mx.int32),
        "puzzle_identifiers": mx.zeros(shape[:1], mx.int32),
    }
    carry = state.model.initial_carry(batch)
    for step in range(steps + 1):
        mx.eval(carry, state.arrays)
        mx.synchronize()
        if step == steps:
            mx.clear_cache()
            mx.reset_peak_memory()
        with bounded(state.room):
            carry, metrics = state.step(carry, batch, mx.random.key(step))
            mx.eval(carry, metrics, state.arrays)
    return mx.get_peak_memory() - before, state.plan
