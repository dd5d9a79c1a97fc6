"""Counts how much of the package a reader meets: files entered by a job, size, circles, arrows.

    python tools/files_entered.py            all of it
    python tools/files_entered.py --names    with the names of what is counted, files as entered

A file is entered if a function of it is called while the job runs; importing it does not count, nor
what its import calls.
"""

import argparse
import ast
import contextlib
import inspect
import io
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import FrameType

import trm_mlx

PACKAGE = Path(trm_mlx.__file__).resolve().parent
sys.path.append(str(PACKAGE.parent / "tests"))

TINY = (
    "arch.hidden_size=16", "arch.num_heads=1", "arch.L_layers=1", "arch.H_cycles=2",
    "arch.L_cycles=1", "global_batch_size=8", "puzzles_per_epoch=16", "test_puzzles=8", "epochs=2",
    "eval_interval=1", "data_paths=[generate:sudoku4x4]", "evaluators=[]",
)  # fmt: skip
PUZZLE = "4 3 . . 2 1 . 4 3 2 . . . 4 2 3"


def files_entered(job: Callable[[], object]) -> list[str]:
    """The files of the package in which a function is called while ``job`` runs, in any thread.

    They are in the order of their first calls.
    """
    entered: dict[str, None] = {}
    inside = f"{PACKAGE}{os.sep}"

    def record(frame, event: str, _argument: object) -> None:
        name = frame.f_code.co_filename
        fresh = name.startswith(inside) and name not in entered
        if event == "call" and fresh and not _importing(frame):
            entered[name] = None

    threading.setprofile(record)
    sys.setprofile(record)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            job()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return [Path(name).relative_to(PACKAGE).as_posix() for name in entered]


def _importing(frame: FrameType | None) -> bool:
    """Whether a frame is the body of a module or class of the package, or called from there."""
    while frame is not None:
        # These bodies, which run when they are imported, have no fast locals.
        optimized = frame.f_code.co_flags & inspect.CO_OPTIMIZED
        if not optimized and frame.f_code.co_filename.startswith(f"{PACKAGE}{os.sep}"):
            return True
        frame = frame.f_back
    return False


def jobs(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """What a training step, ``trm train`` and ``trm solve TEXT`` enter."""
    from trm_mlx import Trainer, load_config
    from trm_mlx.cli import main

    trainer = Trainer(load_config([*TINY, f"checkpoint_path={folder / 'steps'}"]))
    (first, _), (second, _) = list(trainer.stream)[:2]
    trainer.train_step(first)
    yield "one training step", files_entered(lambda: trainer.train_step(second))
    run = f"checkpoint_path={folder / 'run'}"
    yield "trm train", files_entered(lambda: main(["train", *TINY, run]))
    yield "trm solve TEXT", files_entered(lambda: main(["solve", PUZZLE]))


def arrows_up() -> list[str]:
    """Imports that the table of ``tests/test_imports.py`` forbids."""
    from test_imports import ALLOWED, FILES, imported_layers, layer_of

    return [
        f"{path.relative_to(PACKAGE).as_posix()} imports {layer}"
        for path in FILES
        for layer in set(imported_layers(path)) - {layer_of(path)} - ALLOWED[layer_of(path)]
    ]


def module_of(path: Path) -> str:
    return ".".join(("trm_mlx", *path.relative_to(PACKAGE).with_suffix("").parts))


def imports() -> dict[str, set[str]]:
    """The modules of the package that each of its modules imports, at its top or inside."""
    modules = {module_of(path): path for path in PACKAGE.rglob("*.py")}
    found = {}
    for name, path in modules.items():
        targets = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                parts = [f"{node.module}.{alias.name}" for alias in node.names]
                targets |= {part if part in modules else node.module for part in parts}
        found[name] = {target for target in targets if target in modules and target != name}
    return found


def circles() -> set[frozenset[str]]:
    """The pairs of modules that reach each other by imports."""
    graph = imports()

    def reached(start: str) -> set[str]:
        seen, waiting = set(), [start]
        while waiting:
            for target in graph[waiting.pop()] - seen:
                seen.add(target)
                waiting.append(target)
        return seen

    reach = {name: reached(name) for name in graph}
    return {frozenset((a, b)) for a in graph for b in reach[a] - {a} if a in reach[b]}


def signatures_with_namespace() -> list[str]:
    """Functions outside ``commands/`` and ``cli.py`` that take an ``argparse.Namespace``."""
    found = []
    for path in PACKAGE.rglob("*.py"):
        place = path.relative_to(PACKAGE).as_posix()
        if place.startswith("commands/") or place == "cli.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.FunctionDef):
                continue
            arguments = [*node.args.args, *node.args.kwonlyargs]
            if any(a.annotation and "Namespace" in ast.unparse(a.annotation) for a in arguments):
                found.append(f"{place}:{node.name}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--names", action="store_true", help="name what is counted")
    arguments = parser.parse_args()

    def print_row(title: str, value: str, names: Iterable[str] = ()) -> None:
        print(f"{title:36} {value}")
        if arguments.names:
            print(*(f"    {name}\n" for name in names), sep="", end="")

    with tempfile.TemporaryDirectory() as folder:
        for job, entered in jobs(Path(folder)):
            print_row(f"files entered by {job}", str(len(entered)), entered)
    files = list(PACKAGE.rglob("*.py"))
    lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files)
    pairs = sorted(" <-> ".join(sorted(pair)) for pair in circles())
    print_row("files / lines of the package", f"{len(files)} / {lines:,}")
    print_row("circles", str(len(pairs)), pairs)
    print_row("arrows upward", str(len(arrows_up())), arrows_up())
    signatures = signatures_with_namespace()
    print_row("argparse.Namespace signatures", str(len(signatures)), signatures)


if __name__ == "__main__":
    main()
