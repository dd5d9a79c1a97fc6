"""One optimisation step and one evaluation step, compiled where that pays."""

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
from trm_mlx.train.losses import act_metrics, row_losses, step_weights, total_loss
from trm_mlx.train.memory import plan
from trm_mlx.train.optim import build_optimizer, moving_average, sign_descent, warmup_cosine

Metrics = dict[str, mx.array]


class Training:
    """Model, optimizer and moving average, and the function that advances them together.

    In a group, every process holds all of them, and its own rows of the carry and of the batch. All
    make the update of the whole batch, and so stay equal.

    Restored state must be put in place before the first `step`: compiling captures the arrays
    that are there then.
    """

    def __init__(
        self,
        model: RecursiveReasoner,
        config: TrainConfig,
        total_steps: int,
        group: World = SINGLE,
    ):
        self.model, self.config, self.group = model, config, group
        model.train()
        model.unfreeze()
        if config.freeze_weights:
            model.freeze()
        self.optimizer = build_optimizer(config, total_steps)
        self.optimizer.init(model.trainable_parameters())
        self.average = tree_map(mx.array, model.trainable_parameters()) if config.ema else {}
        self.plan = plan(config, model, group.size)
        self._puzzle_rate = warmup_cosine(config.puzzle_emb_lr, config, total_steps)
        self._steps: dict[Recursion, Callable] = {}

    @property
    def state(self) -> list:
        """Everything a step changes besides the carry."""
        return [self.model.state, self.optimizer.state, self.average]

    def follow(self) -> None:
        """Take over the weights, the optimizer and the average of the process that leads."""
        state = [self.model.parameters(), self.optimizer.state, self.average]
        weights, self.optimizer.state, average = self.group.broadcast(state)
        self.model.update(weights)
        self.optimizer.init(self.model.trainable_parameters())
        self.average.update(average)
        mx.eval(self.state)

    def step(
        self, carry: Carry, batch: Batch, key: mx.array, recursion: Recursion | None = None
    ) -> tuple[Carry, Metrics]:
        """Advance by one supervision step and one update of every weight.

        Args:
            carry: rows in progress; batch: rows for those that halted; key: this step's randomness.
            recursion: what the model does in this step, if not what it does otherwise.

        Returns:
            The new carry and metrics as sums over the global batch, with the ``lr`` used.
        """
        recursion = recursion or self.model.recursion
        if recursion not in self._steps:
            self._steps[recursion] = self._built()
        with self.model.recursing(recursion):
            return self._steps[recursion](carry, batch, key)

    def _built(self) -> Callable:
        """The step, compiled as a whole or, where it waits for messages, in its two halves."""

        def compiled(function: Callable) -> Callable:
            plain = kernels_cpu.disabled()(function)
            return mx.compile(plain, inputs=self.state, outputs=self.state)

        if not compiles(self.config):
            return partial(self._update, self.gradients, self._applied)
        if self.group.waits:
            return partial(self._update, compiled(self.gradients), compiled(self._applied))
        return compiled(partial(self._update, self.gradients, self._applied))

    def gradients(self, carry: Carry, batch: Batch, key: mx.array):
        """Gradients of loss / global_batch_size over these rows, without updating anything.

        A batch too large for the memory goes through in several passes whose gradients are added.

        Returns:
            ``(carry, metrics, gradients of the weights as a tree, puzzles)``: the puzzle rows'
            ``identifiers [B]`` and ``gradients [B, E]``, or nothing for a model without them.
        """
        begins, carry = carry.halted, self.model.reset_halted(carry, batch)
        if self.config.random_starts:
            key, start_key = mx.random.split(key)
            carry = random_starts(carry, begins, self.config.random_starts, start_key, self.group)
        passes, total = [], None
        for start in range(0, len(carry.steps), self.plan.rows):
            rows = slice(start, start + self.plan.rows)
            states, outputs, losses, gradients = self._pass(carry, rows, after=total)
            weights, puzzles = gradients["weights"], gradients.get("puzzles")
            total = weights if total is None else tree_map(mx.add, total, weights)
            passes.append((states, outputs, losses, puzzles))
        states, outputs, losses, puzzles = _joined(passes)
        carry = self.model.halt(carry, states, outputs, key, self.group)
        rows = {"identifiers": carry.batch["puzzle_identifiers"], "gradients": puzzles}
        metrics = act_metrics(carry, outputs, losses)
        return carry, metrics, total, {} if puzzles is None else rows

    def _pass(self, carry: Carry, rows: slice, after: dict | None):
        """States, outputs, losses and gradients of some rows, begun when ``after`` is there."""
        config, model, recompute = self.config, self.model, self.plan.recompute
        carry = tree_map(lambda array: array[rows], carry)
        if after is not None:
            waited_for = [array for _, array in tree_flatten(after)]
            states = dict(
                zip(carry.states, mx.depends(list(carry.states.values()), waited_for), strict=True)
            )
            carry = carry._replace(states=states)
        puzzles = model.puzzle_rows(carry.batch)
        states = model.no_grad_updates(carry.states, carry.batch, puzzles)

        def objective(trained: dict):
            model.update(trained["weights"])
            puzzles = trained.get("puzzles")
            new_states, outputs = model.grad_updates_and_heads(
                states, carry.batch, puzzles, True, recompute
            )
            outputs |= model.bootstrap_target(carry, new_states, puzzles)
            labels = carry.batch["labels"]
            losses = row_losses(outputs, labels, config.loss, config.label_smoothing)
            weights = step_weights(config.loss_weights, carry.steps)
            loss = total_loss(losses, weights, config.q_loss_weight) / config.global_batch_size
            return loss, (new_states, outputs, losses)

        weights = model.trainable_parameters()
        trained = {"weights": weights} | ({} if puzzles is None else {"puzzles": puzzles})
        (_, made), gradients = mx.value_and_grad(objective)(trained)
        model.update(weights)
        return *made, gradients

    def _update(
        self, compute: Callable, apply: Callable, carry: Carry, batch: Batch, key: mx.array
    ) -> tuple[Carry, Metrics]:
        carry, metrics, gradients, puzzles = compute(carry, batch, key)
        gradients, metrics = self.group.sum([gradients, metrics])
        if puzzles:
            puzzles = self.group.gather(puzzles, after=metrics["count"])
        return carry, apply(metrics, gradients, puzzles)

    def _applied(self, metrics: Metrics, gradients: dict, puzzles: dict) -> Metrics:
        """Update everything by the gradients of the global batch; the metrics with the rates."""
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
def averaged(training: Training) -> Iterator[None]:
    """The model with its averaged weights, if the run keeps an average, and back afterwards.

    A context manager: ``with averaged(trainer.training): ...`` around what uses the model.
    """
    model, weights = training.model, tree_map(mx.array, training.model.trainable_parameters())
    model.update(training.average)
    try:
        yield
    finally:
        model.update(weights)


def _joined(passes: list):
    """The results of several passes as those of one: row by row."""
    if len(passes) == 1:
        return passes[0]

    def join(*parts: mx.array | None) -> mx.array | None:  # None: a model without puzzle rows
        return None if parts[0] is None else mx.concatenate(parts)

    return tree_map(join, *passes)


def compiles(config: TrainConfig) -> bool:
    """Whether the step is compiled as a whole."""
    return device.compiles(config.compile)


class EvaluationStep:
    """(carry, batch) -> (carry, outputs, metrics) of one supervision step, nothing updated."""

    def __init__(self, model: RecursiveReasoner, loss: str, compiled: bool = False):
        self.model, self.loss = model, loss
        run = kernels_cpu.disabled()(self._run)
        self._step = mx.compile(run, inputs=model.state) if compiled else self._run

    def __call__(self, carry: Carry, batch: Batch) -> tuple[Carry, Batch, Metrics]:
        return self._step(carry, batch)

    def _run(self, carry: Carry, batch: Batch) -> tuple[Carry, Batch, Metrics]:
        carry, outputs = self.model(carry, batch)
        losses = row_losses(outputs, carry.batch["labels"], self.loss)
        return carry, outputs, act_metrics(carry, outputs, losses, skip_unlabelled=True)
