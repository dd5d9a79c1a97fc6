"""How each array is updated: weights by AdamATan2 or AdamW, puzzle embeddings by sign descent."""

import math
from collections.abc import Callable

import mlx.core as mx
import mlx.optimizers as optim

from trm_mlx.config import TrainConfig

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
        state["m"] = state["m"] + (1 - beta1) * (gradient - state["m"])
        state["v"] = state["v"] + (1 - beta2) * (gradient.square() - state["v"])
        deviation = mx.sqrt(state["v"]) / mx.sqrt(_bias_correction(beta2, step))
        change = rate / _bias_correction(beta1, step) * mx.arctan2(state["m"], deviation)
        return parameter * (1 - rate * self.weight_decay) - change


def _bias_correction(beta: float, step: mx.array) -> mx.array:
    """1 - beta^step without the cancellation that float32 would suffer in the first steps."""
    return -mx.expm1(step * math.log(beta))


def warmup_cosine(peak: float, config: TrainConfig, total_steps: int) -> Schedule:
    """Linear warm-up to ``peak``, then a cosine down to ``lr_min_ratio * peak``.

    The returned function takes the number of updates made *before* this one, as MLX's optimizers
    pass it; the published schedule counts this one too, hence the plus one.
    """
    warmup, floor = config.lr_warmup_steps, config.lr_min_ratio

    def rate(updates: mx.array) -> mx.array:
        step = updates.astype(mx.float32) + 1
        progress = (step - warmup) / max(1, total_steps - warmup)
        cosine = floor + mx.maximum(0.0, (1 - floor) * 0.5 * (1 + mx.cos(math.pi * progress)))
        return peak * mx.where(step < warmup, step / max(1, warmup), cosine)

    return rate


def build_optimizer(config: TrainConfig, total_steps: int) -> optim.Optimizer:
    """The optimizer of everything but the puzzle embeddings."""
    rate = warmup_cosine(config.lr, config, total_steps)
    betas = (config.beta1, config.beta2)
    if config.optimizer == "adamw":
        return optim.AdamW(
            rate, betas=betas, weight_decay=config.weight_decay, bias_correction=True
        )
    return AdamATan2(rate, betas, config.weight_decay)


def sign_descent(
    table: mx.array,
    identifiers: mx.array,
    gradients: mx.array,
    rate: mx.array,
    weight_decay: float,
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


def moving_average(average: mx.array, value: mx.array, rate: float) -> mx.array:
    """One update of an exponential moving average: ``rate`` of the old, the rest of the new."""
    return rate * average + (1 - rate) * value
