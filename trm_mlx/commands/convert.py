"""``trm convert``: PyTorch checkpoints, safetensors and npz to model folders."""

import argparse
import shlex
import sys
from pathlib import Path

from trm_mlx.config_io import typed_overrides
from trm_mlx.convert.convert import convert
from trm_mlx.convert.sources import ADDRESS, checkpoints_below, find_source, is_repository
from trm_mlx.convert.verify import VerificationFailed
from trm_mlx.errors import InputError
from trm_mlx.files import path_text, path_type


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "checkpoint",
        nargs="?",
        type=path_text,
        help="weights: a file (step_N, .pth, .ckpt, .safetensors, .npz), a folder with one, or "
        "owner/name on the Hugging Face hub (none: list those below the current folder)",
    )
    parser.add_argument(
        "output", nargs="?", type=path_text, help="folder to write (default: CHECKPOINT-mlx)"
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="such as L_cycles=4 seq_len=81"
    )
    parser.add_argument(
        "--config",
        type=path_type,
        help="the run's all_config.yaml (default: that, or config.json, beside the file)",
    )
    parser.add_argument(
        "--key", help="where in the file the state dict is, such as ema.shadow (default: found)"
    )
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), default="float32", help="of the stored weights"
    )
    parser.add_argument(
        "--verify", action="store_true", help="compare with PyTorch on random puzzles"
    )
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")


def run(arguments: argparse.Namespace) -> int:
    named = arguments.checkpoint
    if named is None:
        print(_listing(checkpoints_below(Path())))
        return 0
    words = [word for word in [arguments.output, *arguments.overrides] if word]
    folders = [word for word in words if "=" not in word]
    if len(folders) > 1:
        raise InputError(f"{folders[1]!r}: name one output folder; other words are key=value")
    given = typed_overrides([word.removeprefix("arch.") for word in words if "=" in word])
    default = Path(ADDRESS.sub("", named)).name if is_repository(named) else Path(named)
    source = find_source(named)
    if arguments.config:
        source = source._replace(config=arguments.config, asked=True)
    output = Path(folders[0] if folders else f"{default}-mlx")
    report = (lambda line: None) if arguments.quiet else print
    try:
        convert(
            source, output, given, arguments.dtype, arguments.verify, arguments.key, report=report
        )
    except VerificationFailed as failure:
        print(f"error: {failure}", file=sys.stderr)
        return 1
    return 0


def _listing(found: list[Path]) -> str:
    """Say which checkpoints there are and how to convert one."""
    shown = [f"  trm convert {shlex.quote(str(path))}" for path in found]
    ways = (
        "name a file of weights, a folder with one, or a repository of the Hugging Face hub:\n"
        "  trm convert step_65104 --config all_config.yaml\n"
        "  trm convert owner/name"
    )
    head = f"{len(shown)} found here:" if shown else "no checkpoint found here;"
    return "\n".join([head, *shown, f"or {ways}" if shown else ways])
