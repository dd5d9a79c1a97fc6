"""A file of weights becomes a model folder: read, infer, assign strictly, write whole."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx

from trm_mlx.atomic import atomic_folder
from trm_mlx.convert.infer import infer_config
from trm_mlx.convert.read import read_checkpoint
from trm_mlx.convert.verify import VerificationFailed, compare
from trm_mlx.errors import InputError, located, refusal
from trm_mlx.models.checkpoint_files import assign_weights, save_model
from trm_mlx.models.model import build_model


def convert(
    source: Path,
    output: Path,
    given: Mapping[str, Any],
    dtype: str = "float32",
    verify: bool = False,
    say: Callable[[str], None] = print,
) -> None:
    """Write ``output``, a model folder, from ``source``, a file of weights of any known kind.

    Args:
        given: fields of a `ModelConfig`, which go before what the file says and what is inferred.
        dtype: of the stored weights; loading makes them float32 again.
        verify: run both frameworks before the folder gets its name.
        say: takes each line of the account of what was found and done.

    Raises:
        InputError: the file, a given value or the output folder is no good.
        VerificationFailed: MLX and PyTorch differ by more than rounding; there is no folder.
    """
    if output.exists():
        raise InputError(f"{output} exists: remove it or name another output folder")
    checkpoint = read_checkpoint(source)
    with located(source):
        config, notes = infer_config(checkpoint.weights, checkpoint.settings | given)
    for line in [*checkpoint.notes, *notes]:
        say(line)
    stored = {name: array.astype(getattr(mx, dtype)) for name, array in checkpoint.weights.items()}
    model = build_model(config)
    assign_weights(model, stored, str(source))
    try:
        with atomic_folder(output) as finished:
            save_model(finished, model, getattr(mx, dtype))
            if verify:
                comparison = compare(finished, stored)
                if not comparison.passed:
                    raise VerificationFailed(f"{comparison}: no folder written")
                say(str(comparison))
    except OSError as error:
        raise InputError(f"cannot write {output}: {refusal(error)}") from error
    say(f"{output}: {sum(array.size for array in stored.values()):,} values, {dtype}")
