"""Who may import whom, read from the source, and what a bare import starts."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
PACKAGE = CHECKOUT / "trm_mlx"
FILES = sorted(PACKAGE.rglob("*.py"))

# What the modules of a layer may import from the package, besides themselves. A layer is a folder
# of trm_mlx or, at its root, a module; anything absent from this table fails.
ALLOWED = {
    "__init__": {"device", "errors"},
    "__main__": {"cli"},
    "device": {"errors"},
    "errors": set(),
    "argument_types": {"errors"},
    "files": {"errors"},
    "numba_jit": set(),
    "progress": set(),
    "config": {"errors"},
    "config_io": {"config", "errors", "files"},
    "distributed": {"device", "errors"},
    "tasks": {"numba_jit", "errors"},
    "data": {"errors", "files"},
    "builders": {"tasks", "data", "argument_types", "errors", "files", "progress"},
    "models": {"device", "numba_jit", "config", "config_io", "errors", "files"},
    "train": {"models", "tasks", "data", "config", "device", "distributed", "errors"},
    "evaluate": {"train", "models", "tasks", "data", "config", "distributed", "errors", "files"},
    "run": {"train", "evaluate", "models", "tasks", "data", "config", "config_io", "distributed"}
    | {"device", "errors", "files", "progress"},
    "adaptation": {"builders", "run", "evaluate", "train", "models", "tasks", "data", "config"}
    | {"config_io", "device", "errors", "files"},
    "bench": {"models", "train", "run", "evaluate", "solve", "data", "config", "device", "errors"}
    | {"distributed"},
    "solve": {"models", "convert", "data", "tasks", "config", "device", "argument_types"}
    | {"errors", "files"},
    "view": {"tasks", "solve", "errors", "files"},
    "demo": {"tasks", "models", "solve", "view", "config", "device", "errors"},
    "convert": {"models", "config", "config_io", "errors", "files"},
    "commands": {"bench", "builders", "convert", "train", "run", "evaluate", "solve", "view"}
    | {"adaptation", "models", "data", "tasks", "demo", "config", "config_io", "device"}
    | {"distributed", "errors", "files", "progress", "__init__"},  # its version
    "cli": {"device", "errors", "__init__"},  # and, by name, the module of the verb asked for
}

# Libraries that only some places may import. None: the whole package.
LIBRARIES = {
    "mlx": {
        "models",
        "train",
        "adaptation",
        "evaluate",
        "run",
        "solve",
        "bench",
        "convert",
        "device",
        "distributed",
    },
    "torch": {"convert", "bench/reference.py"},
    "safetensors": {"convert"},
    "wandb": {"run/report.py"},
    "argcomplete": {"cli"},
    "huggingface_hub": {"builders", "convert/sources.py"},
    "pyarrow": {"data/tables.py"},
    "numba": {"numba_jit"},
    "rich": {"view"},
    "PIL": {"view"},
    "matplotlib": {"commands/plot.py"},
    "adam_atan2": {"bench/reference.py"},
    "numpy": None,
    "yaml": None,
    "tqdm": {"progress"},
}


def relative(path):
    return path.relative_to(PACKAGE).as_posix()


def layer_of(path):
    return relative(path).partition("/")[0].removesuffix(".py")


def tree_of(path):
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imported(path):
    """Dotted names of everything a file imports, at its top or inside a function."""
    package = ("trm_mlx", *path.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*above, *filter(None, [node.module])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def imported_layers(path):
    """The layers of ours that a file imports; ``__init__`` for names of the package itself."""
    for name in imported(path):
        parts = name.split(".")
        if parts[0] == "trm_mlx":
            known = len(parts) > 1 and parts[1] in ALLOWED
            yield parts[1] if known else "__init__"


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_arrows_between_layers(path):
    layer = layer_of(path)
    assert layer in ALLOWED, f"add the layer {layer} to ALLOWED, and say what it may import"
    forbidden = set(imported_layers(path)) - ALLOWED[layer] - {layer}
    assert not forbidden, f"{relative(path)} must not import trm_mlx.{', '.join(forbidden)}"


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_arrows_to_libraries(path):
    for name in {name.partition(".")[0] for name in imported(path)}:
        if name == "trm_mlx" or name in sys.stdlib_module_names:
            continue
        assert name in LIBRARIES, f"{relative(path)} imports {name}, which no extra installs"
        places = LIBRARIES[name]
        assert places is None or {layer_of(path), relative(path)} & places, (
            f"{relative(path)} must not import {name}"
        )


def test_rules_see_through_every_spelling(tmp_path, monkeypatch):
    """The two tests above rest on `imported`, so it must miss no form of import."""
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
    (tmp_path / "data").mkdir()
    path = tmp_path / "data" / "bad.py"
    path.write_text(
        "import mlx.core as mx\n"
        "from trm_mlx import tasks\n"
        "from .. import models\n"
        "from ..train.trainer import Trainer\n"
        "from . import schema\n"
        "def f():\n    import torch\n    from trm_mlx.solve import solver\n"
    )
    names = set(imported(path))
    assert {"mlx.core", "torch"} < names
    assert set(imported_layers(path)) == {"tasks", "models", "train", "data", "solve"}


def test_recursion_core_stands_alone():
    path = PACKAGE / "models" / "recursion.py"
    ours = {name for name in imported(path) if name.startswith("trm_mlx")}
    assert all(name.startswith("trm_mlx.errors") for name in ours), ours


def test_data_knows_no_task_and_tasks_no_model():
    """By word too: no file of data/ speaks of a Sudoku class, none of tasks/ of mlx."""
    for path in (PACKAGE / "data").glob("*.py"):
        names = {node.id for node in ast.walk(tree_of(path)) if isinstance(node, ast.Name)}
        assert not {name for name in names if "sudoku" in name.lower()}, path
    for path in (PACKAGE / "tasks").glob("*.py"):
        assert "import mlx" not in path.read_text(encoding="utf-8"), path


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_exceptions_are_named(path):
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"{relative(path)}:{node.lineno}: bare except"
            caught = {name.id for name in ast.walk(node.type) if isinstance(name, ast.Name)}
            broad = caught & {"Exception", "BaseException"}
            assert not broad, f"{relative(path)}:{node.lineno}: except {broad.pop()}"


def test_command_lines_are_read_by_commands_alone():
    """Library code takes keywords; ``argparse.Namespace`` stays where a command line is parsed."""
    for path in PACKAGE.rglob("*.py"):
        if path.parent.name == "commands":
            continue
        names = {getattr(node, "attr", getattr(node, "id", "")) for node in ast.walk(tree_of(path))}
        assert "Namespace" not in names, path


def test_no_junk_drawer():
    assert not [path for path in FILES if path.stem in ("utils", "util", "helpers", "misc")]


@pytest.mark.parametrize("path", [path for path in FILES if path.stat().st_size], ids=relative)
def test_every_file_says_what_it_holds(path):
    assert ast.get_docstring(tree_of(path)), f"{relative(path)} has no docstring"


# Of the last ones, none is a dependency: nothing may load what happens to be installed.
HEAVY = {"mlx", "numba", "torch", "wandb", "matplotlib", "rich", "huggingface_hub", "PIL"}
WEB = {"flask", "fastapi", "starlette", "uvicorn", "aiohttp", "tornado", "django", "gradio"}


def started_by(code):
    """Which heavy libraries are loaded after running ``code`` in a fresh interpreter."""
    code = (
        f"import sys; sys.path.insert(0, {str(CHECKOUT)!r})\n{code}\n"
        f"print(*({{name.partition('.')[0] for name in sys.modules}} & {HEAVY | WEB!r}))"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return set(done.stdout.splitlines()[-1].split())


def test_import_starts_nothing_heavy():
    assert started_by("import trm_mlx, trm_mlx.cli, trm_mlx.config") == set()


@pytest.mark.parametrize("command", ["build --help", "build sudoku --help", "--help"])
def test_help_of_builders_starts_no_mlx(command):
    code = (
        "from trm_mlx.cli import main\n"
        f"try: main({command.split()!r})\nexcept SystemExit as stop: assert stop.code == 0"
    )
    assert started_by(code) == set()


def test_training_and_solving_start_nothing_they_do_not_use(tmp_path):
    words = [
        "data_paths=[generate:sudoku4x4]", "puzzles_per_epoch=8", "test_puzzles=4", "epochs=1",
        "eval_interval=1", "global_batch_size=8", "arch.hidden_size=16", "arch.num_heads=2",
        "arch.L_layers=1", f"checkpoint_path={tmp_path / 'run'}",
    ]  # fmt: skip
    puzzle = "4 3 . . 2 1 . 4 3 2 . . . 4 2 3"
    code = (
        "from trm_mlx.cli import main\n"
        f"assert main(['train', *{words!r}]) == 0\n"
        f"assert main(['solve', '--checkpoint', {str(tmp_path / 'run')!r}, {puzzle!r}]) in (0, 1)"
    )
    assert started_by(code) == {"mlx", "numba"}


def test_lazy_names_load():
    import trm_mlx

    for name in trm_mlx.__all__:
        assert getattr(trm_mlx, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = trm_mlx.nonsense


@pytest.mark.parametrize("arguments", [["check"], ["format", "--check"]], ids=" ".join)
def test_ruff(arguments):
    beside = Path(sys.executable).with_name("ruff")
    ruff = str(beside) if beside.exists() else shutil.which("ruff")
    if ruff is None:
        pytest.skip("ruff is not installed")
    done = subprocess.run(
        [ruff, *arguments, "--no-cache", "."],
        cwd=CHECKOUT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
