"""Small runs on random data: their configuration, steps and arrays."""

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

from trm_mlx.config_io import train_config
from trm_mlx.data.arrays import SplitArrays
from trm_mlx.data.writer import write_dataset

ARCH = {
    "name": "trm",
    "hidden_size": 16,
    "num_heads": 2,
    "H_cycles": 2,
    "L_cycles": 2,
    "L_layers": 1,
    "puzzle_emb_len": 2,
    "halt_max_steps": 3,
}


def make_data(folder, identifiers=4, examples=24, seq_len=9):
    """A dataset of random tokens with several identifiers."""
    rng = np.random.default_rng(0)
    arrays = SplitArrays(
        inputs=rng.integers(1, 6, (examples, seq_len)).astype(np.uint8),
        labels=rng.integers(1, 6, (examples, seq_len)).astype(np.uint8),
        puzzle_identifiers=rng.integers(1, identifiers, examples),
        puzzle_indices=np.arange(examples + 1),
        group_indices=np.arange(examples + 1),
    )
    names = [f"p{i}" for i in range(identifiers)]
    sizes = {"vocab_size": 6, "seq_len": seq_len}
    write_dataset(folder, {"train": arrays, "test": arrays}, names, **sizes, overwrite=True)
    return str(folder)


def config(data, run="run", arch=None, **changes):
    values = {
        "data_paths": [data],
        "global_batch_size": 8,
        "epochs": 4,
        "eval_interval": 2,
        "lr": 1e-2,
        "lr_warmup_steps": 2,
        "lr_min_ratio": 0.1,
        "weight_decay": 1.0,
        "puzzle_emb_lr": 1e-2,
        "puzzle_emb_weight_decay": 1.0,
        "ema": True,
        "checkpoint_path": str(run),
    }
    return train_config({**values, **changes, "arch": {**ARCH, **(arch or {})}})


def arrays_of(trainer):
    """Everything a run carries from step to step, by name."""
    return {
        name: np.array(array.astype(mx.float32))  # NumPy has no bfloat16
        for name, array in tree_flatten(
            {
                "weights": trainer.model.parameters(),
                "optimizer": trainer.state.optimizer.state,
                "average": trainer.state.average,
                "carry": {str(n): carry._asdict() for n, carry in trainer.carries.items()},
            }
        )
    }


def take_steps(trainer, count):
    """Train on the first ``count`` batches; metrics of each step."""
    taken = []
    while len(taken) < count:
        for batch, position in trainer.stream:
            metrics = trainer.train_step(batch)
            trainer.progress.position = position
            taken.append({name: value.item() for name, value in metrics.items()})
            if len(taken) == count:
                break
    return taken


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name], err_msg=name)
