"""Lightning checkpoints of nano-trm (github.com/olivkoch/nano-trm): the published TRM, renamed.

Its ``hyper_parameters`` say what the weights do not. Its positions on a two-dimensional grid are
ours, base 10000 over a whole head being base 100 over half of one, except that it numbers a prefix
in one dimension: with one they are refused, and so are its convolutions inside SwiGLU.
"""

from collections.abc import Mapping
from typing import Any

import mlx.core as mx

from trm_mlx.errors import InputError, shortened

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
    "N_supervision_val": "halt_max_steps",
    "ffn_expansion": "expansion",
    "halt_exploration_prob": "halt_exploration_prob",
    "puzzle_emb_len": "puzzle_emb_len",
    "use_mlp_t": "mlp_t",
    "seq_len": "seq_len",
}
POSITIONS = {"1d": "rope", "2d": "rope2d", None: "none"}
NOTE = "nano-trm names changed to the published ones; q_continue, which it lacks, set to never"


def recognised(weights: Mapping[str, mx.array]) -> bool:
    return any(name.startswith(("input_embedding.", "lenet.")) for name in weights)


def published(
    weights: Mapping[str, mx.array], beside: Mapping[str, Any], source: str
) -> tuple[dict[str, mx.array], dict[str, Any]]:
    """Weights by published name, averaged where the file has the average, and settings.

    Raises:
        InputError: the model has parts that the published ones have not.
    """
    settings = _settings(beside.get("hyper_parameters"), source)
    prefix = [name for name in weights if name.startswith("puzzle_emb.")]
    if settings.get("pos_encodings") == "rope2d" and (prefix or settings.get("puzzle_emb_len")):
        raise InputError(
            f"{source} is a nano-trm with 2d positions and a prefix, which it numbers in one "
            "dimension; ours lies at row 0 and column 0: it cannot be converted"
        )
    alien = [name for name in weights if name.endswith(("conv.weight", "conv.bias"))]
    if alien:
        raise InputError(
            f"{source} is a nano-trm with convolutions in its SwiGLU ({shortened(alien[0])}), "
            "which no published model has: it cannot be converted"
        )
    weights = {**weights, **_average(beside, source)}
    renamed = {}
    for name, array in weights.items():
        for theirs, ours in RENAMED.items():
            if name.startswith(theirs):
                name = ours + name[len(theirs) :]
        renamed[name] = _with_continue(name, array)
    return renamed, settings


def _settings(stated: Any, source: str) -> dict[str, Any]:
    if not isinstance(stated, Mapping):
        return {}
    for name in (*SETTINGS, "pos_emb_type", "rope_theta"):
        if not isinstance(stated.get(name), int | float | str | None):
            kind = type(stated[name]).__name__
            raise InputError(f"{source}: {name} is {kind}, where a number or a word is expected")
    positions = stated.get("pos_emb_type", "1d")
    if positions not in POSITIONS:
        raise InputError(
            f"{source} is a nano-trm with pos_emb_type={shortened(positions)}, where 1d, 2d or "
            "none is known: it cannot be converted"
        )
    if stated.get("rope_theta", 10000) != 10000:
        raise InputError(
            f"{source}: rope_theta={shortened(stated['rope_theta'])}; ours is always 10000"
        )
    found = {ours: stated[theirs] for theirs, ours in SETTINGS.items() if stated.get(theirs)}
    return {**found, "pos_encodings": POSITIONS[positions]}


def _average(beside: Mapping[str, Any], source: str) -> dict[str, mx.array]:
    """The weights that its EMA callback evaluates with, if the run had one."""
    callbacks = beside.get("callbacks")
    for name, state in callbacks.items() if isinstance(callbacks, Mapping) else ():
        shadow = state.get("shadow") if isinstance(state, Mapping) else None
        averages = isinstance(name, str) and name.startswith("EMACallback")
        if averages and isinstance(shadow, Mapping):
            if not all(isinstance(v, mx.array) and isinstance(n, str) for n, v in shadow.items()):
                raise InputError(f"{source}: the average of {shortened(name)} is no state dict")
            return dict(shadow)
    return {}


def _with_continue(name: str, array: mx.array) -> mx.array:
    """q_head with the second row of the published one, as that starts: weight 0, bias -5."""
    if name == "q_head.weight" and array.ndim == 2 and array.shape[0] == 1:
        return mx.concatenate([array, mx.zeros_like(array)])
    if name == "q_head.bias" and array.shape == (1,):
        return mx.concatenate([array, mx.full((1,), -5.0)])
    return array
