"""The smallest model that trains, as options of ``pretrain.py``."""

ARCH = (
    "arch.hidden_size=16",
    "arch.num_heads=2",
    "arch.L_layers=1",
    "arch.H_cycles=1",
    "arch.L_cycles=1",
    "arch.puzzle_emb_len=1",
)
