"""Evaluation of a model over the test split: every row runs all its supervision steps."""

from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

import mlx.core as mx
import numpy as np

from trm_mlx.data.arrays import IGNORE_LABEL
from trm_mlx.data.dataset import PuzzleDataset
from trm_mlx.data.sampler import iterate_test, prefetch
from trm_mlx.distributed import SINGLE, World
from trm_mlx.errors import InputError
from trm_mlx.files import output_file, write_text
from trm_mlx.models import kernels_cpu
from trm_mlx.models.act import Carry, unroll
from trm_mlx.models.blocks import paced
from trm_mlx.models.memory import bounded, evaluation_room, evaluation_rows
from trm_mlx.models.model import Batch, RecursiveReasoner
from trm_mlx.tasks.arc import SIZE
from trm_mlx.tasks.arc_canvas import restore
from trm_mlx.train.canvases import cut, examples_by_side
from trm_mlx.train.losses import Metrics, act_metrics, row_losses

SAVABLE = (
    "inputs",
    "labels",
    "puzzle_identifiers",
    "logits",
    "preds",
    "q_halt_logits",
    "q_continue_logits",
)
JUDGED = ("inputs", "labels", "puzzle_identifiers", "preds", "q_halt_logits")  # by evaluators


class EvalResult(NamedTuple):
    """The result of an evaluator: numbers by name, and text files by name."""

    metrics: dict[str, float]
    files: dict[str, str]


