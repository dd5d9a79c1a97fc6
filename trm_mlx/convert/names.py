"""The names of arrays: as other files have them, as published, and those of related models."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import mlx.core as mx

from trm_mlx.convert import nano_trm
from trm_mlx.errors import InputError

# Prefixes of torch.compile, data parallelism, the loss head and the ACT wrapper.
PREFIX = re.compile(r"^(?:(?:_orig_mod|_fsdp_wrapped_module|module|model|inner|net|trm)\.)+")
# Buffers of one batch and rotary tables: rebuilt with every model.
RUNTIME = re.compile(r"^(puzzle_emb\.local_(weights|ids)|rotary_emb\.(cos|sin)_cached)$")


def published_names(
    arrays: Mapping[str, mx.array], beside: Mapping[str, Any], source: str
) -> tuple[dict[str, mx.array], dict[str, Any], list[str]]:
    """Rename arrays to their published names.

    Args:
        arrays: arrays by their name in the file.
        beside: what a PyTorch file holds besides them.
        source: the file, for messages.

    Returns:
        The arrays by published name, the settings that the file states, and notes, a line each.

    Raises:
        InputError: two arrays have one name, or the model has no counterpart here.
    """
    notes = []
    weights = _without_prefix(arrays, source)
    average = _without_prefix(beside.get("average") or {}, source)
    if average:
        name, key = beside["average_key"], beside["key"]
        if lost := sorted(average.keys() - weights.keys()):
            raise InputError(
                f"{source}: {name} averages {lost[0]}, which {key} has not: choose one with "
                f"--key {name} or --key {key}"
            )
        weights |= average
        notes.append(
            f"averaged weights of {name} taken for {len(average)} of {len(weights)} arrays; for "
            f"the last ones, --key {key}"
        )
    if left_out := beside.get("not_taken"):
        notes.append(f"averages in {', '.join(left_out)} not taken; --key names the weights wanted")
    prefixes = sorted({match[0] for match in map(PREFIX.match, arrays) if match})
    if prefixes:
        notes.append(f"prefix {' and '.join(prefixes)} taken off {len(arrays)} names")
    dropped = [name for name in weights if RUNTIME.match(name)]
    if dropped:
        notes.append(f"left out, rebuilt whenever needed: {', '.join(dropped)}")
    weights = {name: array for name, array in weights.items() if name not in dropped}
    settings: dict[str, Any] = {}
    if nano_trm.recognised(weights):
        weights, settings = nano_trm.published(weights, beside, source)
        notes.append(nano_trm.NOTE)
    return weights, settings, notes


def _without_prefix(arrays: Mapping[str, mx.array], source: str) -> dict[str, mx.array]:
    weights: dict[str, mx.array] = {}
    for name, array in arrays.items():
        short = PREFIX.sub("", name)
        if short in weights:
            raise InputError(f"{source} holds {short} twice, under two prefixes: keep one")
        weights[short] = array
    return weights


# Every array that a variant of this package can have.
KNOWN = re.compile(
    r"(embed_tokens|embed_pos)\.embedding_weight|puzzle_emb\.weights|(H|L[1-6]?)_init"
    r"|[HL]_level\.layers\.\d+\.(self_attn\.(qkv|o)_proj|mlp(_t)?\.(gate_up|down)_proj)\.weight"
    r"|lm_head\.weight|q_head\.(weight|bias)"
)
# Relatives with other layers, and names of arrays that only they have.
RELATIVES = (
    ("an FPRM", r"L_level\.(conv\.|alpha_\d)"),
    ("a URM", r"layers\.\d+\.mlp\.dwconv\.|init_hidden"),
    ("an SE-RRM", r"Z_init|embed_symbol_tokens|[HL]_level\.layers\.\d+\.attn(_t)?\."),
    ("the PyTorch TRM from scratch (embed_input, init_y, init_z)", r"embed_input\.|init_[yz]"),
)
_CANNOT = "which no model of this package has: it cannot be converted"


def check_family(names: Iterable[str], source: str, whole: bool = True) -> None:
    """Refuse the weights of a known relative, or a model with arrays that no variant has.

    Weights without any array of this family are left to `infer_config`.

    Args:
        names: of the arrays.
        source: where they are from, for messages.
        whole: whether they are all of a model, not an average of its trained ones alone.

    Raises:
        InputError: naming the relative and its first foreign array.
    """
    names = list(names)
    foreign = [name for name in names if not KNOWN.fullmatch(name)]
    for family, pattern in RELATIVES:
        for name in foreign:
            if re.match(pattern, name):
                raise InputError(f"{source} is {family}: it has {name}, {_CANNOT}")
    levels = any(re.match(r"[HL]_level\.layers\.", name) for name in names)
    if levels and foreign:
        raise InputError(f"{source} has {foreign[0]}, {_CANNOT}")
    if (
        whole
        and levels
        and "lm_head.weight" in names
        and not any(n.endswith("_init") for n in names)
    ):
        raise InputError(
            f"{source} is an EqR: it has no H_init and L_init, as its states start from noise, "
            "which no model of this package does: it cannot be converted"
        )
