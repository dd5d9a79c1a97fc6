"""The training step: gradients of a batch, then one update of all weights; it may be compiled."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import mlx.core as mx
import mlx.optimizers as optim
from mlx.utils import tree_flatten, tree_map

from trm_mlx import device
from trm_mlx.config import TrainConfig
from trm_mlx.distributed import SINGLE, World
from trm_mlx.models import kernels_cpu
from trm_mlx.models.act import Carry, draw_dropout, draw_least_steps, draw_starts
from trm_mlx.models.memory import row_sizes
from trm_mlx.models.model import Batch, RecursiveReasoner
from trm_mlx.models.recursion import Recursion
from trm_mlx.train.losses import Metrics, act_metrics, row_losses, step_weights, total_loss
from trm_mlx.train.memory import beyond_limit, even_rows, plan
from trm_mlx.train.optim import build_optimizer, shared_sign_descent, sign_descent, warmup_cosine


class TrainState:
    """Model, optimizer and moving average, and the step that advances them together.

    Every process of a ``world`` holds all of them, and its own rows of the carry and of the batch.
    All make the update of the global batch, and so stay equal.

    Restore saved arrays before the first `step`: compiling captures the arrays that are there then.
    """

    def __init__(
        self, model: RecursiveReasoner, config: TrainConfig, total_steps: int, world: World = SINGLE
    ):
        self.model, self.config, self.world = model, config, world
        model.train()
        model.unfreeze()
        if config.freeze_weights:
            model.freeze()
        self.optimizer = build_optimizer(config, total_steps)
        self.optimizer.init(model.trainable_parameters())
        self.average = tree_map(mx.array, model.trainable_parameters()) if config.ema else {}
        arrays = (array for _, array in tree_flatten(self.arrays))
        self._held = sum(array.nbytes for array in arrays if isinstance(array, mx.array))
        self.plan = plan(config, model, self._held + self._smaller_carries(), world.size)
        self._puzzle_lr = warmup_cosine(
            config.puzzle_emb_lr,
            config,
            total_steps,
            config.puzzle_emb_lr_warmup_steps,
            config.puzzle_emb_lr_min_ratio,
        )
        self._compiles = device.compiles(config.compile)
        self._compiled: dict[Recursion | None, Callable] = {}
        # Called between two passes, and within one where its updates are computed one by one; what
        # it raises leaves everything as it was before the step.
        self.interrupt: Callable[[], object] = lambda: None

    def _smaller_carries(self) -> int:
        """Bytes of the carries of canvases smaller than the plan's boards."""
        arch, batch = self.model.config, self.config.global_batch_size // self.world.size
        lengths = [arch.prefix + side**2 for side in arch.canvases or ()]
        smaller = sum(length for length in lengths if length < arch.length)
        return batch * row_sizes(self.model).carry * smaller // arch.length

    @property
    def room(self) -> int:
        """Bytes that a step may take besides `arrays` and the carry: the plan's, but two arrays.

        MLX waits for whole buffers of commands, and makes an array before it looks at its limit; of
        a weight an update makes four at once: it, its moments and its average. And see
        `beyond_limit`.
        """
        sizes, batch = row_sizes(self.model), self.config.global_batch_size // self.world.size
        there = self._held + batch * (sizes.carry + sizes.tokens)
        weights = (array.nbytes for _, array in tree_flatten(self.model.trainable_parameters()))
        at_once = max(2 * self.plan.rows * sizes.largest, 4 * max(weights, default=0))
        beyond = self.plan.rows * beyond_limit(sizes) if self.plan.rows < batch else 0
        return self.plan.peak - there - at_once - beyond

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
            recursion: the updates of this step; by default those of ``model.recursion``.

        Returns:
            The new carry and metrics as sums over the global batch, with the ``lr`` used.
        """
        with self.model.recursing(recursion or self.model.recursion):
            carry, metrics, gradients, puzzles = self.gradients(carry, batch, key)
        if self.world.size > 1:
            gradients, metrics = self.world.sum([gradients, metrics])
            if puzzles:
                puzzles = self.world.gather(puzzles, after=metrics["count"])
        return carry, metrics | self._maybe_compile(self._update)(gradients, puzzles)

    def gradients(
        self, carry: Carry, batch: Batch, key: mx.array
    ) -> tuple[Carry, Metrics, dict, dict]:
        """Compute gradients of loss / global_batch_size over these rows; update nothing.

        A batch too large for the memory goes through in several passes, each of which is computed
        before the next begins; their gradients are added.

        Returns:
            ``(carry, metrics, gradients, puzzles)``: gradients of the weights as a tree, and of the
            puzzle rows ``identifiers [B]`` and ``gradients [B, E]``, an empty dict for a model
            without them.
        """
        draws = self._draw(carry, key)
        run_pass, count = self._maybe_compile(self._pass, self.model.recursion), self._rows(carry)
        if len(carry.steps) <= count:
            return run_pass(carry, batch, draws, {})
        weights = self.model.trainable_parameters()
        total, done = tree_map(mx.zeros_like, weights), []
        for start in range(0, len(carry.steps), count):
            mx.eval(total, done[-1:])  # one pass at a time: MLX would hold the arrays of several
            self.interrupt()
            rows = slice(start, start + count)
            inputs = tree_map(lambda array, rows=rows: array[rows], (carry, batch, draws))
            *results, total, puzzles = run_pass(*inputs, total)
            done.append((*results, puzzles))
        carries, metrics, puzzles = zip(*done, strict=True)
        joined = tree_map(lambda *parts: mx.concatenate(parts), *zip(carries, puzzles, strict=True))
        metrics = tree_map(lambda *parts: sum(parts[1:], parts[0]), *metrics)
        return joined[0], metrics, total, joined[1]

    def trace(self, carry: Carry, batch: Batch) -> None:
        """Trace a pass over these rows; where a run compiles, that is what it waits for first."""
        run_pass = self._maybe_compile(self._pass, self.model.recursion)
        run_pass(carry, batch, self._draw(carry, mx.random.key(0)), {})

    def _rows(self, carry: Carry) -> int:
        """The rows of a pass: the plan's, of its own choice more of a canvas that is smaller."""
        config = self.model.config
        length = config.prefix + carry.batch["inputs"].shape[1]
        if self.config.batch_size != "auto" or length == config.length:
            return self.plan.rows
        return even_rows(len(carry.steps), self.plan.rows * config.length // length)

    def _draw(self, carry: Carry, key: mx.array) -> dict:
        """Draw the randomness of a step for every row, as in the global batch."""
        arch, share, rows = self.model.config, self.config.random_starts, len(carry.steps)
        draws = {}
        if share:
            key, start_key = mx.random.split(key)
            draws["starts"] = draw_starts(carry.states, share, start_key, shard=self.world)
        dropout = draw_dropout(arch, rows, key, shard=self.world)
        if dropout is not None:
            draws["dropout"] = dropout
        least_steps = draw_least_steps(arch, rows, key, shard=self.world)
        return draws if least_steps is None else draws | {"least_steps": least_steps}

    def _pass(
        self, carry: Carry, batch: Batch, draws: dict, total: dict
    ) -> tuple[Carry, Metrics, dict, dict]:
        """Take some rows one supervision step further and add their gradients to ``total``."""
        config, model = self.config, self.model
        carry = model.reset_halted(carry, batch, draws.get("starts"))
        puzzles, finish = model.supervision_step(carry, draws.get("dropout"))

        def objective(trained: dict):
            model.update(trained["weights"])
            states, outputs = finish(
                trained.get("puzzles"), in_grad=True, recompute=self.plan.recompute
            )
            labels = carry.batch["labels"]
            losses = row_losses(outputs, labels, config.loss, config.label_smoothing)
            weights = step_weights(config.loss_weights, carry.steps)
            loss = total_loss(losses, weights, config.q_loss_weight) / config.global_batch_size
            return loss, (states, outputs, losses)

        weights = model.trainable_parameters()
        trained = {"weights": weights} | ({} if puzzles is None else {"puzzles": puzzles})
        try:
            (_, (states, outputs, losses)), gradients = mx.value_and_grad(objective)(trained)
        finally:
            model.update(weights)
        carry = model.halt(carry, states, outputs, draws.get("least_steps"))
        metrics = act_metrics(carry, outputs, losses)
        total = tree_map(mx.add, total, gradients["weights"]) if total else gradients["weights"]
        if puzzles is None:
            return carry, metrics, total, {}
        identifiers = carry.batch["puzzle_identifiers"]
        return (
            carry,
            metrics,
            total,
            {"identifiers": identifiers, "gradients": gradients["puzzles"]},
        )

    def _update(self, gradients: dict, puzzles: dict) -> Metrics:
        """Update everything by the gradients of the global batch; return rate and gradient norm."""
        config, model, metrics = self.config, self.model, {}
        if config.grad_clip is not None:
            gradients, metrics["grad_norm"] = optim.clip_grad_norm(gradients, config.grad_clip)
        if puzzles:
            identifiers, parts = puzzles["identifiers"], model.puzzle_emb.parts
            descend = sign_descent if parts is None else shared_sign_descent
            model.puzzle_emb.weights = descend(
                model.puzzle_emb.weights,
                identifiers if parts is None else parts[identifiers],
                puzzles["gradients"],
                self._puzzle_lr(self.optimizer.step),
                config.puzzle_emb_weight_decay,
            )
        self.optimizer.update(model, gradients)
        if config.ema:
            kept, weights = config.ema_rate, model.trainable_parameters()
            moved = tree_map(lambda old, new: kept * old + (1 - kept) * new, self.average, weights)
            self.average.update(moved)
        return metrics | {"lr": self.optimizer.learning_rate}

    def _maybe_compile(self, function: Callable, recursion: Recursion | None = None) -> Callable:
        """Return `_pass` of a recursion, or `_update`, compiled on first use where a run compiles.

        Not before, as compiling captures the arrays to read and write, which a resume replaces.
        """
        if not self._compiles:
            return function
        if recursion not in self._compiled:
            plain = kernels_cpu.disabled()(function)
            outputs = None if recursion else self.arrays
            inputs = self.model.state if recursion else self.arrays
            self._compiled[recursion] = mx.compile(plain, inputs=inputs, outputs=outputs)
        return self._compiled[recursion]


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