class Evaluator(Protocol):
    """Judges a model's answers by the rules of a task, batch by batch.

    It sees every example of the split once between `begin` and `result`.
    """

    name: str  # goes before its metrics, as in ARC/pass@1

    def begin(self) -> None:
        """Start an evaluation."""

    def update(self, batch: dict[str, np.ndarray], outputs: dict[str, np.ndarray]) -> None:
        """Judge the next n examples, without padding.

        Args:
            batch: ``inputs [n, S]``, ``labels [n, S]``, ``puzzle_identifiers [n]``.
            outputs: of the last supervision step, ``preds [n, S]``, ``q_halt_logits [n]``.
        """

    def result(self) -> EvalResult:
        """Sum up the evaluation."""

    def state(self) -> dict[str, np.ndarray]:
        """Return the integers that the next evaluation adds to; empty if each begins anew."""

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Continue from a `state` that is not empty.

        Raises:
            InputError: it belongs to another dataset, or is damaged.
        """


class EvaluationStep:
    """(carry, batch) -> (carry, outputs, metrics) of one supervision step, nothing updated."""

    def __init__(self, model: RecursiveReasoner, loss: str, compiled: bool = False):
        self.model, self.loss, self._compiled = model, loss, compiled
        run = kernels_cpu.disabled()(self._run)
        self._step = mx.compile(run, inputs=model.state) if compiled else self._run

    def __call__(self, carry: Carry, batch: Batch) -> tuple[Carry, Batch, Metrics]:
        return self._step(carry, batch)

    def bounded(self, rows: int) -> AbstractContextManager[None]:
        """Inside, steps of ``rows`` take no more memory than `evaluation_bytes` says."""
        return bounded(evaluation_room(self.model, rows)) if self._compiled else paced()

    def _run(self, carry: Carry, batch: Batch) -> tuple[Carry, Batch, Metrics]:
        carry, outputs = self.model(carry, batch)
        losses = row_losses(outputs, carry.batch["labels"], self.loss)
        judged = carry._replace(halted=mx.ones_like(carry.halted))  # whichever step is the last
        return carry, outputs, act_metrics(judged, outputs, losses, skip_unlabelled=True)


def evaluate(
    step: EvaluationStep,
    dataset: PuzzleDataset,
    batch_size: int | None = None,
    save: tuple[str, ...] = (),
    evaluators: Sequence[Evaluator] = (),
    tick: Callable[[int], object] = lambda rows: None,
    world: World = SINGLE,
    max_steps: int | None = None,
) -> tuple[dict[str, dict[str, float]], dict[str, np.ndarray]]:
    """Return metrics of the last supervision step, per set of the dataset, as means over examples.

    Args:
        step: of the model to evaluate; keep it for the next evaluation, it may be compiled. The
            smaller canvases that its model may have come one side after the other; what is saved or
            judged lies on stored canvases again.
        batch_size: rows at once, of each process; as many as memory holds by default.
        save: names in `SAVABLE` to return for every example, in the dataset's order.
        evaluators: judge every example; ask them for their `result` afterwards.
        tick: called with the number of examples done after each batch.
        world: the processes that share the examples. The evaluators of the main process are shown
            all examples in the dataset's order, or a canvas side's, and the saved arrays are its
            own.
        max_steps: supervision steps of every puzzle; None: the model's ``halt_max_steps``.

    Returns:
        ``{set: {metric: mean}}`` with the number of examples as ``count``, and the saved arrays.
    """
    check_savable(save)
    arch = step.model.config

    def rows_of(examples: int, length: int) -> int:
        if batch_size is not None:
            return min(batch_size, max(1, examples))
        return evaluation_rows(step.model, -(-examples // world.size), length)

    most = rows_of(len(dataset), arch.length)
    sides = [(SIZE, None, most)]
    if arch.smaller_canvases:
        sides = [
            (side, chosen, rows_of(len(chosen), arch.prefix + side**2))
            for side, chosen in examples_by_side(dataset, arch.canvases)
        ]
    batches = (
        (side, *batch)
        for side, chosen, rows in sides
        for batch in iterate_test(dataset, rows * world.size, world, chosen)
    )
    sums: dict[str, dict[str, float]] = {}
    saved: dict[str, list[np.ndarray]] = defaultdict(list)
    wanted = dict.fromkeys([*save, *(JUDGED if evaluators else ())])
    for evaluator in evaluators:
        evaluator.begin()
    with evaluation_mode(step.model), step.bounded(most):
        before = None
        for side, set_name, stored, rows in prefetch(batches):
            if before not in (None, side):
                mx.clear_cache()  # of arrays that have no size of this side's
            before = side
            if arch.smaller_canvases:
                stored = cut(stored, side)
            batch = {name: mx.array(array) for name, array in stored.items()}
            outputs, metrics = run_all_steps(step, batch, max_steps)
            outputs = {**batch, **outputs, "preds": mx.argmax(outputs["logits"], axis=-1)}
            metrics = {name: value[None] for name, value in metrics.items()}
            metrics, outputs = world.gather([metrics, {name: outputs[name] for name in wanted}])
            mx.eval(metrics, outputs)
            totals = sums.setdefault(set_name, dict.fromkeys(metrics, 0.0))
            for name, values in metrics.items():
                for value in values.tolist():  # one by one, as in one process
                    totals[name] += value
            if world.is_main:
                shown = {name: _portable(array)[:rows] for name, array in outputs.items()}
                if side != SIZE:
                    shown = {name: _as_stored(name, a, side) for name, a in shown.items()}
                for name in save:
                    saved[name].append(shown[name])
                for evaluator in evaluators:
                    evaluator.update(shown, shown)
            tick(rows)
    means = {
        set_name: {
            name: value if name == "count" else value / max(totals["count"], 1)
            for name, value in totals.items()
        }
        for set_name, totals in sums.items()
    }
    order = slice(None)
    if arch.smaller_canvases:
        order = np.argsort(np.concatenate([chosen for _, chosen, _ in sides]))
    return means, {name: np.concatenate(parts)[order] for name, parts in saved.items()}


def run_all_steps(
    step: EvaluationStep, batch: Batch, max_steps: int | None = None
) -> tuple[Batch, Metrics]:
    """Run all supervision steps of a batch; return outputs and metrics of the last one."""
    carry = step.model.initial_carry(batch)
    steps = max_steps or step.model.config.halt_max_steps
    ((_, outputs, metrics),) = deque(unroll(step, carry, batch, steps), maxlen=1)
    return outputs, metrics


@contextmanager
def evaluation_mode(model: RecursiveReasoner):
    """Put the model in evaluation mode, and back in its former mode afterwards."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def check_savable(names: tuple[str, ...]) -> None:
    """Refuse names that `evaluate` cannot save.

    Raises:
        InputError: naming the first of them.
    """
    for name in names:
        if name not in SAVABLE:
            raise InputError(
                f"eval_save_outputs: cannot save {name!r}; choose from {', '.join(SAVABLE)}"
            )


def write_outputs(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write saved arrays as one ``.npz`` file, atomically."""
    with output_file(path) as unfinished, unfinished.open("wb") as file:
        np.savez(file, **arrays)


def write_files(folder: Path, files: dict[str, str]) -> None:
    """Write an evaluator's files, if it has any, into a folder that is made for them."""
    for name, text in files.items():
        write_text(folder / name, text)


def _as_stored(name: str, array: np.ndarray, side: int) -> np.ndarray:
    """Put what cells of a smaller canvas have, labels or answers say, on stored canvases."""
    if array.ndim == 1:
        return array
    return restore(array, side, IGNORE_LABEL if name == "labels" else 0)


def _portable(array: mx.array) -> np.ndarray:
    """Convert to NumPy, which has no bfloat16."""
    floating = mx.issubdtype(array.dtype, mx.floating)
    return np.array(array.astype(mx.float32) if floating else array)
