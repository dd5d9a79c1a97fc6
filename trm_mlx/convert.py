"""PyTorch checkpoints of the published code to checkpoint folders of ours.

Parameter names are the same, so converting means stripping prefixes. The architecture and most
sizes follow from names and shapes; what does not (heads, cycles, sometimes the sequence length)
comes from ``--config all_config.yaml``, ``key=value`` words or the variant's defaults. The only
module that imports torch.
"""

import argparse
import dataclasses
import re
import struct
import warnings
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import mlx.core as mx

from trm_mlx.config import ArchConfig, ModelConfig
from trm_mlx.errors import InputError
from trm_mlx.models.model import build_model
from trm_mlx.models.weights import assign_weights, save_model
from trm_mlx.options import arch_config, read_yaml, typed_overrides
from trm_mlx.whole_folder import whole_folder

PREFIX = re.compile(r"^(_orig_mod\.)?(model\.)?(inner\.)?")
# Sequence lengths of the published datasets by vocabulary, for models that do not store theirs.
PUBLISHED_LENGTHS = {11: 81, 6: 900, 12: 900}
# What `torch.load` was seen to raise for files cut short, overwritten, or of another kind.
DAMAGED = (
    UnpicklingError, struct.error, AssertionError, AttributeError, EOFError, LookupError,
    OverflowError, RuntimeError, TypeError, ValueError,
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", help="file written by torch.save: a .pth or step file")
    parser.add_argument("output", nargs="?", help="folder to write (default: CHECKPOINT-mlx)")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="such as L_cycles=4 seq_len=81"
    )
    parser.add_argument("--config", help="the run's all_config.yaml")
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")


def run(arguments: argparse.Namespace) -> None:
    source = Path(arguments.checkpoint)
    words = [word for word in [arguments.output, *arguments.overrides] if word]
    folders = [word for word in words if "=" not in word]
    if len(folders) > 1:
        raise InputError(f"{folders[1]!r}: name one output folder; other words are key=value")
    output = Path(folders[0]) if folders else source.with_name(source.name + "-mlx")
    if output.exists():
        raise InputError(f"{output} exists: remove it or name another output folder")
    chosen = read_published_config(Path(arguments.config)) if arguments.config else {}
    chosen |= typed_overrides([word for word in words if "=" in word])

    weights = read_torch(source)
    config = infer_config(weights, chosen)
    model = build_model(config)
    assign_weights(model, weights, str(source))
    try:
        with whole_folder(output) as finished:
            save_model(finished, model)
    except (OSError, RuntimeError) as error:
        raise InputError(f"cannot write {output}: {error}") from error
    if not arguments.quiet:
        print(
            f"{output}: {config.name}, {sum(a.size for a in weights.values()):,} values, "
            f"hidden_size {config.hidden_size}, vocab_size {config.vocab_size}; not always said "
            f"by the weights, so check: seq_len {config.seq_len}, num_heads {config.num_heads}, "
            f"H_cycles {config.H_cycles}, L_cycles {config.L_cycles}, "
            f"pos_encodings {config.pos_encodings}"
        )


def read_torch(path: Path) -> dict[str, mx.array]:
    """The float32 arrays of a state dict, published prefixes stripped.

    Raises:
        InputError: torch is missing, or the file is anything but a state dict of tensors. Nothing
            pickled in it is executed.
    """
    try:
        import torch
    except ImportError as error:
        raise InputError(
            "reading PyTorch files needs torch: pip install 'trm-mlx[convert]'"
        ) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch guesses at the cause of errors in warnings
            state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except DAMAGED as error:
        # PyTorch's own message would advise to load the file without its protection.
        raise InputError(
            f"{path} is not a whole PyTorch file of weights alone; anything else is refused, as "
            "loading it could execute code: save the model's state_dict()"
        ) from error
    if not isinstance(state, dict) or not all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in state.items()
    ):
        raise InputError(f"{path} does not hold a state dict (names to tensors)")
    return {PREFIX.sub("", key): mx.array(v.detach().float().numpy()) for key, v in state.items()}


def read_published_config(path: Path) -> dict[str, Any]:
    """The architecture fields of a published run's ``all_config.yaml``."""
    arch = read_yaml(path).get("arch")
    if not isinstance(arch, dict):
        raise InputError(f"{path} has no arch section")
    known = {field.name for field in dataclasses.fields(ArchConfig)} - {"forward_dtype"}
    chosen = {key: value for key, value in arch.items() if key in known}
    match = re.match(r"recursive_reasoning\.(\w+)@", str(arch.get("name")))
    if match:
        chosen["name"] = match.group(1)
    return chosen


def infer_config(weights: dict[str, mx.array], chosen: dict[str, Any]) -> ModelConfig:
    """The configuration that names and shapes imply; ``chosen`` fields are taken as they are.

    Raises:
        InputError: a checkpoint of no known variant, or a size that nothing says.
    """
    for name in ("embed_tokens.embedding_weight", "lm_head.weight"):
        if name not in weights:
            raise InputError(
                f"no {name} among the {len(weights)} arrays: not a TRM-family checkpoint"
            )
    for name in ("embed_tokens.embedding_weight", "puzzle_emb.weights"):
        if name in weights and weights[name].ndim != 2:
            raise InputError(f"{name} has shape {weights[name].shape}, it should be a matrix")
    vocab_size, hidden_size = weights["embed_tokens.embedding_weight"].shape
    table = weights.get("puzzle_emb.weights")
    found: dict[str, Any] = {
        "name": _variant(weights),
        "hidden_size": hidden_size,
        "H_layers": _depth(weights, "H_level"),
        "L_layers": _depth(weights, "L_level"),
        "mlp_t": any(".mlp_t." in name for name in weights),
        "puzzle_emb_ndim": 0 if table is None else table.shape[1],
    }
    if "embed_pos.embedding_weight" in weights:
        found["pos_encodings"] = "learned"
    elif found["mlp_t"]:
        found["pos_encodings"] = "none"
    sizes = {
        "vocab_size": vocab_size,
        "num_puzzle_identifiers": 1 if table is None else table.shape[0],
    }
    length = chosen.pop("seq_len", None)
    arch = arch_config(**(found | chosen))
    sizes["seq_len"] = length or _sequence_length(weights, arch, vocab_size)
    return ModelConfig.of(arch, **sizes)


def _variant(weights: dict[str, mx.array]) -> str:
    if "L6_init" in weights:
        return "trm_hier6"
    if "H_level.layers.0.mlp.down_proj.weight" in weights:
        return "hrm" if "L_init" in weights else "transformers_baseline"
    return "trm" if "H_init" in weights else "trm_singlez"


def _depth(weights: dict[str, mx.array], net: str) -> int:
    return len({name.split(".")[2] for name in weights if name.startswith(f"{net}.layers.")})


def _sequence_length(weights: dict[str, mx.array], arch: ArchConfig, vocab_size: int) -> int:
    for name, array in weights.items():
        if name == "embed_pos.embedding_weight" or name.endswith(".mlp_t.down_proj.weight"):
            return array.shape[0] - arch.prefix
    if vocab_size not in PUBLISHED_LENGTHS:
        raise InputError(
            f"the weights do not say the sequence length: add seq_len=... (V={vocab_size})"
        )
    return PUBLISHED_LENGTHS[vocab_size]
