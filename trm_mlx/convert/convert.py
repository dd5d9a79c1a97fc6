"""Converts a file of weights to a model folder: read, infer, assign strictly, write whole."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx

from trm_mlx.convert.infer import infer_config
from trm_mlx.convert.read import read_checkpoint, read_published_config
from trm_mlx.convert.sources import Source
from trm_mlx.convert.verify import VerificationFailed, compare
from trm_mlx.errors import InputError, located, refusal
from trm_mlx.files import atomic_folder
from trm_mlx.models.checkpoint_files import assign_weights, save_model
from trm_mlx.models.model import build_model


def convert(
    source: Source,
    output: Path,
    given: Mapping[str, Any],
    dtype: str = "float32",
    verify: bool = False,
    key: str | None = None,
    report: Callable[[str], None] = print,
) -> None:
    """Convert ``source``, a file of weights of any known kind, to the model folder ``output``.

    Args:
        source: file written by ``torch.save`` or ``np.savez``, or a ``.safetensors`` file; and the
            configuration that says what is not in it.
        output: folder to create.
        given: fields of a ``ModelConfig`` that override what the files state and what is inferred.
        dtype: dtype of the stored weights; they are loaded as float32.
        verify: compare the model with PyTorch before the folder appears.
        key: where in the file the weights are, see `read_checkpoint`.
        report: called with each line about what was found and done.

    Raises:
        InputError: the file, a given value or the output folder cannot be used.
        VerificationFailed: MLX and PyTorch differ by more than rounding; no folder is written.
    """
    if output.exists():
        raise InputError(f"{output} exists: name another output folder, or remove it")
    checkpoint = read_checkpoint(source.weights, key)
    settings = checkpoint.settings
    if source.config is not None:
        options = read_published_config(source.config)
        settings = settings | options
        if source.asked and not options:
            raise InputError(f"{source.config} has no arch section, and no such option at its top")
        taken = "its options are taken" if options else "says nothing of the architecture"
        checkpoint.notes.append(f"{source.config}: {taken}")
    with located(source.weights):
        config, notes = infer_config(checkpoint.weights, settings | given)
    for line in [*checkpoint.notes, *notes]:
        report(line)
    stored = {name: array.astype(getattr(mx, dtype)) for name, array in checkpoint.weights.items()}
    model = build_model(config)
    assign_weights(model, stored, str(source.weights))
    try:
        with atomic_folder(output) as finished:
            save_model(finished, model, getattr(mx, dtype))
            if verify:
                comparison = compare(finished, stored)
                if not comparison.passed:
                    raise VerificationFailed(f"{comparison}: no folder written")
                report(str(comparison))
    except OSError as error:
        raise InputError(f"cannot write {output}: {refusal(error)}") from error
    report(f"{output}: {sum(array.size for array in stored.values()):,} values, {dtype}")
