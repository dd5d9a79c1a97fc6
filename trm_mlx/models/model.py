"""The recursive reasoner: embedding, recursion, heads and the ACT wrapper, for every variant.

The forward pass is cut where the gradient begins, see `RecursiveReasoner.supervision_step`: a
training step runs the early updates outside its differentiated function, so that nothing of them is
kept and on Metal they use the fused attention.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from types import MappingProxyType

import mlx.core as mx
import mlx.nn as nn

from trm_mlx.config import ModelConfig
from trm_mlx.device import default_dtype
from trm_mlx.errors import InputError
from trm_mlx.models import kernels_cpu
from trm_mlx.models.act import (
    Carry,
    Starts,
    continue_target,
    draw_dropout,
    draw_least_steps,
    halting_rows,
    replace_rows,
)
from trm_mlx.models.blocks import Level, draw_masks, to_blocks
from trm_mlx.models.layers import Embedding, Linear, PuzzleEmbedding, truncated_normal
from trm_mlx.models.recursion import Recursion, Update, recurse
from trm_mlx.models.variants import VARIANTS

Batch = dict[str, mx.array]


class RecursiveReasoner(nn.Module):
    """A model of one variant.

    A batch holds ``inputs [B, S]``, ``puzzle_identifiers [B]`` and, for training, ``labels
    [B, S]``, all int32. S is ``config.seq_len`` or, to a model with two-dimensional positions, the
    cells of any square board. In training mode rows halt and explore, in evaluation mode
    (``model.eval()``) every row runs ``halt_max_steps`` supervision steps.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.recursion = VARIANTS[config.name](config)
        self._prefix = config.prefix
        name = default_dtype() if config.forward_dtype == "auto" else config.forward_dtype
        self._dtype = getattr(mx, name)

        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size, self._dtype)
        if config.puzzle_dims:
            rows = config.num_puzzle_rows or config.num_puzzle_identifiers
            self.puzzle_emb = PuzzleEmbedding(rows, config.puzzle_dims)
        if config.pos_encodings == "learned":
            self.embed_pos = Embedding(config.length, config.hidden_size, self._dtype)
        for net in self.recursion.nets:
            depth = config.H_layers if net == "H_level" else config.L_layers
            if depth < 1:
                raise InputError(f"arch.{net[0]}_layers={depth}: {config.name} needs at least 1")
            setattr(self, net, Level(config, depth))
        for state in self.recursion.states:
            setattr(self, _initial(state), truncated_normal((config.hidden_size,), std=1.0))
        self.lm_head = Linear(config.hidden_size, config.vocab_size)
        self.q_head = Linear(config.hidden_size, 2, bias=True)
        # Almost "never halt" at first, which the bootstrapped target needs.
        self.q_head.weight = mx.zeros_like(self.q_head.weight)
        self.q_head.bias = mx.full((2,), -5.0)
        self._freeze_buffers()
        # Called before every update of a state and, in loops of the CPU, before its gradient. Where
        # those are computed one by one, as there, what it raises ends a step early.
        self.before_update: Callable[[], object] = lambda: None

    @property
    def dtype(self) -> mx.Dtype:
        """The dtype of the activations."""
        return self._dtype

    def _freeze_buffers(self) -> None:
        self.freeze(recurse=False, keys=[_initial(state) for state in self.recursion.states])
        if "puzzle_emb" in self:
            self.puzzle_emb.freeze()

    def unfreeze(self, **kwargs) -> "RecursiveReasoner":
        """Unfreeze parameters, but never the initial states and the puzzle table."""
        super().unfreeze(**kwargs)
        self._freeze_buffers()
        return self

    def initial_carry(self, batch: Batch) -> Carry:
        """A carry whose rows have all halted, so that the first step fills them from a batch."""
        rows, cells = batch["inputs"].shape
        state = mx.zeros((rows, self._prefix + cells, self.config.hidden_size), self._dtype)
        return Carry(
            states=dict.fromkeys(self.recursion.states, state),
            steps=mx.zeros((rows,), mx.int32),
            halted=mx.ones((rows,), mx.bool_),
            batch={name: mx.zeros_like(array) for name, array in batch.items()},
        )

    def __call__(
        self, carry: Carry, batch: Batch, key: mx.array | None = None
    ) -> tuple[Carry, dict[str, mx.array]]:
        """One supervision step.

        Args:
            carry: from `initial_carry` or the previous step.
            batch: rows for the places of ``carry`` that have halted.
            key: randomness of exploration and dropout; needed in training mode only.

        Returns:
            The new carry and ``logits [B, S, V]``, ``q_halt_logits [B]``, ``q_continue_logits [B]``
            (and, in training, ``target_q_continue [B]`` where the variant has one).
        """
        carry, rows = self.reset_halted(carry, batch), len(carry.steps)
        keys = draw_dropout(self.config, rows, key) if self.training else None
        puzzles, finish = self.supervision_step(carry, keys)
        states, outputs = finish(puzzles)
        least_steps = draw_least_steps(self.config, rows, key) if self.training else None
        return self.halt(carry, states, outputs, least_steps), outputs

    def supervision_step(
        self, carry: Carry, dropout_keys: mx.array | None = None
    ) -> tuple[mx.array | None, Callable]:
        """Run the updates before the gradient begins, and return the function that runs the rest.

        Args:
            carry: after `reset_halted`.
            dropout_keys: of its rows, ``[B, 2]``, from `draw_dropout`; None: nothing is dropped.

        Returns:
            ``(puzzles, finish)``: the puzzle embeddings ``[B, puzzle_dims]`` or None, and
            ``finish(puzzles, in_grad=False, recompute=False) -> (states, outputs)``, to be
            differentiated with respect to the weights and to ``puzzles``.
        """
        batch, puzzles = carry.batch, self.puzzle_rows(carry.batch)
        masks = {} if dropout_keys is None else self._masks(carry.states, dropout_keys)
        before = self.no_grad_updates(carry.states, batch, puzzles, masks)
        before = {name: mx.stop_gradient(state) for name, state in before.items()}

        def finish(puzzles: mx.array | None, in_grad: bool = False, recompute: bool = False):
            states, outputs = self.grad_updates_and_heads(
                before, batch, puzzles, in_grad, recompute, masks
            )
            return states, outputs | self.bootstrap_target(carry, states, puzzles)

        return puzzles, finish

    def reset_halted(self, carry: Carry, batch: Batch, starts: Starts | None = None) -> Carry:
        """Give the halted rows their new puzzle, initial states and a step count of zero.

        Args:
            starts: random initial states for some of them, in place of the learned ones.
        """
        halted = carry.halted
        states = {
            name: replace_rows(halted, self[_initial(name)].astype(self._dtype), state)
            for name, state in carry.states.items()
        }
        if starts is not None:
            chosen = halted & starts.chosen
            states = {n: replace_rows(chosen, starts.states[n], s) for n, s in states.items()}
        return Carry(
            states=states,
            steps=mx.where(halted, 0, carry.steps),
            halted=halted,
            batch={
                name: replace_rows(halted, batch[name], old) for name, old in carry.batch.items()
            },
        )

    def puzzle_rows(self, batch: Batch) -> mx.array | None:
        """The puzzle embeddings of a batch, float32 ``[B, puzzle_dims]``, if the model has any."""
        return self.puzzle_emb(batch["puzzle_identifiers"]) if "puzzle_emb" in self else None

    def embed(self, batch: Batch, puzzles: mx.array | None) -> mx.array:
        """The input ``x [B, L, D]``: puzzle embedding as a prefix, tokens, positions, times √D."""
        x = self.embed_tokens(batch["inputs"])
        if puzzles is not None:
            room = self._prefix * x.shape[-1] - puzzles.shape[-1]
            prefix = mx.pad(puzzles.astype(self._dtype), ((0, 0), (0, room)))
            x = mx.concatenate([prefix.reshape(-1, self._prefix, x.shape[-1]), x], axis=1)
        if "embed_pos" in self:
            positions = self.embed_pos.embedding_weight.astype(self._dtype)
            x = self._scale(x + positions, 0.707106781)
        return self._scale(x, math.sqrt(self.config.hidden_size))

    @contextmanager
    def recursing(self, recursion: Recursion) -> Iterator[None]:
        """Inside, a supervision step is ``recursion``, with the same nets and states."""
        own, self.recursion = self.recursion, recursion
        try:
            yield
        finally:
            self.recursion = own

    def _scale(self, x: mx.array, factor: float) -> mx.array:
        # In float32: MLX would round the factor itself to the dtype of x, PyTorch does not.
        return (x.astype(mx.float32) * factor).astype(x.dtype)

    def _masks(self, states: Batch, keys: mx.array) -> dict[str, list]:
        """Dropout masks by net, for the whole supervision step."""
        nets, length = self.recursion.nets, next(iter(states.values())).shape[1]
        parts = mx.vmap(lambda key: mx.random.split(key, len(nets)))(keys)
        return {
            net: draw_masks(self.config, len(self[net].layers), length, parts[:, i], self._dtype)
            for i, net in enumerate(nets)
        }

    def no_grad_updates(
        self,
        states: Batch,
        batch: Batch,
        puzzles: mx.array | None,
        masks: Mapping[str, list] = MappingProxyType({}),
    ) -> Batch:
        """Apply the updates outside the gradient and return the states."""
        return self._recurse(self.recursion.free_updates, states, batch, puzzles, masks)

    def grad_updates_and_heads(
        self,
        states: Batch,
        batch: Batch,
        puzzles: mx.array | None,
        in_grad: bool = False,
        recompute: bool = False,
        masks: Mapping[str, list] = MappingProxyType({}),
    ) -> tuple[Batch, dict[str, mx.array]]:
        """Apply the updates inside the gradient and the heads; return states and outputs.

        Args:
            in_grad: a gradient will be asked for, so choose what is fast with one.
            recompute: keep less for that gradient and compute it again; the values are the same.
            masks: dropout masks by net; without them nothing is dropped.
        """
        updates = self.recursion.in_grad_updates
        options = {"in_grad": in_grad, "recompute": recompute}
        states = self._recurse(updates, states, batch, puzzles, masks, **options)
        readout = states[self.recursion.readout]
        q_logits = self.q_head(readout[:, 0]).astype(mx.float32)
        return states, {
            "logits": self.lm_head(readout[:, self._prefix :]),
            "q_halt_logits": q_logits[:, 0],
            "q_continue_logits": q_logits[:, 1],
        }

    def _recurse(
        self,
        updates: tuple[Update, ...],
        states: Batch,
        batch: Batch,
        puzzles: mx.array | None,
        masks: Mapping[str, list],
        **options: bool,
    ) -> Batch:
        if not updates:
            return states
        mlp_t = self.config.mlp_t
        inside = {name: to_blocks(state, mlp_t) for name, state in states.items()}
        x = to_blocks(self.embed(batch, puzzles), mlp_t)
        in_loops = options.get("in_grad") and kernels_cpu.usable(x)
        ask_again = _before_gradient(self.before_update) if in_loops else lambda state: state

        def run(net: str, hidden: mx.array) -> mx.array:
            self.before_update()
            return ask_again(self[net](hidden, masks=masks.get(net, ()), **options))

        nets = {name: partial(run, name) for name in self.recursion.nets}
        states = recurse(updates, nets, inside, x)
        return {name: to_blocks(state, mlp_t) for name, state in states.items()}

    def bootstrap_target(self, carry: Carry, states: Batch, puzzles: mx.array | None) -> Batch:
        """``target_q_continue [B]`` from the step after this one, for variants trained on it."""
        config = self.config
        learns = self.training and config.halt_max_steps > 1 and not config.no_ACT_continue
        if not (learns and config.bootstrap_q_continue):
            return {}
        states = {name: mx.stop_gradient(state) for name, state in states.items()}
        later = self.no_grad_updates(states, carry.batch, puzzles)
        _, ahead = self.grad_updates_and_heads(later, carry.batch, puzzles)
        target = continue_target(
            config, carry.steps + 1, ahead["q_halt_logits"], ahead["q_continue_logits"]
        )
        return {"target_q_continue": mx.stop_gradient(target)}

    def halt(
        self,
        carry: Carry,
        states: Batch,
        outputs: dict[str, mx.array],
        least_steps: mx.array | None = None,
    ) -> Carry:
        """Count the step, detach the states and decide which rows halt; see `halting_rows`."""
        steps = carry.steps + 1
        halted = halting_rows(
            self.config,
            steps,
            mx.stop_gradient(outputs["q_halt_logits"]),
            mx.stop_gradient(outputs["q_continue_logits"]),
            self.training,
            least_steps,
        )
        states = {name: mx.stop_gradient(state) for name, state in states.items()}
        return Carry(states, steps, halted, carry.batch)


def _before_gradient(hook: Callable[[], object]) -> Callable[[mx.array], mx.array]:
    """The identity, whose gradient calls ``hook`` first."""

    @mx.custom_function
    def same(state: mx.array) -> mx.array:
        return state

    @same.vjp
    def _(_state, cotangent, _output):
        hook()
        return cotangent

    return same


def _initial(state: str) -> str:
    """The parameter that holds a state's first value: z_H -> H_init, z_L3 -> L3_init."""
    return f"{state.removeprefix('z_')}_init"


def build_model(config: ModelConfig, seed: int = 0) -> RecursiveReasoner:
    """Return a freshly initialised model, float32, in training mode; ``seed`` decides its weights.

    MLX's global random state is seeded with it.

    Raises:
        InputError: an unknown variant or sizes it cannot have.
    """
    if config.name not in VARIANTS:
        raise InputError(f"arch.name={config.name}: choose one of {', '.join(VARIANTS)}")
    mx.random.seed(seed)
    return RecursiveReasoner(config)
