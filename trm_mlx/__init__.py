"""Recursive reasoning models on MLX: train, evaluate, convert and solve puzzles with them.

The names below load on first use, so that building a dataset never starts MLX.
"""

import importlib

from trm_mlx import device
from trm_mlx.errors import InputError

__version__ = "0.1.0"

device.preload_blas()
device.allow_long_gpu_work()
device.warn_if_late()

_LAZY = {
    "ArchConfig": "trm_mlx.config",
    "ModelConfig": "trm_mlx.config",
    "TrainConfig": "trm_mlx.config",
    "PuzzleDataset": "trm_mlx.data.dataset",
    "SplitArrays": "trm_mlx.data.arrays",
    "write_dataset": "trm_mlx.data.writer",
    "build_arc": "trm_mlx.builders.arc",
    "build_arithmetic": "trm_mlx.builders.arithmetic",
    "build_maze": "trm_mlx.builders.maze",
    "build_sudoku": "trm_mlx.builders.sudoku",
    "arch_config": "trm_mlx.config_io",
    "load_config": "trm_mlx.config_io",
    "RecursiveReasoner": "trm_mlx.models.model",
    "build_model": "trm_mlx.models.model",
    "load": "trm_mlx.convert.load",
    "adapt": "trm_mlx.adaptation",
    "predict": "trm_mlx.solve.solver",
    "refine": "trm_mlx.solve.refine",
    "supervise": "trm_mlx.evaluate.supervise",
    "solve": "trm_mlx.solve",
    "SearchConfig": "trm_mlx.solve.search",
    "Solver": "trm_mlx.solve.solver",
    "Trainer": "trm_mlx.run.trainer",
    "averaged": "trm_mlx.train.step",
}

__all__ = ["InputError", "__version__", *_LAZY]


def __getattr__(name: str):
    if name not in _LAZY:
        raise AttributeError(f"module 'trm_mlx' has no attribute {name!r}")
    module = importlib.import_module(_LAZY[name])
    return module if _LAZY[name] == f"{__name__}.{name}" else getattr(module, name)


def __dir__() -> list[str]:
    return __all__
