"""The smallest model that trains and a run of it, as options of ``pretrain.py``; small models."""

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

from trm_mlx.config import ModelConfig
from trm_mlx.config_io import arch_config
from trm_mlx.models.model import build_model

ARCH = (
    "arch.hidden_size=16",
    "arch.num_heads=2",
    "arch.L_layers=1",
    "arch.H_cycles=1",
    "arch.L_cycles=1",
    "arch.puzzle_emb_len=1",
)
TINY = (
    *ARCH,
    "arch.halt_max_steps=2",
    "global_batch_size=8",
    "epochs=2",
    "eval_interval=1",
    "lr=1e-3",
    "lr_warmup_steps=1",
)

SMALL = {"hidden_size": 16, "num_heads": 2, "L_layers": 1, "H_cycles": 2, "L_cycles": 2}


def make(name="trm", seq_len=9, **changes):
    """A small model of a variant, for batches of `make_batch`."""
    arch = arch_config(name, **{**SMALL, "puzzle_emb_len": 2, "halt_max_steps": 3, **changes})
    sizes = {"seq_len": seq_len, "vocab_size": 6, "num_puzzle_identifiers": 4}
    return build_model(ModelConfig.of(arch, **sizes))


def make_batch(rows=4, seed=0):
    """Random tokens of 9 cells, and identifiers."""
    rng = np.random.default_rng(seed)
    return {
        "inputs": mx.array(rng.integers(0, 6, (rows, 9)).astype(np.int32)),
        "labels": mx.array(rng.integers(1, 6, (rows, 9)).astype(np.int32)),
        "puzzle_identifiers": mx.array(rng.integers(0, 4, rows).astype(np.int32)),
    }


def randomize(model):
    """Add noise to all weights, so that none is still what it was made as."""
    mx.random.seed(7)
    random = [(n, a + 0.1 * mx.random.normal(a.shape)) for n, a in tree_flatten(model.parameters())]
    model.load_weights(random)
