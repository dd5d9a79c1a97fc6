"""The smallest model that trains and a run of it, as options of ``pretrain.py``; random weights."""

import mlx.core as mx
from mlx.utils import tree_flatten

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


def randomize(model):
    """Add noise to all weights, so that none is still what it was made as."""
    mx.random.seed(7)
    random = [(n, a + 0.1 * mx.random.normal(a.shape)) for n, a in tree_flatten(model.parameters())]
    model.load_weights(random)
