"""Verifies that a converted folder computes what PyTorch computes, on the same random puzzles.

Recursion amplifies rounding, so the tolerance is measured: PyTorch runs again with rounding noise
on its weights, and MLX may differ 20 times as much, or by ``LEAST``.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import mlx.core as mx
import numpy as np

from trm_mlx.convert.torch_files import import_torch
from trm_mlx.models.checkpoint_files import assign_weights, read_config, read_model_weights
from trm_mlx.models.model import build_model

ROWS, NOISE, NOISY_RUNS, FACTOR, LEAST = 2, 1e-7, 3, 20, 1e-5


class Comparison(NamedTuple):
    """The largest absolute differences after one supervision step, and their tolerance."""

    logits: float
    q: float
    tolerance: float

    @property
    def passed(self) -> bool:
        return max(self.logits, self.q) <= self.tolerance  # False for NaN too

    def __str__(self) -> str:
        return (
            f"largest difference from PyTorch: logits {self.logits:.2e}, q {self.q:.2e} "
            f"(tolerance {self.tolerance:.2e})"
        )


class VerificationFailed(Exception):
    """The converted model does not compute what PyTorch computes with the same weights."""


def compare(folder: Path, weights: Mapping[str, mx.array]) -> Comparison:
    """Compare the model in ``folder`` with PyTorch on ``weights``, both in float32 on the CPU.

    Args:
        folder: a model folder.
        weights: the arrays it was converted from, by published name.

    Raises:
        InputError: torch is missing, or the folder is damaged.
    """
    torch = import_torch("--verify")
    from trm_mlx.convert.torch_model import TorchModel

    config = dataclasses.replace(read_config(folder), forward_dtype="float32")
    resolved = {**dataclasses.asdict(config), "puzzle_emb_ndim": config.puzzle_dims}
    random = np.random.default_rng(0)  # of the puzzles and of the noise
    batch = {
        "inputs": random.integers(0, config.vocab_size, (ROWS, config.seq_len)),
        "puzzle_identifiers": random.integers(0, config.num_puzzle_identifiers, ROWS),
    }

    def run_torch(noise: float) -> tuple[np.ndarray, np.ndarray]:
        generator = torch.Generator().manual_seed(random.integers(2**31).item())
        tensors = {}
        for name, array in weights.items():
            tensor = torch.tensor(np.array(array.astype(mx.float32)))
            if noise and name != "puzzle_emb.weights":  # which can have gigabytes
                tensor *= 1 + noise * torch.randn(tensor.shape, generator=generator)
            tensors[name] = tensor
        model = TorchModel(resolved, tensors)
        logits, q = model.first_step({name: torch.tensor(a) for name, a in batch.items()})
        return logits.numpy(), q.numpy()

    expected = run_torch(0.0)
    noisy = [max(_differences(run_torch(NOISE), expected)) for _ in range(NOISY_RUNS)]
    logits, q = _differences(_run_mlx(folder, config, batch), expected)
    return Comparison(logits, q, max(LEAST, FACTOR * max(noisy)))


def _run_mlx(
    folder: Path, config, batch: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    with mx.stream(mx.cpu):
        model = build_model(config)
        assign_weights(model, read_model_weights(folder), str(folder))
        model.eval()
        arrays = {name: mx.array(array, mx.int32) for name, array in batch.items()}
        _, outputs = model(model.initial_carry(arrays), arrays)
        q = mx.stack([outputs["q_halt_logits"], outputs["q_continue_logits"]], axis=-1)
        return np.array(outputs["logits"]), np.array(q)


def _differences(
    first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray]
) -> list[float]:
    return [float(np.abs(a - b).max()) for a, b in zip(first, second, strict=True)]
