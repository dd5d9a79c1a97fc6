"""The ``trm`` command: finds the module of a verb and runs it.

Such a module has ``add_arguments(parser)`` and ``run(arguments)``, which may return an exit status.
Only the module of the verb asked for is imported.
"""

import argparse
import importlib
import sys
from collections.abc import Sequence

from trm_mlx import __version__
from trm_mlx.errors import InputError

VERBS = {
    "build sudoku": ("trm_mlx.build.sudoku", "build a Sudoku dataset"),
    "train": ("trm_mlx.commands.train", "train a model"),
    "eval": ("trm_mlx.commands.evaluate", "evaluate a checkpoint on a dataset"),
    "solve": ("trm_mlx.commands.solve", "solve puzzles, step by step"),
    "convert": ("trm_mlx.convert", "convert a PyTorch checkpoint"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 2 for bad input, 130 for Ctrl-C."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    for verb, (module_name, summary) in VERBS.items():
        length = len(verb.split())
        if words[:length] == verb.split():
            module = importlib.import_module(module_name)
            parser = argparse.ArgumentParser(
                prog=f"trm {verb}", description=f"{summary.capitalize()}."
            )
            module.add_arguments(parser)
            return _run(module.run, parser.parse_args(words[length:]))
    return _usage(words)


def _run(command, arguments: argparse.Namespace) -> int:
    try:
        return command(arguments) or 0
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _usage(words: list[str]) -> int:
    if words == ["--version"]:
        print(__version__)
        return 0
    asked = not words or words[0] in ("-h", "--help")
    lines = [f"  trm {verb:13} {summary}" for verb, (_, summary) in VERBS.items()]
    text = "\n".join(["usage: trm COMMAND [--help] ...", "", *lines])
    print(text if asked else f"error: no command {' '.join(words[:2])!r}\n{text}",
          file=sys.stdout if asked else sys.stderr)  # fmt: skip
    return 0 if asked else 2
