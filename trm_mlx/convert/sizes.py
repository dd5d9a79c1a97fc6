"""The two sizes that shapes hold only indirectly: how many heads, and how wide the SwiGLUs."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from trm_mlx.errors import InputError

# Only at this width have models been published, so only there a number of heads is taken from them.
PUBLISHED_WIDTH = 512
MOST_HEADS = 4096


def _fitting_heads(values: Mapping[str, Any], columns: int) -> list[int]:
    """Numbers of heads that give o_proj its columns: heads of width // number dimensions each."""
    width = values["hidden_size"]
    multiple = {"rope": 2, "rope2d": 4}.get(values["pos_encodings"], 1)
    return [
        heads
        for heads in range(1, min(width, columns, MOST_HEADS) + 1)
        if heads * (width // heads) == columns and width // heads % multiple == 0
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
