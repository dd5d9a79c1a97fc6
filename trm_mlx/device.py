"""The device MLX runs on, and what must be set before MLX is first imported.

MLX's Linux CPU wheel is linked against the reference BLAS, 50 to 100 times slower than a tuned
one. Loading a tuned library with global symbols *before* ``mlx.core`` makes the same wheel use it,
so the package imports this module first and everything else of ours after it.
"""

import ctypes
import functools
import os
import re
import sys
import sysconfig
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trm_mlx.errors import InputError

_TOO_LATE = "mlx.core" in sys.modules  # its calls are bound to the reference BLAS by now
_SYSTEM_LIBRARIES = ("libopenblas.so.0", "libopenblas.so", "libmkl_rt.so.3", "libmkl_rt.so.2")
# In a container the folder shows the container's own group; elsewhere the path leads to it.
GROUPS = Path("/sys/fs/cgroup")
MEMBERSHIPS = Path("/proc/self/cgroup")  # lines of number:controllers:path
_LONG_GPU_WORK = "AGX_RELAX_CDM_CTXSTORE_TIMEOUT"
_assumed: tuple[str, int] | None = None  # a device and its memory
# mallopt(3), in glibc's numbers: M_TRIM_THRESHOLD, and M_MMAP_THRESHOLD at its maximum.
_KEEP_FREED = {-1: 2**31 - 1, -3: 2**25}
# What MLX says where memory is short, on CUDA and on Metal.
_NO_MEMORY = re.compile(
    "Unable to allocate|out of memory|Insufficient Memory|maximum allowed buffer"
)
_SWAP = "mlx was imported before trm_mlx, with a slow BLAS: swap the imports"
_REMEDY = (
    "pip install 'trm-mlx[cpu]' (x86-64), or install your system's OpenBLAS "
    "(Debian: apt install libopenblas0-pthread)"
)


@functools.cache
def blas() -> ctypes.CDLL | None:
    """The tuned library that the BLAS calls of MLX's CPU back end resolve to, once it is loaded.

    None where none was found, none is needed (macOS), or MLX was imported first.
    """
    if sys.platform != "linux" or _TOO_LATE:
        return None
    installed = Path(sysconfig.get_path("data"), "lib").glob("libmkl_rt.so*")
    for candidate in [*map(str, sorted(installed)), *_SYSTEM_LIBRARIES]:
        try:
            return ctypes.CDLL(candidate, mode=ctypes.RTLD_GLOBAL)
        except OSError:
            continue
    return None


def preload_blas() -> str | None:
    """Load that library, if there is one, and return its file name."""
    return None if (library := blas()) is None else Path(library._name).name


def warn_if_late() -> None:
    """A Python warning where a script has imported MLX first, and will be slow for it."""
    if _TOO_LATE and _is_linux_cpu():
        warnings.warn(_SWAP, RuntimeWarning, stacklevel=3)


def allow_long_gpu_work() -> None:
    """Set the variable that lets GPU work on a Mac last longer than macOS likes.

    While a display is on, macOS ends command buffers that take seconds (ml-explore/mlx#3267). The
    variable is read when the Metal device is made, so this runs before MLX is imported.
    """
    if sys.platform == "darwin":
        os.environ.setdefault(_LONG_GPU_WORK, "1")


def device_kind() -> str:
    """``"metal"``, ``"cuda"`` or ``"cpu"``: where MLX evaluates arrays at this moment.

    MLX is asked each time, as ``with mx.stream(mx.cpu)`` changes the answer.
    """
    import mlx.core as mx

    if _assumed is not None:
        return _assumed[0]
    if mx.default_device() == mx.Device(mx.cpu):
        return "cpu"
    return "metal" if mx.metal.is_available() else "cuda"


@contextmanager
def assumed(kind: str, memory: int) -> Iterator[None]:
    """Inside, everything is planned and traced for a device of this kind, not the one there is.

    Args:
        kind: as `device_kind` returns it.
        memory: bytes for arrays.
    """
    global _assumed
    before, _assumed = _assumed, (kind, memory)
    try:
        yield
    finally:
        _assumed = before


def assumed_memory() -> int | None:
    """The bytes for arrays of the device that is `assumed`, if one is."""
    return None if _assumed is None else _assumed[1]


def default_dtype() -> str:
    """The activation dtype meant by ``forward_dtype: auto``.

    bfloat16 on GPUs; float32 on the CPU, where MLX multiplies bfloat16 in a scalar loop.
    """
    return "float32" if device_kind() == "cpu" else "bfloat16"


