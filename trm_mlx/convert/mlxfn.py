"""Exports a model as an MLX function file, which Swift and C++ programs run without Python."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import mlx.core as mx
from mlx.utils import tree_map

from trm_mlx.errors import InputError
from trm_mlx.files import output_file
from trm_mlx.models.act import halting_logit
from trm_mlx.models.checkpoint_files import load
from trm_mlx.models.layers import plain_functions
from trm_mlx.models.model import RecursiveReasoner


def export_mlxfn(
    folder: Path,
    output: Path,
    batch_sizes: Sequence[int] = (1,),
    device: str = "cpu",
    halt_threshold: float | None = None,
    report: Callable[[str], None] = print,
) -> None:
    """Write one supervision step of a model, with its weights, to ``output``.

    The function takes ``inputs`` int32 ``[B, S]``, ``puzzle_identifiers`` int32 ``[B]`` if the
    model knows more than one, and, except for the first step, the states of the step before by
    their names, ``[B, L, D]`` each. It returns the answers int32 ``[B, S]``, the halting
    probabilities float32 ``[B]``, and the states in the order of their names.

    Weights are the averaged ones where the folder has them, as `load` takes them. The activations
    have the dtype that the model would have on ``device``.

    Args:
        folder: checkpoint folder, run folder or name of a bundled model.
        output: file to create.
        batch_sizes: every number of puzzles B that the function can be called with.
        device: ``"cpu"`` or ``"gpu"``, where the function will run.
        halt_threshold: halting probability at which to stop, noted in the file.
        report: called with each line about what was written.

    Raises:
        InputError: the folder holds no model, a batch size is out of range, MLX has no such device
            here, or ``output`` exists or cannot be written.
    """
    if output.exists():
        raise InputError(f"{output} exists: name another file, or remove it")
    for size in batch_sizes:
        if size < 1:
            raise InputError(f"batch size {size}: must be at least 1")
    if device == "gpu" and not mx.is_available(mx.gpu):
        raise InputError(
            "device gpu: MLX has no GPU on this machine; export on one that has, or cpu"
        )
    with mx.stream(getattr(mx, device)):
        model, config = load(folder)
        # In the dtype of the activations, so that no step casts them; evaluated, they are constants
        # of the graph.
        model.update(tree_map(lambda weight: weight.astype(model.dtype), model.parameters()))
        mx.eval(model.parameters())
        step, states = supervision_step(model), model.recursion.states
        identifiers = "puzzle_emb" in model and config.num_puzzle_identifiers > 1
        signature = {
            "inputs": ["inputs", *(["puzzle_identifiers"] if identifiers else []), *states],
            "outputs": ["answers", "halting", *states],
            "batch_sizes": list(batch_sizes),
            "seq_len": config.seq_len,
            "vocab_size": config.vocab_size,
            "state_shape": [config.length, config.hidden_size],
            "dtype": str(model.dtype).removeprefix("mlx.core."),
            "halt_max_steps": config.halt_max_steps,
            "halt_threshold": halt_threshold,
            "task": config.task,
        }
        with output_file(output) as unfinished:
            _write(unfinished, step, model, identifiers, batch_sizes, json.dumps(signature))
        report(f"{output}: one supervision step on the {device}, {signature['dtype']}")
        report(json.dumps(signature))


def supervision_step(model: RecursiveReasoner) -> Callable[..., list[mx.array]]:
    """The function that `export_mlxfn` writes; without states it begins with the initial ones."""

    def step(
        inputs: mx.array, puzzle_identifiers: mx.array | None = None, **states: mx.array
    ) -> list[mx.array]:
        if puzzle_identifiers is None:
            puzzle_identifiers = mx.zeros(inputs.shape[:1], mx.int32)
        batch = {"inputs": inputs, "puzzle_identifiers": puzzle_identifiers}
        carry = model.initial_carry(batch)
        if states:
            halted = mx.zeros_like(carry.halted)
            carry = carry._replace(states=states, halted=halted, batch=batch)
        carry, outputs = model(carry, batch)
        answers = mx.argmax(outputs["logits"], axis=-1).astype(mx.int32)
        halting = mx.sigmoid(halting_logit(model.config, outputs))
        return [answers, halting, *(carry.states[name] for name in model.recursion.states)]

    return step


def _write(
    path: Path,
    step: Callable[..., list[mx.array]],
    model: RecursiveReasoner,
    identifiers: bool,
    batch_sizes: Sequence[int],
    metadata: str,
) -> None:
    """Trace the step for every batch size, with and without states."""
    with plain_functions(), mx.exporter(str(path), step, metadata=metadata) as exporter:
        for size in batch_sizes:
            batch = {"inputs": mx.zeros((size, model.config.seq_len), mx.int32)}
            if identifiers:
                batch["puzzle_identifiers"] = mx.zeros((size,), mx.int32)
            exporter(**batch)
            exporter(**batch, **model.initial_carry(batch).states)
