"""Renames Lightning checkpoints of nano-trm (github.com/olivkoch/nano-trm) to the published TRM.

Their ``hyper_parameters`` hold what the weights do not. Positions on a two-dimensional grid are
ours, base 10000 over a whole head being base 100 over half of one, except that a prefix is numbered
in one dimension: with one they are refused, and so are convolutions inside SwiGLU.
"""

from collections.abc import Mapping
from typing import Any

import mlx.core as mx

from trm_mlx.errors import InputError

RENAMED = {
    "input_embedding.": "embed_tokens.",
    "lenet.": "L_level.",
    "z_H_init": "H_init",
    "z_L_init": "L_init",
}
SETTINGS = {
    "hidden_size": "hidden_size",
    "num_heads": "num_heads",
    "H_cycles": "H_cycles",
    "L_cycles": "L_cycles",
    "num_layers": "L_layers",
    "N_supervision": "halt_max_steps",  # of training, and of its first versions' evaluation
    "N_supervision_val": "halt_max_steps",
    "ffn_expansion": "expansion",
    "halt_exploration_prob": "halt_exploration_prob",
    "puzzle_emb_len": "puzzle_emb_len",
    "use_mlp_t": "mlp_t",
    "seq_len": "seq_len",
}
POSITIONS = {"1d": "rope", "2d": "rope2d"}  # anything else, such as "null": none
NOTE = "nano-trm names changed to the published ones; q_continue, which it lacks, set to never"


def recognised(weights: Mapping[str, mx.array]) -> bool:
    return any(name.startswith(("input_embedding.", "lenet.")) for name in weights)


def published(
    weights: Mapping[str, mx.array], beside: Mapping[str, Any], source: str
) -> tuple[dict[str, mx.array], dict[str, Any]]:
    """Weights by published name, averaged where the file has averages, and settings.

    Raises:
        InputError: the model has parts that the published models lack.
    """
    settings = _settings(beside.get("hyper_parameters"), source)
    prefix = [name for name in weights if name.startswith("puzzle_emb.")]
    if settings.get("pos_encodings") == "rope2d" and (prefix or settings.get("puzzle_emb_len")):
        raise InputError(
            f"{source} is a nano-trm with 2d positions and a prefix, which it numbers in one "
            "dimension; ours lies at row 0 and column 0: it cannot be converted"
        )
    unknown = [name for name in weights if name.endswith(("conv.weight", "conv.bias"))]
    if unknown:
        raise InputError(
            f"{source} is a nano-trm with convolutions in its SwiGLU ({unknown[0]}), "
            "which no published model has: it cannot be converted"
        )
    weights = {**weights, **_average(beside, source)}
    renamed = {}
    for name, array in weights.items():
        for prefix, published_prefix in RENAMED.items():
            if name.startswith(prefix):
                name = published_prefix + name[len(prefix) :]
        renamed[name] = _with_continue(name, array)
    return renamed, settings


def _settings(stated: Any, source: str) -> dict[str, Any]:
    if not isinstance(stated, Mapping):
        return {}
    for name in (*SETTINGS, "pos_emb_type", "rope_theta"):
        if not isinstance(stated.get(name), int | float | str | None):
            kind = type(stated[name]).__name__
            raise InputError(f"{source}: {name} is {kind}, where a number or a word is expected")
    if stated.get("rope_theta", 10000) != 10000:
        raise InputError(f"{source}: rope_theta={stated['rope_theta']}; ours is always 10000")
    found = {field: stated[name] for name, field in SETTINGS.items() if stated.get(name)}
    positions = POSITIONS.get(stated.get("pos_emb_type", "1d"), "none")
    return {**found, "pos_encodings": positions}


def _average(beside: Mapping[str, Any], source: str) -> dict[str, mx.array]:
    """The averaged weights of the EMA callback, if there is one."""
    callbacks = beside.get("callbacks")
    for name, state in callbacks.items() if isinstance(callbacks, Mapping) else ():
        shadow = state.get("shadow") if isinstance(state, Mapping) else None
        averages = isinstance(name, str) and name.startswith("EMACallback")
        if averages and isinstance(shadow, Mapping):
            if not all(isinstance(v, mx.array) and isinstance(n, str) for n, v in shadow.items()):
                raise InputError(f"{source}: the average of {name} is no state dict")
            return dict(shadow)
    return {}


def _with_continue(name: str, array: mx.array) -> mx.array:
    """Add the second row of the published q_head, at its initial weight 0 and bias -5."""
    if name == "q_head.weight" and array.ndim == 2 and array.shape[0] == 1:
        return mx.concatenate([array, mx.zeros_like(array)])
    if name == "q_head.bias" and array.shape == (1,):
        return mx.concatenate([array, mx.full((1,), -5.0)])
    return array
