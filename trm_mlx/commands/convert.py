"""``trm convert``: PyTorch checkpoints, safetensors and npz to model folders."""

import argparse
import sys
from pathlib import Path

from trm_mlx.config_io import path_text, typed_overrides
from trm_mlx.convert.convert import convert
from trm_mlx.convert.read import read_published_config
from trm_mlx.convert.verify import VerificationFailed
from trm_mlx.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "checkpoint",
        type=path_text,
        help="file of weights: step_N, .pth, .ckpt, .safetensors, .npz",
    )
    parser.add_argument(
        "output", nargs="?", type=path_text, help="folder to write (default: CHECKPOINT-mlx)"
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="such as L_cycles=4 seq_len=81"
    )
    parser.add_argument("--config", type=path_text, help="the run's all_config.yaml")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), default="float32", help="of the stored weights"
    )
    parser.add_argument(
        "--verify", action="store_true", help="compare with PyTorch on random puzzles"
    )
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")


def run(arguments: argparse.Namespace) -> int:
    source = Path(arguments.checkpoint)
    words = [word for word in [arguments.output, *arguments.overrides] if word]
    folders = [word for word in words if "=" not in word]
    if len(folders) > 1:
        raise InputError(f"{folders[1]!r}: name one output folder; other words are key=value")
    output = Path(folders[0]) if folders else source.with_name(source.name + "-mlx")
    given = read_published_config(Path(arguments.config)) if arguments.config else {}
    given |= typed_overrides([word.removeprefix("arch.") for word in words if "=" in word])
    report = (lambda line: None) if arguments.quiet else print
    beside = source.with_name("all_config.yaml")
    if not arguments.config and beside.exists():
        report(f"{beside} lies beside it: --config {beside} would read it")
    try:
        convert(source, output, given, arguments.dtype, arguments.verify, report)
    except VerificationFailed as failure:
        print(f"error: {failure}", file=sys.stderr)
        return 1
    return 0
