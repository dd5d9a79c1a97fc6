"""Converts a file of weights to a model folder: read, infer, assign strictly, write whole."""

import hashlib
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx

from trm_mlx.convert.infer import infer_config
from trm_mlx.convert.read import read_checkpoint, read_published_config
from trm_mlx.convert.sources import Source, download
from trm_mlx.convert.verify import VerificationFailed, compare
from trm_mlx.errors import InputError, located, refusal
from trm_mlx.files import atomic_folder
from trm_mlx.models.checkpoint_files import assign_weights, read_config, save_model
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
        raise InputError(f"{output} exists: remove it or name another output folder")
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


def model_folder(named: str) -> str:
    """Return the local model folder of the Hugging Face repository ``named``.

    A repository with a model folder of this package is taken as it is; other weights are converted
    into the cache, ``$XDG_CACHE_HOME/trm-mlx``.

    Raises:
        InputError: the repository cannot be read, or its model not be converted without being told
            more.
    """
    source = download(named)
    if source.config is not None and source.weights.name == "model.safetensors":
        try:
            read_config(source.weights.parent)
            return str(source.weights.parent)
        except InputError:
            pass  # another package's config.json
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    # The folder in the hub's own cache is named after the revision.
    version = hashlib.sha256(str(source.weights).encode()).hexdigest()[:16]
    folder = cache / "trm-mlx" / f"{named.rpartition('/')[2]}-{version}"
    if not folder.exists():
        try:
            convert(source, folder, {}, report=lambda line: print(line, file=sys.stderr))
        except InputError as error:
            raise InputError(f"{error}; say it to trm convert {named}") from error
    return str(folder)
