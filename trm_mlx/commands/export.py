"""``trm export``: a model for the published PyTorch code, or for Swift and C++ programs."""

import argparse
from pathlib import Path

from trm_mlx.errors import InputError
from trm_mlx.files import path_text, path_type

# Options by the format that has them.
OPTIONS = {"torch": ("prefix", "ema"), "mlxfn": ("batch_size", "device")}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "checkpoint",
        type=path_text,
        help="checkpoint folder, run folder for its newest one, or name of a bundled model",
    )
    parser.add_argument("output", type=path_type, help="file to write, such as model.pth")
    parser.add_argument("--to", choices=("torch", "mlxfn"), default="torch", help="default: torch")
    parser.add_argument("--prefix", help="torch: of every name (default: _orig_mod.model.inner.)")
    parser.add_argument(
        "--ema", action="store_true", default=None, help="torch: the averaged weights"
    )
    parser.add_argument(
        "--batch-size",
        type=int,
        nargs="+",
        metavar="N",
        help="mlxfn: the numbers of puzzles it can be called with (default: 1)",
    )
    parser.add_argument(
        "--device", choices=("cpu", "gpu"), help="mlxfn: where it will run (default: cpu)"
    )
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")


def run(arguments: argparse.Namespace) -> None:
    options = {}
    for name in (name for names in OPTIONS.values() for name in names):
        value = getattr(arguments, name)
        if value is None:
            continue
        if name not in OPTIONS[arguments.to]:
            option = name.replace("_", "-")
            raise InputError(f"--{option} is not for --to {arguments.to}: leave it out")
        options[{"ema": "average", "batch_size": "batch_sizes"}.get(name, name)] = value
    options["report"] = (lambda line: None) if arguments.quiet else print
    if arguments.to == "mlxfn":
        from trm_mlx.convert.mlxfn import export_mlxfn
        from trm_mlx.solve.solver import HALT_THRESHOLD

        export, options["halt_threshold"] = export_mlxfn, HALT_THRESHOLD
    else:
        from trm_mlx.convert.export import export
    export(Path(arguments.checkpoint), arguments.output, **options)
