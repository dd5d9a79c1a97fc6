"""This machine: memory, BLAS, compiler, fused kernels, matrix speed, and what fits on it."""

import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

import mlx.core as mx

from trm_mlx import device
from trm_mlx.config import ModelConfig, TrainConfig
from trm_mlx.models.memory import memory_size
from trm_mlx.models.model import build_model
from trm_mlx.train.step import TrainState

_WIDTH = {"cpu": 1024, "metal": 4096, "cuda": 8192}  # of a square matrix, enough to be busy
# Cells, tokens and puzzle identifiers of the data of each.
EXPERIMENTS = {
    "sudoku_fast": (81, 11, 1),
    "sudoku_mlp": (81, 11, 1),
    "sudoku_attention": (81, 11, 1),
    "maze": (900, 6, 1),
    "maze_fast": (900, 6, 1),
    "arc1": (900, 12, 876_406),
}
SMALL_MAC = 36 * 2**30


def matmul_rate(dtype: str, seconds: float = 2.0) -> float:
    """Floating-point operations per second of a matrix product, the median over ``seconds``."""
    width = _WIDTH[device.device_kind()]
    left, right = (mx.random.normal((width, width)).astype(getattr(mx, dtype)) for _ in range(2))
    mx.eval(left @ right)
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end:
        begun = time.perf_counter()
        mx.eval(left @ right)
        times.append(time.perf_counter() - begun)
    return 2 * width**3 / statistics.median(times)


def device_label() -> str:
    """The kind and the product name of the device."""
    name = mx.device_info().get("device_name", "unknown")
    return f"{device.device_kind()} ({name}), {os.cpu_count()} CPU cores"


def fused_attention(head_dims: int) -> str:
    """Whether MLX has a fused kernel for heads of ``head_dims``, forward and inside a gradient.

    ``force_fused`` makes MLX raise where it would take the unfused path, which keeps all scores.
    """

    def attend(query: mx.array) -> mx.array:
        scale = head_dims**-0.5
        return mx.fast.scaled_dot_product_attention(
            query, query, query, scale=scale, force_fused=True
        )

    query = mx.zeros((1, 1, 128, head_dims), getattr(mx, device.default_dtype()))
    found = []
    for place, function in (
        ("forward", attend),
        ("gradient", mx.grad(lambda query: attend(query).astype(mx.float32).sum())),
    ):
        try:
            mx.eval(function(query))
        except (RuntimeError, ValueError):
            continue
        found.append(place)
    return " and ".join(found) or "nowhere"


class Memory(NamedTuple):
    """Memory for arrays of the device, for this process, and of the computer, in bytes."""

    arrays: int
    process: int
    computer: int


def memory() -> Memory:
    """The memory there is; in a container with a limit a process has less than the computer."""
    return Memory(memory_size(), device.host_memory(), device.machine_memory())


def blas() -> str:
    """The library that multiplies matrices, and its path."""
    if sys.platform == "darwin":
        return "Accelerate, of the system"
    name = device.preload_blas()
    if name is None:
        return "reference, inside MLX"
    with open("/proc/self/maps", encoding="utf-8") as maps:
        paths = (line.split(maxsplit=5)[-1].strip() for line in maps)
        return next((path for path in paths if os.path.basename(path).startswith(name)), name)


def compiler() -> str:
    """The compiler that ``compile=true`` uses; nothing else needs one."""
    kind = device.device_kind()
    if kind != "cpu":
        return {"metal": "Metal's, of the system", "cuda": "CUDA's nvrtc, beside MLX"}[kind]
    # MLX asks for a command of this name, on a Mac too, and compiles nothing where that fails.
    if (path := shutil.which("g++")) is not None:
        done = subprocess.run([path, "--version"], check=False, capture_output=True, text=True)
        if done.returncode == 0:
            return f"{done.stdout.splitlines()[0]}; only compile=true uses it"
    return "no g++; only compile=true would use one: leave compile at auto"


def unused_gpu() -> str | None:
    """A message about a GPU that MLX does not use, with the remedy; None if there is none."""
    if device.device_kind() != "cpu":
        return None
    if sys.platform == "darwin":
        return "MLX finds no Metal device: use a Python for arm64, on the Mac itself"
    if os.path.exists("/dev/nvidia0"):
        return "there is an NVIDIA GPU, but MLX runs on the CPU: pip install 'trm-mlx[cuda]'"
    return None


# What fits


class Fit(NamedTuple):
    """The plan of an experiment: see `Plan`; ``trace`` is the seconds to trace one pass."""

    experiment: str
    batch: int
    rows: int
    passes: int
    recompute: bool
    peak: int
    trace: float


def working_set(memory: int) -> int:
    """Bytes that macOS recommends for a GPU's arrays on a Mac of ``memory`` bytes."""
    return memory * 2 // 3 if memory < SMALL_MAC else memory * 3 // 4


def fits(configs: dict[str, TrainConfig]) -> Iterator[Fit]:
    """Plan each experiment for the default device, or the one assumed; nothing is computed.

    Args:
        configs: by name, of `EXPERIMENTS`.
    """
    for name, config in configs.items():
        seq_len, vocab_size, identifiers = EXPERIMENTS[name]
        model = ModelConfig.of(
            config.arch, seq_len=seq_len, vocab_size=vocab_size, num_puzzle_identifiers=identifiers
        )
        state = TrainState(build_model(model), config, total_steps=1)
        batch, plan = config.global_batch_size, state.plan
        seconds = _trace_seconds(state, config, seq_len)
        passes = -(-batch // plan.rows)
        yield Fit(name, batch, plan.rows, passes, plan.recompute, plan.peak, seconds)


def _trace_seconds(state: TrainState, config: TrainConfig, seq_len: int) -> float:
    """Trace one pass as a step would, without computing it."""
    rows = state.plan.rows
    batch = {name: mx.zeros((rows, seq_len), mx.int32) for name in ("inputs", "labels")}
    batch["puzzle_identifiers"] = mx.zeros((rows,), mx.int32)
    start = time.perf_counter()
    state.trace(state.model.initial_carry(batch), batch)
    return time.perf_counter() - start
