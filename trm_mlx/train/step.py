"""The training step: gradients of a batch, then one update of all weights; it may be compiled."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import mlx.core as mx
import mlx.optimizers as optim
from mlx.utils import tree_flatten, tree_map

from trm_mlx import device
from trm_mlx.config import TrainConfig
from trm_mlx.distributed import SINGLE, World
from trm_mlx.models import kernels_cpu
from trm_mlx.models.act import Carry, random_starts
from trm_mlx.models.model import Batch, RecursiveReasoner
from trm_mlx.models.recursion import Recursion
from trm_mlx.train.losses import Metrics, act_metrics, row_losses, step_weights, total_loss
from trm_mlx.train.memory import plan
from trm_mlx.train.optim import build_optimizer, moving_average, sign_descent, warmup_cosine


class TrainState:
    """Model, optimizer and moving average, and the step that advances them together.

    Every process of a ``world`` holds all of them, and its own rows of the carry and of the batch.
    All make the update of the global batch, and so stay equal.

    Restore saved arrays before the first `step`: compiling captures the arrays that are there then.
    """

    def __init__(
        self,
        model: RecursiveReasoner,
        config: TrainConfig,
        total_steps: int,
        world: World = SINGLE,
    ):
        self.model, self.config, self.world = model, config, world
        model.train()
        model.unfreeze()
        if config.freeze_weights:
            model.freeze()
        self.optimizer = build_optimizer(config, total_steps)
        self.optimizer.init(model.trainable_parameters())
        self.average = tree_map(mx.array, model.trainable_parameters()) if config.ema else {}
        self.plan = plan(config, model, world.size)
        self._puzzle_rate = warmup_cosine(config.puzzle_emb_lr, config, total_steps)
        self._compiles = device.compiles(config.compile)
        self._steps: dict[Recursion, Callable] = {}

    @property
    def arrays(self) -> list:
        """Everything a step changes besides the carry."""
        return [self.model.state, self.optimizer.state, self.average]

    def copy_from_main(self) -> None:
        """Replace the weights, optimizer state and average by those of the main process."""
        own = [self.model.parameters(), self.optimizer.state, self.average]
        weights, self.optimizer.state, average = self.world.broadcast(own)
        self.model.update(weights)
        self.optimizer.init(self.model.trainable_parameters())
        self.average.update(average)
        mx.eval(self.arrays)

    def step(
        self, carry: Carry, batch: Batch, key: mx.array, recursion: Recursion | None = None
    ) -> tuple[Carry, Metrics]:
        """Advance by one supervision step and one update of every weight.

        Args:
            carry: rows in progress.
            batch: rows for those that halted.
            key: the randomness of this step.
            recursion: what the model does in this step, if not what it does otherwise.

        Returns:
            The new carry and metrics as sums over the global batch, with the ``lr`` used.
        """
        recursion = recursion or self.model.recursion
        if recursion not in self._steps:
            self._steps[recursion] = self._build()
        with self.model.recursing(recursion):
            return self._steps[recursion](carry, batch, key)

    def _build(self) -> Callable:
        """Compile the step as a whole or, where it waits for messages, in its two halves."""

        def compiled(function: Callable) -> Callable:
            plain = kernels_cpu.disabled()(function)
            return mx.compile(plain, inputs=self.arrays, outputs=self.arrays)

        if not self._compiles:
            return partial(self._advance, self.gradients, self._update)
        if self.world.waits:
            return partial(self._advance, compiled(self.gradients), compiled(self._update))
        return compiled(partial(self._advance, self.gradients, self._update))

    def _advance(
        self, gradients_of: Callable, update: Callable, carry: Carry, batch: Batch, key: mx.array
    ) -> tuple[Carry, Metrics]:
        carry, metrics, gradients, puzzles = gradients_of(carry, batch, key)
        if self.world.size > 1:
            gradients, metrics = self.world.sum([gradients, metrics])
            if puzzles:
                puzzles = self.world.gather(puzzles, after=metrics["count"])
        return carry, update(metrics, gradients, puzzles)

    def gradients(self, carry: Carry, batch: Batch, key: mx.array):
        """Compute gradients of loss / global_batch_size over these rows; update nothing.

        A batch too large for the memory goes through in several passes whose gradients are added.

        Returns:
            ``(carry, metrics, gradients, puzzles)``: gradients of the weights as a tree, and of the
            puzzle rows ``identifiers [B]`` and ``gradients [B, E]``, an empty dict for a model
            without them.
        """
        begins, carry = carry.halted, self.model.reset_halted(carry, batch)
        if self.config.random_starts:
            key, start_key = mx.random.split(key)
            carry = random_starts(
                carry, begins, self.config.random_starts, start_key, shard=self.world
            )
        passes, total = [], None
        for start in range(0, len(carry.steps), self.plan.rows):
            rows = slice(start, start + self.plan.rows)
            states, outputs, losses, gradients = self._pass(carry, rows, after=total)
            weights, puzzles = gradients["weights"], gradients.get("puzzles")
            total = weights if total is None else tree_map(mx.add, total, weights)
            passes.append((states, outputs, losses, puzzles))
        states, outputs, losses, puzzles = _joined(passes)
        carry = self.model.halt(carry, states, outputs, key, shard=self.world)
        rows = {"identifiers": carry.batch["puzzle_identifiers"], "gradients": puzzles}
        metrics = act_metrics(carry, outputs, losses)
        return carry, metrics, total, {} if puzzles is None else rows

    def _pass(self, carry: Carry, rows: slice, after: dict | None):
        """Return states, outputs, losses and gradients of some rows, begun after ``after``."""
        config, model, recompute = self.config, self.model, self.plan.recompute
        carry = tree_map(lambda array: array[rows], carry)
        if after is not None:
            waited_for = [array for _, array in tree_flatten(after)]
            states = dict(
                zip(carry.states, mx.depends(list(carry.states.values()), waited_for), strict=True)
            )
            carry = carry._replace(states=states)
        puzzles, finish = model.supervision_step(carry)

        def objective(trained: dict):
            model.update(trained["weights"])
            states, outputs = finish(trained.get("puzzles"), in_grad=True, recompute=recompute)
            labels = carry.batch["labels"]
            losses = row_losses(outputs, labels, config.loss, config.label_smoothing)
            weights = step_weights(config.loss_weights, carry.steps)
            loss = total_loss(losses, weights, config.q_loss_weight) / config.global_batch_size
            return loss, (states, outputs, losses)

        weights = model.trainable_parameters()
        trained = {"weights": weights} | ({} if puzzles is None else {"puzzles": puzzles})
        (_, made), gradients = mx.value_and_grad(objective)(trained)
        model.update(weights)
        return *made, gradients

    def _update(self, metrics: Metrics, gradients: dict, puzzles: dict) -> Metrics:
        """Update everything by the gradients of the global batch; add the rate to the metrics."""
        config, model = self.config, self.model
        if config.grad_clip is not None:
            gradients, metrics["grad_norm"] = optim.clip_grad_norm(gradients, config.grad_clip)
        if puzzles:
            model.puzzle_emb.weights = sign_descent(
                model.puzzle_emb.weights,
                puzzles["identifiers"],
                puzzles["gradients"],
                self._puzzle_rate(self.optimizer.step),
                config.puzzle_emb_weight_decay,
            )
        self.optimizer.update(model, gradients)
        metrics["lr"] = self.optimizer.learning_rate
        if config.ema:
            average = partial(moving_average, rate=config.ema_rate)
            self.average.update(tree_map(average, self.average, model.trainable_parameters()))
        return metrics


@contextmanager
def averaged(state: TrainState) -> Iterator[None]:
    """Give the model its averaged weights, if the run keeps an average, and restore its own after.

    A context manager: ``with averaged(trainer.state): ...`` around what uses the model.
    """
    model, weights = state.model, tree_map(mx.array, state.model.trainable_parameters())
    model.update(state.average)
    try:
        yield
    finally:
        model.update(weights)


def _joined(passes: list):
    """Concatenate the results of several passes row by row."""
    if len(passes) == 1:
        return passes[0]

    def join(*parts: mx.array | None) -> mx.array | None:  # None: a model without puzzle rows
        return None if parts[0] is None else mx.concatenate(parts)

    return tree_map(join, *passes)