def compiles(choice: str = "auto") -> bool:
    """Whether to `mx.compile` a step as a whole; ``choice``: "auto", "true" or "false".

    ``auto``: on Metal. On the CPU it costs a minute of g++ and gains little; on CUDA every fused
    kernel costs seconds of nvrtc, and the large ones are written by hand.
    """
    return choice == "true" or (choice == "auto" and device_kind() == "metal")


def announce(dtype: str) -> None:
    """Print to stderr what a run computes on, and a warning for everything that slows it down.

    Args:
        dtype: of the activations, as ``arch.forward_dtype`` names it.
    """
    import mlx.core as mx

    dtype = default_dtype() if dtype == "auto" else dtype
    line = f"MLX {mx.__version__} on {device_kind()}, {dtype}"
    if _is_linux_cpu():
        line += f", BLAS {preload_blas() or 'reference'}"
    if device_kind() == "metal" and os.environ.get(_LONG_GPU_WORK) == "1":
        line += f"; GPU work may take long while a display is on ({_LONG_GPU_WORK}=1)"
    print(line, *(f"warning: {text}" for text in slow(dtype)), sep="\n", file=sys.stderr)


def slow(dtype: str) -> list[str]:
    """Return what makes ``dtype`` slow on this device, each with its remedy."""
    found = []
    if _is_linux_cpu():
        if _TOO_LATE:
            found.append(_SWAP)
        elif preload_blas() is None:
            found.append(f"no fast BLAS found, expect a fiftieth of the speed: {_REMEDY}")
    if device_kind() == "cpu" and dtype != "float32":
        found.append(f"{dtype} is very slow on a CPU: use arch.forward_dtype=auto")
    return found


def keep_memory() -> None:
    """Keep the memory of a run's arrays, from step to step.

    macOS may page them out while the GPU waits, unless they are wired: up to the working set that
    it recommends, as mlx-lm does for training. On a Linux CPU they are malloc's, which gives large
    ones back to the kernel at once, and each page of the next has to be cleared again.
    """
    import mlx.core as mx

    if device_kind() == "metal":
        mx.set_wired_limit(int(mx.device_info()["max_recommended_working_set_size"]))
    elif _is_linux_cpu() and hasattr(libc := ctypes.CDLL(None), "mallopt"):  # not musl's
        for parameter, size in _KEEP_FREED.items():
            libc.mallopt(parameter, size)


@contextmanager
def memory_failures_explained() -> Iterator[None]:
    """Inside, what MLX raises where memory is short becomes an `InputError` with the remedy."""
    try:
        yield
    except RuntimeError as error:
        if not _NO_MEMORY.search(str(error)):
            raise
        raise InputError(
            f"out of memory{_others_share()}: work on fewer rows at once, by --batch-size N or, in "
            f"training, batch_size=N, or end what else needs memory ({error})"
        ) from error


def _others_share() -> str:
    """How much of an NVIDIA GPU other programs hold, in words."""
    import mlx.core as mx

    if device_kind() != "cuda":
        return ""
    info = mx.device_info()
    own = mx.get_active_memory() + mx.get_cache_memory()
    sizes = (info["total_memory"] - info["free_memory"] - own, info["total_memory"])
    others, total = (max(size, 0) / 2**30 for size in sizes)
    return f", {others:.0f} of the GPU's {total:.0f} GiB are held by other programs"


def _is_linux_cpu() -> bool:
    return sys.platform == "linux" and device_kind() == "cpu"


# Memory of the computer. On Linux the limit of a container or job is one of control groups, in
# version 1 or 2 of their files. It binds whoever is in the group or in one inside it, and the
# kernel ends a process that goes beyond.


def host_memory() -> int:
    """Bytes that this process may take: the machine's memory, or a smaller limit."""
    return min([machine_memory(), *_limits()])


def machine_memory() -> int:
    """Bytes of the whole computer, whoever may take them."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _limits() -> Iterator[int]:
    paths = {"": "/", "memory": "/"}  # by controllers; those of version 2 have none
    for line in _text(MEMBERSHIPS).splitlines():
        _, controllers, path = line.split(":", 2)
        paths |= {name: path for name in controllers.split(",") if name in paths}
    for folder, path, file in (
        (GROUPS, paths[""], "memory.max"),
        (GROUPS / "memory", paths["memory"], "memory.limit_in_bytes"),
    ):
        group = Path(path)
        for inside in (group, *group.parents):
            text = _text(folder / inside.relative_to("/") / file).strip()
            if text.isdigit():  # version 2 writes "max" for none, version 1 a huge number
                yield int(text)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:  # no such group, or no groups at all: no limit
        return ""
