"""The ``trm`` command: finds the module of a verb and runs it.

Such a module has ``add_arguments(parser)`` and ``run(arguments)``, which may return an exit status;
builders share one ``run``.
Only the module of the verb asked for is imported.
"""

import argparse
import difflib
import errno
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NoReturn

from trm_mlx import __version__
from trm_mlx.device import memory_failures_explained
from trm_mlx.errors import InputError

VERBS = {
    "build sudoku": ("trm_mlx.builders.sudoku", "build a Sudoku dataset"),
    "build maze": ("trm_mlx.builders.maze", "build a maze dataset"),
    "build arithmetic": ("trm_mlx.builders.arithmetic", "build a dataset of sums or products"),
    "build arc": ("trm_mlx.builders.arc", "build an ARC dataset"),
    "train": ("trm_mlx.commands.train", "train a model"),
    "eval": ("trm_mlx.commands.evaluate", "evaluate a checkpoint on a dataset"),
    "adapt": ("trm_mlx.commands.adapt", "adapt an ARC model to a task of yours, and answer it"),
    "solve": ("trm_mlx.commands.solve", "solve puzzles, step by step"),
    "demo": ("trm_mlx.commands.demo", "watch models solve puzzles, in the browser"),
    "plot": ("trm_mlx.commands.plot", "draw the curves of runs"),
    "doctor": ("trm_mlx.commands.doctor", "look at this machine and say what is wrong"),
    "bench": ("trm_mlx.commands.bench", "measure the speed of this machine"),
    "convert": ("trm_mlx.commands.convert", "convert a checkpoint from PyTorch"),
    "export": ("trm_mlx.commands.export", "write a file for PyTorch, or for Swift and C++"),
}

# What the system says of a path that it will not even look at.
_UNREACHABLE = (errno.EACCES, errno.ELOOP, errno.ENAMETOOLONG)
# And of an output that it was to write: the disk is full, or broken.
_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


class Parser(argparse.ArgumentParser):
    """Says what is wrong with a command line in one line, like every other bad input."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see {self.prog} --help")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status, see `explained`."""
    if "_ARGCOMPLETE" in os.environ:
        _complete()
    words = list(sys.argv[1:] if arguments is None else arguments)
    return explained(lambda: _dispatch(words))


def explained(work: Callable[[], int | None]) -> int:
    """Do the work of a program and explain what stops it in one line; returns the exit status.

    2 for bad input; as of a shell, 130 for Ctrl-C, and 141 where nobody reads the output any more.
    """
    _open_closed_output()
    try:
        with memory_failures_explained():
            status = work() or 0
        if sys.stdout is not None:
            sys.stdout.flush()  # here, where what it may raise is caught
        return status
    except InputError as error:
        return _refused(error)
    except BrokenPipeError:
        _discard_output()
        return 141
    except OSError as error:
        if error.filename is None and error.errno in _UNWRITABLE:
            _discard_output()
            return _refused(InputError(f"cannot write the output: {error.strerror}"))
        if error.errno not in _UNREACHABLE:
            raise
        return _refused(InputError(f"{error.filename}: {error.strerror}"))
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "mlx":
            raise
        print(
            "error: MLX is not installed; pip install 'trm-mlx[cpu]', or [cuda] for an NVIDIA GPU",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _discard_output() -> None:
    """Let what is still to be flushed at the end go nowhere, silently."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complete() -> None:
    """Write the words that can follow what has been typed, and end the process.

    A shell asks for them by ``_ARGCOMPLETE`` once its start file says
    ``eval "$(register-python-argcomplete trm)"``.
    """
    import argcomplete

    argcomplete.autocomplete(parser_of(os.environ["COMP_LINE"].split()[1:]))


def parser_of(words: Sequence[str]) -> argparse.ArgumentParser:
    """Return a parser of all verbs, that of ``words`` with its options."""
    root = argparse.ArgumentParser("trm")
    groups = {(): root.add_subparsers()}
    for verb, (module_name, summary) in VERBS.items():
        *group, name = names = verb.split()
        if tuple(group) not in groups:
            groups[tuple(group)] = groups[()].add_parser(*group).add_subparsers()
        parser = groups[tuple(group)].add_parser(name, help=summary)
        if words[: len(names)] == names:
            importlib.import_module(module_name).add_arguments(parser)
    return root


def _open_closed_output() -> None:
    """Let nobody write into a file that has got the number of a closed standard descriptor."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def _refused(error: InputError) -> int:
    with suppress(OSError):  # of a full disk; the status says it too
        print("error:", *str(error).splitlines(), file=sys.stderr)
    return 2


def _dispatch(words: list[str]) -> int:
    if words[:1] == ["help"]:
        words = [*words[1:], "--help"]
    for verb, (module_name, summary) in VERBS.items():
        length = len(verb.split())
        if words[:length] == verb.split():
            module = importlib.import_module(module_name)
            parser = Parser(prog=f"trm {verb}", description=f"{summary[0].upper()}{summary[1:]}.")
            module.add_arguments(parser)
            arguments = parser.parse_intermixed_args(words[length:])
            if words[0] == "build":  # a function with keywords
                module = importlib.import_module("trm_mlx.builders.write")
                return module.run(**vars(arguments)) or 0
            return module.run(arguments) or 0
    if words == ["--version"]:
        print(__version__)
        return 0
    begun = [word for word in words if word not in ("-h", "--help")]
    matching = [verb for verb in VERBS if verb.split()[: len(begun)] == begun]
    if not matching:
        typed = " ".join(words[:2] if words[0] == "build" else words[:1])
        near = difflib.get_close_matches(typed, VERBS, n=1)
        remedy = f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(VERBS)}"
        raise InputError(f"no command {typed!r}: {remedy}")
    print(f"usage: {' '.join(['trm', *begun])} COMMAND [--help] ...\n")
    for verb in matching:
        print(f"  trm {verb:16} {VERBS[verb][1]}")
    return 0
