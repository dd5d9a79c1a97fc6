"""How arrays change: weights by AdamATan2, AdamW or Muon, puzzle embeddings by sign descent."""

import math
from collections.abc import Callable

import mlx.core as mx
import mlx.optimizers as optim

from trm_mlx.config import TrainConfig
from trm_mlx.models import kernels_cpu
from trm_mlx.tasks.arc_rows import SHARED

Schedule = Callable[[mx.array], mx.array]


class AdamATan2(optim.Optimizer):
    """Adam with atan2(m, √v) in place of m / (√v + ε): no epsilon, updates bounded by lr·π/2.

    From "Scaling Exponents Across Parameterizations and Optimizers" (arXiv 2407.05872), with the
    decoupled weight decay and bias correction of the published TRM code. Moments are float32.
    """

    def __init__(
        self, learning_rate: float | Schedule, betas: tuple[float, float], weight_decay: float
    ):
        super().__init__()
        self._maybe_schedule("learning_rate", learning_rate)
        self.betas = betas
        self.weight_decay = weight_decay

    def init_single(self, parameter: mx.array, state: dict) -> None:
        state["m"] = mx.zeros_like(parameter)
        state["v"] = mx.zeros_like(parameter)

    def apply_single(self, gradient: mx.array, parameter: mx.array, state: dict) -> mx.array:
        rate, step = self.learning_rate, self.step.astype(mx.float32)
        beta1, beta2 = self.betas
        if kernels_cpu.usable(gradient):
            scalars = (
                mx.sqrt(_bias_correction(beta2, step)),
                rate / _bias_correction(beta1, step),
                1 - rate * self.weight_decay,
            )
            factors = (1 - beta1, 1 - beta2, *(scalar.item() for scalar in scalars))
            moments = state["m"], state["v"]
            parameter, state["m"], state["v"] = kernels_cpu.adam_atan2(
                gradient, parameter, moments, factors
            )
            return parameter
        state["m"] = state["m"] + (1 - beta1) * (gradient - state["m"])
        state["v"] = state["v"] + (1 - beta2) * (gradient.square() - state["v"])
        deviation = mx.sqrt(state["v"]) / mx.sqrt(_bias_correction(beta2, step))
        change = rate / _bias_correction(beta1, step) * mx.arctan2(state["m"], deviation)
        return parameter * (1 - rate * self.weight_decay) - change


class Muon(optim.Muon):
    """MLX's Muon with decoupled weight decay: its own would be orthogonalised with the gradient."""

    def __init__(self, learning_rate: float | Schedule, weight_decay: float):
        super().__init__(learning_rate, weight_decay=0.0)
        self.decay = weight_decay

    def apply_single(self, gradient: mx.array, parameter: mx.array, state: dict) -> mx.array:
        shrunk = parameter * (1 - self.learning_rate * self.decay)
        return super().apply_single(gradient, shrunk, state)


class MuonWithAdamW(optim.MultiOptimizer):
    """Muon for the matrices of the blocks, AdamW for embeddings and heads.

    ``step`` and ``learning_rate`` are Muon's.
    """

    def __init__(self, muon: Muon, adamw: optim.AdamW):
        super().__init__([muon, adamw], [_of_blocks])

    @property
    def step(self) -> mx.array:
        return self.optimizers[0].step


def _of_blocks(name: str, parameter: mx.array) -> bool:
    return "_level." in name and parameter.ndim == 2


def _bias_correction(beta: float, step: mx.array) -> mx.array:
    """1 - beta^step without the cancellation that float32 would suffer in the first steps."""
    return -mx.expm1(step * math.log(beta))


def warmup_cosine(
    peak: float,
    config: TrainConfig,
    total_steps: int,
    warmup: int | None = None,
    floor: float | None = None,
) -> Schedule:
    """Linear warm-up to ``peak``, then ``peak``, then a cosine down to ``floor * peak``.

    The cosine takes the last ``lr_decay_share`` of the steps after the warm-up, as published all.

    The returned function takes the number of updates made *before* this one, as MLX's optimizers
    pass it; the published schedule counts this one too, hence the plus one.

    Args:
        warmup, floor: ``lr_warmup_steps`` and ``lr_min_ratio`` by default.
    """
    warmup = config.lr_warmup_steps if warmup is None else warmup
    floor = config.lr_min_ratio if floor is None else floor
    share = config.lr_decay_share

    def rate(updates: mx.array) -> mx.array:
        step = updates.astype(mx.float32) + 1
        progress = (step - warmup) / max(1, total_steps - warmup)
        progress = mx.maximum(0.0, (progress - (1 - share)) / share)
        cosine = floor + mx.maximum(0.0, (1 - floor) * 0.5 * (1 + mx.cos(math.pi * progress)))
        return peak * mx.where(step < warmup, step / max(1, warmup), cosine)

    return rate


def build_optimizer(config: TrainConfig, total_steps: int) -> optim.Optimizer:
    """The optimizer of everything but the puzzle embeddings."""
    rate = warmup_cosine(config.lr, config, total_steps)
    betas = (config.beta1, config.beta2)
    if config.optimizer == "adam_atan2":
        return AdamATan2(rate, betas, config.weight_decay)
    adamw = optim.AdamW(rate, betas=betas, weight_decay=config.weight_decay, bias_correction=True)
    if config.optimizer == "adamw":
        return adamw
    muon_rate = warmup_cosine(config.muon_lr, config, total_steps)
    return MuonWithAdamW(Muon(muon_rate, config.muon_weight_decay), adamw)


def sign_descent(
    table: mx.array, identifiers: mx.array, gradients: mx.array, rate: mx.array, weight_decay: float
) -> mx.array:
    """Update the rows of ``table [N, E]`` that a batch used, by the sign of their gradient.

    Gradients ``[B, E]`` of equal ``identifiers [B]`` are summed first; rows of absent identifiers
    are untouched, not even decayed. Rows that occur twice are written twice with the same value,
    which needs no array of data-dependent size and so compiles.
    """
    same = (identifiers[:, None] == identifiers[None, :]).astype(gradients.dtype)
    direction = mx.sign(same @ gradients)
    table[identifiers] = table[identifiers] * (1 - rate * weight_decay) - rate * direction
    return table


def shared_sign_descent(
    table: mx.array, parts: mx.array, gradients: mx.array, rate: mx.array, weight_decay: float
) -> mx.array:
    """`sign_descent` where the rows ``parts [B, K]`` are added to the embedding of each puzzle.

    The `SHARED` rows, which every batch uses, learn at a tenth of the rate.
    """
    rows = mx.arange(len(table))
    uses = (parts[None] == rows[:, None, None]).sum(axis=2).astype(gradients.dtype)  # [N, B]
    rates = rate * mx.where(rows < SHARED, 0.1, 1.0)[:, None]
    used = uses.sum(axis=1, keepdims=True) > 0
    moved = table * (1 - rates * weight_decay) - rates * mx.sign(uses @ gradients)
    return mx.where(used, moved, table)
