"""Tells models of this family from its relatives, by the names of their arrays."""

import re
from collections.abc import Iterable

from trm_mlx.errors import InputError

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
