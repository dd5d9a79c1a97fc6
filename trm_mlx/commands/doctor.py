"""``trm doctor``: what this machine has for training, how fast it is, and what is wrong with it."""

import argparse
import contextlib
import importlib.metadata
import platform
import shutil

from trm_mlx import __version__, device
from trm_mlx.errors import InputError

GIBIBYTE = 2**30
NEEDED = ("mlx", "numpy", "numba", "pyyaml", "safetensors", "tqdm")
EXTRAS = {
    "mkl": "cpu",
    "torch": "convert",
    "huggingface-hub": "hub",
    "wandb": "wandb",
    "pillow": "view",
    "rich": "view",
    "matplotlib": "plot",
    "argcomplete": "completion",
}
HEAD_DIMS = (64, 42, 32)  # of published models, the transformer baseline and small bundled ones
OLDEST_GLIBC = (2, 35)  # that MLX's Linux wheels are built for
LEAST_MEMORY = LEAST_DISK = GIBIBYTE  # bytes; a small run's dataset, checkpoints and arrays


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description += " Exits with 1 if anything is."
    parser.add_argument(
        "--seconds", type=float, default=2.0, help="to multiply, per dtype (default: %(default)s)"
    )
    parser.add_argument(
        "--plan",
        type=int,
        nargs="*",
        metavar="GB",
        help="print instead what of the experiments fits here, or on Macs of so many GB (computed)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Print what there is, then what is wrong with its remedy; 1 if anything is."""
    if arguments.plan is not None:
        _print_plans(arguments.plan)
        return 0
    if not arguments.seconds > 0:
        raise InputError(f"--seconds {arguments.seconds:g}: must be greater than 0")
    for name, value in facts(arguments.seconds):
        print(f"{name:12} {value}")
    wrong = problems()
    for problem in wrong:
        print(f"wrong: {problem}")
    if not wrong:
        print("nothing is wrong")
    return 1 if wrong else 0


def _print_plans(macs: list[int]) -> None:
    """Print a table of `fits` in Markdown: for this machine, or for Macs of so many GB."""
    from trm_mlx.bench.machine import EXPERIMENTS, fits, working_set
    from trm_mlx.config_io import load_config
    from trm_mlx.models.memory import memory_size

    configs = {name: load_config([f"experiment={name}"]) for name in EXPERIMENTS}
    columns = ("memory", "experiment", "batch", "rows at once", "passes", "peak, GiB", "trace, s")
    print(f"| {' | '.join(columns)} |", "|---" * len(columns) + "|", sep="\n")
    for gigabytes in macs or [None]:
        if gigabytes is None:
            here, name = contextlib.nullcontext(), "here"
        elif gigabytes < 1:
            raise InputError(f"--plan {gigabytes}: must be at least 1")
        else:
            here = device.assumed("metal", working_set(gigabytes * GIBIBYTE))
            name = f"{gigabytes} GB"
        with here:
            for fit in fits(configs):
                peak = f"{fit.peak / GIBIBYTE:.1f}"
                if fit.peak > memory_size():
                    peak += ", does not fit"
                rows = f"{fit.rows}{', recomputing' if fit.recompute else ''}"
                cells = (name, fit.experiment, fit.batch, rows, fit.passes, peak)
                print(f"| {' | '.join(map(str, cells))} | {fit.trace:.1f} |")


def facts(seconds: float) -> list[tuple[str, str]]:
    """What the machine has, as pairs of a name and a text."""
    from trm_mlx.bench import machine

    rates = [
        (f"{dtype}", f"{machine.matmul_rate(dtype, seconds) / 1e9:,.0f} GFLOP/s in matrix products")
        for dtype in _dtypes()
    ]
    installed = [f"{name} {version}" for name in NEEDED if (version := _version(name))]
    extras = [
        f"{extra} ({name} {version or 'absent'})"
        for name, extra in EXTRAS.items()
        for version in [_version(name)]
    ]
    fused = "; ".join(f"{dims}: {machine.fused_attention(dims)}" for dims in HEAD_DIMS)
    return [
        ("trm-mlx", f"{__version__}, Python {platform.python_version()}, {platform.platform()}"),
        ("installed", ", ".join(installed)),
        ("extras", ", ".join(extras)),
        ("device", machine.device_label()),
        ("BLAS", machine.blas()),
        ("compiler", machine.compiler()),
        ("memory", _memory()),
        ("attention", f"fused for heads of {fused}"),
        ("disk", f"{shutil.disk_usage('.').free / GIBIBYTE:.1f} GiB free here"),
        *rates,
    ]


def problems() -> list[str]:
    """What is wrong, each with its remedy."""
    from trm_mlx.bench import machine

    found = device.slow(device.default_dtype())
    if (unused := machine.unused_gpu()) is not None:
        found.append(unused)
    glibc, version = platform.libc_ver()
    if glibc == "glibc" and tuple(map(int, version.split(".")[:2])) < OLDEST_GLIBC:
        oldest = ".".join(map(str, OLDEST_GLIBC))
        found.append(
            f"glibc {version}: MLX's wheels need {oldest}, use a newer system or container"
        )
    arrays = machine.memory().arrays
    if arrays < LEAST_MEMORY:
        found.append(f"{arrays / GIBIBYTE:.1f} GiB of memory: use a smaller batch_size=")
    free = shutil.disk_usage(".").free
    if free < LEAST_DISK:
        found.append(f"{free / GIBIBYTE:.1f} GiB free on the disk here: clear some for checkpoints")
    return found


def _dtypes() -> tuple[str, ...]:
    """The dtypes to time: on a GPU all three, as Macs differ in which half is faster."""
    return ("float32",) if device.device_kind() == "cpu" else ("bfloat16", "float16", "float32")


def _memory() -> str:
    from trm_mlx.bench import machine

    memory = machine.memory()
    arrays, process, computer = (f"{size / GIBIBYTE:.1f} GiB" for size in memory)
    name = " (the working set that macOS recommends)" if device.device_kind() == "metal" else ""
    text = f"{arrays} for arrays{name}, {process} in all"
    if memory.process < memory.computer:
        text += f", the limit of this container or job; the computer has {computer}"
    return text


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
