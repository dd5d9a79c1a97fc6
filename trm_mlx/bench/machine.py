"""Reports memory, BLAS, compiler, fused kernels and matrix speed of this machine."""

import os
import shutil
import statistics
import subprocess
import sys
import time
from typing import NamedTuple

import mlx.core as mx

from trm_mlx import device
from trm_mlx.host_memory import host_memory, machine_memory
from trm_mlx.models.memory import memory_size

_WIDTH = {"cpu": 1024, "metal": 4096, "cuda": 8192}  # of a square matrix, enough to be busy


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
    return Memory(memory_size(), host_memory(), machine_memory())


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
