"""The device MLX runs on, and a fast BLAS under it on Linux.

MLX's Linux CPU wheel is linked against the reference BLAS, 50 to 100 times slower than a tuned
one. Loading a tuned library with global symbols *before* ``mlx.core`` makes the same wheel use it,
so the package imports this module first and everything else of ours after it.
"""

import ctypes
import functools
import sys
import sysconfig
import warnings
from pathlib import Path

_SYSTEM_LIBRARIES = ("libopenblas.so.0", "libopenblas.so", "libmkl_rt.so.3", "libmkl_rt.so.2")
_REMEDY = (
    "pip install 'trm-mlx[cpu]' (x86-64), or install your system's OpenBLAS "
    "(Debian: apt install libopenblas0-pthread)"
)


@functools.cache
def preload_blas() -> str | None:
    """Make the BLAS calls of MLX's CPU back end resolve to a tuned library.

    Returns:
        The library's file name, or None where none was found or none is needed (macOS).
    """
    if sys.platform != "linux":
        return None
    installed = Path(sysconfig.get_path("data"), "lib").glob("libmkl_rt.so*")
    for candidate in [*map(str, sorted(installed)), *_SYSTEM_LIBRARIES]:
        try:
            ctypes.CDLL(candidate, mode=ctypes.RTLD_GLOBAL)
        except OSError:
            continue
        return Path(candidate).name
    return None


@functools.cache
def device_name() -> str:
    """``"metal"``, ``"cuda"`` or ``"cpu"``: where MLX evaluates arrays by default."""
    import mlx.core as mx

    if mx.default_device() == mx.Device(mx.cpu):
        return "cpu"
    return "metal" if mx.metal.is_available() else "cuda"


def default_dtype() -> str:
    """The activation dtype meant by ``forward_dtype: auto``.

    bfloat16 on GPUs; float32 on the CPU, where MLX multiplies bfloat16 in a scalar loop.
    """
    return "float32" if device_name() == "cpu" else "bfloat16"


def describe() -> str:
    """One line for the start of a run: MLX, device and, on a Linux CPU, the BLAS in use.

    Warns once, with the remedy, where matrix products would run on the reference BLAS.
    """
    import mlx.core as mx

    line = f"MLX {mx.__version__} on {device_name()}"
    if sys.platform == "linux" and device_name() == "cpu":
        blas = preload_blas()
        if blas is None:
            warnings.warn(
                f"no fast BLAS found: training will be 50 times slower. {_REMEDY}", stacklevel=2
            )
        line += f", BLAS {blas or 'reference (slow)'}"
    return line
