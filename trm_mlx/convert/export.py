"""Exports a model folder to a PyTorch state dict that the published code loads strictly."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx

from trm_mlx.config import ModelConfig
from trm_mlx.convert.torch_files import write_torch
from trm_mlx.errors import InputError
from trm_mlx.files import output_file
from trm_mlx.models.checkpoint_files import (
    EMA_FILE,
    MODEL_FILE,
    assign_weights,
    find_checkpoint,
    read_config,
    read_weights,
)
from trm_mlx.models.model import build_model

PREFIX = "_orig_mod.model.inner."
# The options with which the published code builds the same model, in its spelling.
OPTIONS = (
    "hidden_size", "num_heads", "expansion", "H_cycles", "L_cycles", "H_layers", "L_layers",
    "mlp_t", "pos_encodings", "puzzle_emb_ndim", "puzzle_emb_len", "halt_max_steps",
    "no_ACT_continue",
)  # fmt: skip
ABSENT = {
    "hrm": ("puzzle_emb_len", "no_ACT_continue"),
    "transformers_baseline": (
        "puzzle_emb_len", "no_ACT_continue", "L_cycles", "L_layers", "mlp_t",
    ),
}  # fmt: skip


def export(
    folder: Path,
    output: Path,
    prefix: str = PREFIX,
    average: bool = False,
    report: Callable[[str], None] = print,
) -> None:
    """Write a checkpoint or run folder to ``output`` as ``torch.save`` does.

    As the published code does, initial states are saved in the dtype of activations, which is
    bfloat16 unless ``forward_dtype`` is another, and all other weights in float32.

    Args:
        folder: checkpoint folder, or run folder for its newest checkpoint.
        output: file to create.
        prefix: prefix of every name.
        average: save the averaged weights instead of the last ones.
        report: called with each line about what was written.

    Raises:
        InputError: the folder holds no model, the published code has no such model, or ``output``
            exists or cannot be written.
    """
    if output.exists():
        raise InputError(f"{output} exists: name another file, or remove it")
    folder = find_checkpoint(folder)
    config = read_config(folder)
    _check_published(folder, config)
    weights = read_weights(folder / MODEL_FILE)
    if average:
        if not (folder / EMA_FILE).exists():
            raise InputError(f"{folder} holds no averaged weights ({EMA_FILE}): leave out --ema")
        weights |= read_weights(folder / EMA_FILE)
    assign_weights(build_model(config), weights, str(folder))

    halves = config.forward_dtype in ("auto", "bfloat16")
    halved = [name for name in weights if halves and name.endswith("_init")]
    rounded = [n for n in halved if not _survives_bfloat16(weights[n])]
    named = {prefix + name: array for name, array in sorted(weights.items())}
    with output_file(output) as unfinished:
        write_torch(unfinished, named, frozenset(prefix + name for name in halved))
    count = sum(array.size for array in weights.values())
    report(f"{output}: {count:,} values under {prefix or 'no prefix'}")
    if rounded:
        report(f"rounded to bfloat16, as published: {', '.join(rounded)}")
    report(f"options of the published code: {_published_options(config)}")


def _published_options(config: ModelConfig) -> str:
    values = dataclasses.asdict(config)
    values |= {"puzzle_emb_ndim": config.puzzle_dims, "puzzle_emb_len": config.prefix}
    names = [name for name in OPTIONS if name not in ABSENT.get(config.name, ())]
    return " ".join([f"arch={config.name}", *(f"arch.{name}={values[name]}" for name in names)])


def _check_published(folder: Path, config: ModelConfig) -> None:
    """Refuse what the published variants lack.

    None of them has positions on a board; HRM and the baseline have a prefix of another length, the
    baseline no token mixing.
    """
    if config.board_positions:
        raise InputError(
            f"{folder}: pos_encodings=rope2d, which the published {config.name} does not know; "
            "models with rope, learned or no positions can be exported"
        )
    if config.num_puzzle_rows:
        raise InputError(
            f"{folder}: puzzle_rows=structured, which the published {config.name} does not know"
        )
    if config.name not in ("hrm", "transformers_baseline"):
        return
    published = -(-config.puzzle_dims // config.hidden_size)
    if config.prefix != published:
        raise InputError(
            f"{folder}: puzzle_emb_len={config.prefix}, where the published {config.name} always "
            f"has {published}: it could not load this model"
        )
    if config.mlp_t and config.name == "transformers_baseline":
        raise InputError(f"{folder}: mlp_t=true, which the published {config.name} does not know")


def _survives_bfloat16(array: mx.array) -> bool:
    return bool((array.astype(mx.bfloat16).astype(mx.float32) == array.astype(mx.float32)).all())
