"""What model a set of arrays is: its variant from their names, its sizes from their shapes.

What neither holds (heads, cycles, often the sequence length) is taken from the file's own settings,
``--config`` or ``key=value`` words, else from the published runs, and every such value is said.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import mlx.core as mx

from trm_mlx.config import ModelConfig
from trm_mlx.config_io import arch_config, read_model_config, to_dict, typed_fields
from trm_mlx.errors import InputError


class Place(NamedTuple):
    """An axis of the arrays whose names end so; ``times`` the size stands there."""

    end: str
    axis: int
    times: int = 1


# Where each size stands. All places are asked, so that one misshapen array is outvoted by the
# others and can be named.
VOCABULARY = Place("embed_tokens.embedding_weight", 0), Place("lm_head.weight", 0)
HIDDEN_SIZE = (
    Place("embed_tokens.embedding_weight", 1), Place("lm_head.weight", 1),
    Place("q_head.weight", 1), Place("_init", 0),
    Place(".self_attn.qkv_proj.weight", 1), Place(".self_attn.o_proj.weight", 0),
    Place(".mlp.gate_up_proj.weight", 1), Place(".mlp.down_proj.weight", 0),
)  # fmt: skip
POSITIONS = (
    Place("embed_pos.embedding_weight", 0),
    Place(".mlp_t.gate_up_proj.weight", 1), Place(".mlp_t.down_proj.weight", 0),
)  # fmt: skip
HEADS = Place(".self_attn.o_proj.weight", 1), Place(".self_attn.qkv_proj.weight", 0, 3)
INNER = Place(".mlp.down_proj.weight", 1), Place(".mlp.gate_up_proj.weight", 0, 2)
TOKEN_INNER = Place(".mlp_t.down_proj.weight", 1), Place(".mlp_t.gate_up_proj.weight", 0, 2)
# Sequence lengths of the published datasets by vocabulary, for models that do not store theirs.
PUBLISHED_LENGTHS = {11: ("Sudoku", 81), 6: ("Maze", 900), 12: ("ARC", 900)}
# Fields that no array shows.
UNSEEN = ("H_cycles", "L_cycles", "halt_max_steps")


class Inferred(NamedTuple):
    """A configuration, and where its values come from, a line for each kind of source."""

    config: ModelConfig
    notes: list[str]


def infer_config(weights: Mapping[str, mx.array], given: Mapping[str, Any]) -> Inferred:
    """The configuration that names and shapes imply, completed by ``given`` fields.

    Raises:
        InputError: arrays of no known model, a given value that they contradict, or a size that
            nothing says.
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
        columns = _vote(weights, HEADS)
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
    lengths, notes = _lengths(values | shapes, given, _vote(weights, POSITIONS))
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
        "hidden_size": _vote(weights, HIDDEN_SIZE),
        "vocab_size": _vote(weights, VOCABULARY),
        "num_puzzle_identifiers": 1 if table is None else table.shape[0],
        "puzzle_emb_ndim": 0 if table is None else table.shape[1],
        "mlp_t": mlp_t,
    }
    for size, places in (("hidden_size", HIDDEN_SIZE), ("vocab_size", VOCABULARY)):
        if found[size] is None:
            raise InputError(f"the weights lack {places[0].end}, so nothing says {size}")
    for net in ("H_level", "L_level"):
        depth = len({n.split(".")[2] for n in weights if n.startswith(f"{net}.layers.")})
        found[f"{net[0]}_layers"] = depth
    inner = [(found["hidden_size"], _vote(weights, INNER))]
    inner.append((_vote(weights, POSITIONS), _vote(weights, TOKEN_INNER)))
    found["expansion"] = expansion_of([pair for pair in inner if all(pair)])
    if "embed_pos.embedding_weight" in weights:
        found["pos_encodings"] = "learned"
    elif mlp_t:
        found["pos_encodings"] = "none"
    return found


def _vote(weights: Mapping[str, mx.array], places: tuple[Place, ...]) -> int | None:
    """The size most arrays have at these places; None if there is no such array."""
    votes = Counter(
        array.shape[place.axis] // place.times
        for place in places
        for name, array in weights.items()
        if name.endswith(place.end) and array.ndim > place.axis
    )
    return votes.most_common(1)[0][0] if votes else None


def _lengths(
    values: Mapping[str, Any], given: Mapping[str, Any], positions: int | None
) -> tuple[dict[str, int], list[str]]:
    """``seq_len``, and ``puzzle_emb_len`` where shapes hold their sum, with what to say of them."""
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


# Only at this width have models been published, so only there a number of heads is taken from them.
PUBLISHED_WIDTH = 512
MOST_HEADS = 4096


def _fitting_heads(values: Mapping[str, Any], columns: int) -> list[int]:
    """Numbers of heads that give o_proj its columns: heads of width // number dimensions each."""
    width = values["hidden_size"]
    rope = values["pos_encodings"] == "rope"
    return [
        heads
        for heads in range(1, min(width, columns, MOST_HEADS) + 1)
        if heads * (width // heads) == columns and not (rope and width // heads % 2)
    ]


def default_heads(values: Mapping[str, Any], columns: int | None) -> int:
    """The published number of heads, where the weights are of the published width and fit it.

    Raises:
        InputError: they are not, so that any number could be right.
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
    """Raise `InputError` if the weights cannot have ``num_heads`` heads."""
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
    """An expansion that gives SwiGLUs of the widths their inner widths, (width, inner) each.

    The published 4 if it does, as many do: inner widths are rounded up to multiples of 256.
    """
    low = max(((inner - 256) * 1.5 / width for width, inner in layers), default=0.0)
    high = min((inner * 1.5 / width for width, inner in layers), default=4.0)
    whole = math.floor(low) + 1
    return 4.0 if low < 4 <= high else float(whole) if whole <= high else high
