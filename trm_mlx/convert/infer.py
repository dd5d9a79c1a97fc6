"""Infers a model's configuration from its arrays: the variant from names, sizes from shapes.

Values that neither shows (heads, cycles, often the sequence length) come from the file's settings,
``--config`` or ``key=value`` words, else from the published runs; the notes list every such value.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import mlx.core as mx

from trm_mlx.config import ModelConfig
from trm_mlx.config_io import arch_config, read_model_config, to_dict, typed_fields
from trm_mlx.errors import InputError

# Each size is the number of rows of the first array whose name ends so, where need be divided.
# `assign_weights` then names any array that disagrees.
VOCABULARY = ("embed_tokens.embedding_weight", "lm_head.weight")
HIDDEN_SIZE = (".mlp.down_proj.weight", ".self_attn.o_proj.weight")
POSITIONS = ("embed_pos.embedding_weight", ".mlp_t.down_proj.weight")
HEADS = (".self_attn.qkv_proj.weight",)  # 3 * heads * head_dim rows
INNER = (".mlp.gate_up_proj.weight",)  # 2 * inner rows
TOKEN_INNER = (".mlp_t.gate_up_proj.weight",)
# Sequence lengths of the published datasets by vocabulary, for models whose shapes show none.
PUBLISHED_LENGTHS = {11: ("Sudoku", 81), 6: ("Maze", 900), 12: ("ARC", 900)}
# Fields that no array shows.
UNSEEN = ("H_cycles", "L_cycles", "halt_max_steps")


class Inferred(NamedTuple):
    """A configuration, and notes on where its values come from, one line for each source."""

    config: ModelConfig
    notes: list[str]


def infer_config(weights: Mapping[str, mx.array], given: Mapping[str, Any]) -> Inferred:
    """Return the configuration that names and shapes imply, completed by ``given`` fields.

    Raises:
        InputError: the arrays are of no known model, contradict a given value, or leave a size
            open.
    """
    levels = [name for name in weights if re.match(r"[HL]_level\.layers\.", name)]
    if not levels:
        some = ", ".join(sorted(weights)[:3])
        raise InputError(
            f"none of the {len(weights)} arrays ({some}, ...) belongs to an L_level or "
            "H_level: not a TRM-family checkpoint"
        )
    given = typed_fields(given)
    shapes = _from_shapes(weights)
    for size in ("hidden_size", "vocab_size"):
        if given.get(size, shapes[size]) != shapes[size]:
            raise InputError(f"{size}={given[size]} is given, but the weights have {shapes[size]}")
    published = to_dict(arch_config(given.get("name") or _variant(weights)))
    values = published | shapes | given
    unseen = [name for name in UNSEEN if name not in given]
    if any(".self_attn." in name for name in levels):
        columns = _rows(weights, HEADS, 3)
        if "num_heads" not in given:
            values["num_heads"] = default_heads(values, columns)
        check_heads(values, columns)
        unseen += [name for name in ("num_heads", "pos_encodings") if name not in given | shapes]
    elif "num_heads" not in given:
        values["num_heads"] = min(values["num_heads"], values["hidden_size"])
    if not shapes["puzzle_emb_ndim"]:
        values["puzzle_emb_len"] = 0
    elif "puzzle_emb_len" not in given:
        unseen.append("puzzle_emb_len")
    lengths, notes = _lengths(values | shapes, given, _rows(weights, POSITIONS))
    config = read_model_config(values | lengths)
    unseen = [name for name in unseen if name not in lengths]
    return Inferred(config, [*_said(config, shapes, given, unseen), *notes])


def _variant(weights: Mapping[str, mx.array]) -> str:
    if any(re.fullmatch(r"L[1-6]_init", name) for name in weights):
        return "trm_hier6"
    if any(name.startswith("H_level.") for name in weights):
        low = any(name.startswith("L_level.") for name in weights)
        return "hrm" if low or "L_init" in weights else "transformers_baseline"
    return "trm" if "H_init" in weights else "trm_singlez"


def _from_shapes(weights: Mapping[str, mx.array]) -> dict[str, Any]:
    table = weights.get("puzzle_emb.weights")
    if table is not None and table.ndim != 2:
        raise InputError(f"puzzle_emb.weights has shape {table.shape}, it should be a matrix")
    mlp_t = any(".mlp_t." in name for name in weights)
    found = {
        "hidden_size": _rows(weights, HIDDEN_SIZE),
        "vocab_size": _rows(weights, VOCABULARY),
        "num_puzzle_identifiers": 1 if table is None else table.shape[0],
        "puzzle_emb_ndim": 0 if table is None else table.shape[1],
        "mlp_t": mlp_t,
    }
    for size, places in (("hidden_size", HIDDEN_SIZE), ("vocab_size", VOCABULARY)):
        if found[size] is None:
            raise InputError(f"the weights lack {places[0]}, so nothing says {size}")
    for net in ("H_level", "L_level"):
        depth = len({n.split(".")[2] for n in weights if n.startswith(f"{net}.layers.")})
        found[f"{net[0]}_layers"] = depth
    inner = [(found["hidden_size"], _rows(weights, INNER, 2))]
    if mlp_t:
        inner.append((_rows(weights, POSITIONS), _rows(weights, TOKEN_INNER, 2)))
    found["expansion"] = expansion_of([pair for pair in inner if all(pair)])
    if "embed_pos.embedding_weight" in weights:
        found["pos_encodings"] = "learned"
    elif mlp_t:
        found["pos_encodings"] = "none"
    return found


def _rows(weights: Mapping[str, mx.array], ends: Sequence[str], parts: int = 1) -> int | None:
    """Return the rows of the first array that is there, divided by ``parts``; None without one."""
    for end in ends:
        for name in sorted(weights):
            if name.endswith(end) and weights[name].ndim:
                return weights[name].shape[0] // parts
    return None


def _lengths(
    values: Mapping[str, Any], given: Mapping[str, Any], positions: int | None
) -> tuple[dict[str, int], list[str]]:
    """Return ``seq_len``, and ``puzzle_emb_len`` where shapes show their sum, with notes."""
    vocabulary, length = values["vocab_size"], given.get("seq_len")
    if positions is None:
        if length is not None:
            return {}, []
        if vocabulary not in PUBLISHED_LENGTHS:
            raise InputError(
                f"the weights do not say the sequence length: add seq_len=... (V={vocabulary})"
            )
        task, length = PUBLISHED_LENGTHS[vocabulary]
        said = f"seq_len {length}: GUESSED, as the published {task} has vocab_size {vocabulary}"
        return {"seq_len": length}, [f"{said} too; if it is another task, add seq_len=..."]
    wanted = -(-values["puzzle_emb_ndim"] // max(1, values["hidden_size"]))
    prefix = (values["puzzle_emb_len"] or wanted) if wanted else 0
    if length is None:
        length = positions - prefix
    elif wanted and "puzzle_emb_len" not in given:
        prefix = positions - length
    if length < 1 or prefix < wanted or length + prefix != positions:
        raise InputError(
            f"seq_len={length} and a prefix of {prefix} positions do not fit the "
            f"weights, which are for {positions} in all: change seq_len=... or puzzle_emb_len=..."
        )
    said = f"seq_len {length} after a prefix of {prefix}: the shapes hold their sum, {positions}"
    return {"seq_len": length} | ({"puzzle_emb_len": prefix} if wanted else {}), [said]


def _said(
    config: ModelConfig, shapes: Mapping[str, Any], given: Mapping[str, Any], unseen: list[str]
) -> list[str]:
    def listed(names: Iterable[str]) -> str:
        return ", ".join(f"{name} {getattr(config, name)}" for name in names)

    lines = [
        f"{config.name}: by the names of the arrays",
        f"{listed(name for name in shapes if name not in given)}: from their shapes",
    ]
    if given:
        lines.append(f"{listed(given)}: as given")
    if unseen:
        lines.append(
            f"{listed(unseen)}: NOT IN THE WEIGHTS, taken as in the published {config.name}; to "
            "change them, --config all_config.yaml or key=value"
        )
    return lines


# The width of the published models: at others their number of heads is no guide.
PUBLISHED_WIDTH = 512
MOST_HEADS = 4096


def _fitting_heads(values: Mapping[str, Any], columns: int) -> list[int]:
    """Return the numbers of heads for which heads * (width // heads) is the columns of o_proj."""
    width = values["hidden_size"]
    multiple = {"rope": 2, "rope2d": 4}.get(values["pos_encodings"], 1)
    return [
        heads
        for heads in range(1, min(width, columns, MOST_HEADS) + 1)
        if heads * (width // heads) == columns and width // heads % multiple == 0
    ]


def default_heads(values: Mapping[str, Any], columns: int | None) -> int:
    """Return the published number of heads, if the weights have the published width and fit it.

    Raises:
        InputError: several other numbers fit.
    """
    fitting = _fitting_heads(values, columns or values["hidden_size"])
    if values["hidden_size"] == PUBLISHED_WIDTH and values["num_heads"] in fitting:
        return values["num_heads"]
    if len(fitting) == 1:
        return fitting[0]
    raise InputError(
        f"the weights do not say the number of heads: add num_heads=..., one of {_some(fitting)}"
    )


def check_heads(values: Mapping[str, Any], columns: int | None) -> None:
    """Check that the weights can have ``num_heads`` heads.

    Raises:
        InputError: they cannot.
    """
    fitting = _fitting_heads(values, columns or values["hidden_size"])
    if values["num_heads"] not in fitting:
        raise InputError(
            f"num_heads={values['num_heads']} does not fit o_proj.weight, which has {columns} "
            f"columns at hidden_size {values['hidden_size']}: choose one of {_some(fitting)}"
        )


def _some(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:12]))
    return (shown + (", ..." if len(numbers) > 12 else "")) or "none at all; the file is damaged"


def expansion_of(layers: Sequence[tuple[int, int]]) -> float:
    """Return an expansion that gives each SwiGLU its inner width, from (width, inner) pairs.

    Inner widths are rounded up to multiples of 256, so several fit: the published 4 if it does.
    """
    low = max(((inner - 256) * 1.5 / width for width, inner in layers), default=0.0)
    high = min((inner * 1.5 / width for width, inner in layers), default=4.0)
    whole = math.floor(low) + 1
    return 4.0 if low < 4 <= high else float(whole) if whole <= high else high
