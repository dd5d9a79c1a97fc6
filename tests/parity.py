"""Puts a PyTorch state dict into one of our models and trains it by the golden protocol."""

import re

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

from trm_mlx.config import ModelConfig
from trm_mlx.config_io import arch_config, train_config
from trm_mlx.models.checkpoint_files import assign_weights
from trm_mlx.models.model import build_model
from trm_mlx.train.step import TrainState

SIZES = ("seq_len", "vocab_size", "num_puzzle_identifiers")
HYPER_PARAMETERS = (
    "lr", "lr_min_ratio", "lr_warmup_steps", "beta1", "beta2", "weight_decay", "puzzle_emb_lr",
    "puzzle_emb_weight_decay", "ema_rate",
)  # fmt: skip


def build(name, arch, sizes, weights):
    """Our model with ``weights``, arrays or torch tensors by published name, any prefix."""
    config = ModelConfig.of(arch_config(name, **arch), **{size: sizes[size] for size in SIZES})
    model = build_model(config)
    arrays = {
        re.sub(r"^.*inner\.", "", key): mx.array(as_numpy(value)) for key, value in weights.items()
    }
    assign_weights(model, arrays, "test")
    return model


def as_numpy(array):
    """A NumPy array or a torch tensor as NumPy array."""
    return array if isinstance(array, np.ndarray) else array.detach().float().numpy()


def train_state(model, hyper, batch_size, loss="stablemax_cross_entropy"):
    """Our `TrainState` of ``model`` with the hyper-parameters of a golden ``config.json``."""
    config = train_config(
        {
            "arch": {
                key: getattr(model.config, key)
                for key in arch_config(model.config.name).__dataclass_fields__
            },
            "data_paths": ["none"],
            "global_batch_size": batch_size,
            "epochs": 1,
            "eval_interval": 1,
            "ema": True,
            "loss": loss,
            "compile": "false",
            **{key: hyper[key] for key in HYPER_PARAMETERS},
        }
    )
    return TrainState(model, config, hyper["total_steps"])


def total_loss(metrics):
    """The summed loss of a step from its metrics."""
    parts = {name: float(value) for name, value in metrics.items() if name.endswith("loss")}
    return parts["lm_loss"] + 0.5 * (parts["q_halt_loss"] + parts.get("q_continue_loss", 0.0))


def flat(tree):
    return {name: np.array(array) for name, array in tree_flatten(tree)}


def allowed(sensitivity):
    """20 times how far PyTorch itself strays under rounding noise, and never below 1e-5."""
    return max(1e-5, 20 * float(sensitivity))
