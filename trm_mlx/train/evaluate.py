"""Evaluation of a model over the test split: every row runs all its supervision steps."""

from collections import defaultdict, deque
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import mlx.core as mx
import numpy as np

from trm_mlx.data.loader import PuzzleDataset
from trm_mlx.data.prefetch import prefetch
from trm_mlx.data.sampler import iterate_test
from trm_mlx.errors import InputError
from trm_mlx.models.act import unroll
from trm_mlx.models.model import Batch, RecursiveReasoner
from trm_mlx.train.step import EvaluationStep, Metrics

SAVABLE = (
    "inputs",
    "labels",
    "puzzle_identifiers",
    "logits",
    "preds",
    "q_halt_logits",
    "q_continue_logits",
)


def evaluate(
    step: EvaluationStep,
    dataset: PuzzleDataset,
    batch_size: int,
    save: tuple[str, ...] = (),
    tick: Callable[[int], object] = lambda rows: None,
) -> tuple[dict[str, dict[str, float]], dict[str, np.ndarray]]:
    """Metrics of the last supervision step, per set of the dataset, as means over its examples.

    Args:
        step: of the model to evaluate; keep it for the next evaluation, it may be compiled.
        save: names in `SAVABLE` to return for every example, in the dataset's order.
        tick: called with the number of examples done after each batch.

    Returns:
        ``{set: {metric: mean}}`` with the number of examples as ``count``, and the saved arrays.
    """
    check_savable(save)
    sums: dict[str, dict[str, float]] = {}
    saved: dict[str, list[np.ndarray]] = defaultdict(list)
    with evaluation_mode(step.model):
        for set_name, arrays, rows in prefetch(iterate_test(dataset, batch_size)):
            batch = {name: mx.array(array) for name, array in arrays.items()}
            outputs, metrics = run_to_halt(step, batch)
            totals = sums.setdefault(set_name, dict.fromkeys(metrics, 0.0))
            for name, value in metrics.items():
                totals[name] += value.item()
            outputs = {**batch, **outputs, "preds": mx.argmax(outputs["logits"], axis=-1)}
            for name in save:
                saved[name].append(np.array(outputs[name].astype(_portable(outputs[name])))[:rows])
            tick(rows)
    means = {
        set_name: {
            name: value if name == "count" else value / max(totals["count"], 1)
            for name, value in totals.items()
        }
        for set_name, totals in sums.items()
    }
    return means, {name: np.concatenate(parts) for name, parts in saved.items()}


def run_to_halt(step: EvaluationStep, batch: Batch) -> tuple[Batch, Metrics]:
    """All supervision steps of a batch; the outputs and metrics of the last one."""
    carry = step.model.initial_carry(batch)
    steps = step.model.config.halt_max_steps
    ((_, outputs, metrics),) = deque(unroll(step, carry, batch, steps), maxlen=1)
    return outputs, metrics


@contextmanager
def evaluation_mode(model: RecursiveReasoner):
    """The model in evaluation mode, and back in its former mode afterwards."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def check_savable(names: tuple[str, ...]) -> None:
    """Raises InputError for a name that `evaluate` cannot save."""
    for name in names:
        if name not in SAVABLE:
            raise InputError(
                f"eval_save_outputs: cannot save {name!r}; choose from {', '.join(SAVABLE)}"
            )


def write_outputs(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Saved arrays as one ``.npz`` file."""
    try:
        np.savez(path, **arrays)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error}") from error


def _portable(array: mx.array) -> mx.Dtype:
    """NumPy has no bfloat16."""
    return mx.float32 if mx.issubdtype(array.dtype, mx.floating) else array.dtype
