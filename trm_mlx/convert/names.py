"""From the names in a file to the published ones, which are ours too.

The published code saves ``_orig_mod.model.inner.H_init`` (compiled) or ``model.inner.H_init``.
Other ports add buffers that no model needs, or have names of their own (see `nano_trm`).
"""

import re
from collections.abc import Mapping
from typing import Any

import mlx.core as mx

from trm_mlx.convert import nano_trm
from trm_mlx.errors import InputError, shortened

# What torch.compile, data parallelism, the loss head and the ACT wrapper put in front.
PREFIX = re.compile(r"^(?:(?:_orig_mod|module|model|inner)\.)+")
# Room for one batch and tables of sines: made anew whenever a model is built.
RUNTIME = re.compile(r"^(puzzle_emb\.local_(weights|ids)|rotary_emb\.(cos|sin)_cached)$")


def published_names(
    arrays: Mapping[str, mx.array], beside: Mapping[str, Any], source: str
) -> tuple[dict[str, mx.array], dict[str, Any], list[str]]:
    """Arrays by published name, settings that the file states, and what was done, a line each.

    Args:
        arrays: as they are named in the file.
        beside: what a PyTorch file held besides them.
        source: the file, for messages.

    Raises:
        InputError: two arrays of one name, or a model that has no counterpart here.
    """
    notes = []
    weights: dict[str, mx.array] = {}
    for name, array in arrays.items():
        short = PREFIX.sub("", name)
        if short in weights:
            raise InputError(
                f"{source} holds {shortened(short)} twice, under two prefixes: keep one"
            )
        weights[short] = array
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
