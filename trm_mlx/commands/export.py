"""``trm export``: a checkpoint of ours for the published PyTorch code."""

import argparse
from pathlib import Path

from trm_mlx.config_io import path_text
from trm_mlx.convert.export import PREFIX, export


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "checkpoint", type=path_text, help="checkpoint folder, or run folder for its newest one"
    )
    parser.add_argument("output", type=path_text, help="file to write, such as model.pth")
    parser.add_argument("--to", choices=("torch",), default="torch", help="format (default: torch)")
    parser.add_argument("--prefix", default=PREFIX, help=f"of every name (default: {PREFIX})")
    parser.add_argument("--ema", action="store_true", help="the averaged weights")
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")


def run(arguments: argparse.Namespace) -> None:
    export(
        Path(arguments.checkpoint),
        Path(arguments.output),
        prefix=arguments.prefix,
        average=arguments.ema,
        report=(lambda line: None) if arguments.quiet else print,
    )
