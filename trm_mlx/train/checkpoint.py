"""Points of a training run on disk: everything needed to continue it bit for bit.

    RUN/all_config.yaml           the run's configuration
    RUN/metrics.jsonl             one line per step and evaluation
    RUN/step_0006510/             config.json, model.safetensors, ema.safetensors,
                                  optimizer.safetensors, carry.safetensors, state.json, and
                                  evaluators_000007.safetensors where those count on

A step folder that has its name is whole (see ``whole_folder``), and its arrays are finite. Without
optimizer, carry and state it is a model alone (see ``models.weights``).
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten, tree_map, tree_unflatten

from trm_mlx.errors import InputError, refusal, shortened
from trm_mlx.models.act import Carry
from trm_mlx.models.weights import (
    EMA_FILE,
    find_checkpoint,
    read_weights,
    save_arrays,
    save_model,
)
from trm_mlx.options import plain
from trm_mlx.train.run_folder import way_back
from trm_mlx.train.step import Training
from trm_mlx.whole_folder import whole_file, whole_folder

OPTIMIZER_FILE, CARRY_FILE, STATE_FILE = "optimizer.safetensors", "carry.safetensors", "state.json"


@dataclass
class Progress:
    """How far a run has come.

    ``interval`` counts those that are trained and evaluated; ``position`` is where the next
    training batch starts; ``results`` are those of this step's evaluation, if it had one.
    """

    step: int = 0
    interval: int = 0
    position: dict[str, int] | None = None
    results: dict[str, float] = dataclasses.field(default_factory=dict)


def save_checkpoint(
    run: Path,
    training: Training,
    carry: Carry,
    progress: Progress,
    evaluators: Mapping[str, dict[str, np.ndarray]] = MappingProxyType({}),
) -> Path:
    """Write ``run/step_NNNNNNN`` and return it.

    Args:
        evaluators: their `state` by name, those that have one.

    Raises:
        InputError: the folder cannot be written, and nothing half-written keeps its final name; or
            there is something to save that no run could go on from.
    """
    final = run / f"step_{progress.step:07d}"
    _check_finite(training, carry, final)
    state = {
        **dataclasses.asdict(progress),
        "versions": {"mlx": mx.__version__},
        "train_config": plain(training.config),
    }
    text = json.dumps(state, indent=2) + "\n"
    counted = evaluators_file(progress)
    try:
        if final.exists():  # stopped before its evaluation, which changes no array of the model
            if evaluators:
                with whole_file(final / counted) as unfinished:
                    save_arrays(unfinished, _arrays_of(evaluators))
            with whole_file(final / STATE_FILE) as unfinished:
                unfinished.write_text(text, encoding="utf-8")
            for path in final.glob("evaluators_*"):
                if path.name != counted:  # those of the state that was
                    path.unlink()
            return final
        with whole_folder(final) as finished:
            save_model(finished, training.model)
            if training.average:
                save_arrays(finished / EMA_FILE, training.average)
            save_arrays(finished / OPTIMIZER_FILE, training.optimizer.state)
            save_arrays(finished / CARRY_FILE, carry._asdict())
            if evaluators:
                save_arrays(finished / counted, _arrays_of(evaluators))
            (finished / STATE_FILE).write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write {final}: {refusal(error)}; {way_back(run)}") from error
    return final


def evaluators_file(progress: Progress) -> str:
    """The name says to which ``state.json`` of the same step it belongs."""
    return f"evaluators_{progress.interval:06d}.safetensors"


def read_evaluators(folder: Path, progress: Progress) -> dict[str, dict[str, np.ndarray]]:
    """The `state` of the evaluators that have one, by their names.

    Raises:
        InputError: the file is damaged.
    """
    path = folder / evaluators_file(progress)
    if not path.exists():
        return {}
    tree = tree_unflatten(list(read_weights(path).items()))
    if not all(isinstance(state, dict) for state in tree.values()):
        raise InputError(f"{path} is damaged: resume from an earlier step")
    return tree_map(np.array, tree)


def _arrays_of(evaluators: Mapping[str, dict[str, np.ndarray]]) -> dict:
    return tree_map(mx.array, dict(evaluators))


def _check_finite(training: Training, carry: Carry, final: Path) -> None:
    state = (
        training.model.parameters(),
        training.optimizer.state,
        training.average,
        carry._asdict(),
    )
    arrays = [pair for tree in state for pair in tree_flatten(tree)]
    finite = mx.stack([mx.isfinite(array).all() for _, array in arrays]).tolist()
    for (name, _), good in zip(arrays, finite, strict=True):
        if not good:
            raise InputError(
                f"{final} is not saved, {name} holds NaN or infinity; {way_back(final.parent)}, "
                "and set a smaller lr= or grad_clip=1"
            )


def read_state(folder: str | Path) -> tuple[Path, Progress, dict]:
    """Find the newest checkpoint of a run (or the one named) and read its ``state.json``.

    Returns:
        The checkpoint folder, the progress it stands for, and the run's plain configuration.

    Raises:
        InputError: there is none, or it is a model without training state.
    """
    folder = find_checkpoint(folder)
    path = folder / STATE_FILE
    if not path.exists():
        raise InputError(
            f"{folder} holds a model but no training state: start from it with "
            f"load_checkpoint={folder} instead of resume="
        )
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        position = state["position"]
        if position is not None:
            position = {name: int(value) for name, value in position.items()}
        results = {name: float(value) for name, value in state.get("results", {}).items()}
        progress = Progress(int(state["step"]), int(state["interval"]), position, results)
        return folder, progress, dict(state["train_config"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{path} is damaged ({shortened(error)}): resume from an earlier step"
        ) from error
