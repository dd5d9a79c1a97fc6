"""Which modules may be imported because a file names them: those this user has named before.

A received ``config.json``, ``state.json`` or ``dataset.json`` can name any module as its task's, in
the current folder too, and importing one runs it. So every module that is named on a command line
or in Python is remembered by its file; a file's word is taken for those alone.
"""

import os
import sys
from contextlib import suppress
from importlib.machinery import PathFinder
from pathlib import Path

from trm_mlx.errors import InputError


def search_here() -> None:
    """Import from the current folder too, as ``python -m`` does and a console script does not."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())


def remember(module: str) -> None:
    """Remember the file of an imported module, unless the disk does not take it."""
    place = getattr(sys.modules.get(module), "__file__", None)
    if place is None or _is_known(place):
        return
    with suppress(OSError):
        _register().parent.mkdir(parents=True, exist_ok=True)
        with _register().open("a", encoding="utf-8") as known:
            known.write(f"{os.path.realpath(place)}\n")


def check_known(name: str) -> None:
    """Check that a task ``package.module:NAME``, named by a file, may be imported.

    A name without a module may.

    Raises:
        InputError: this user has not named its module before; says how to.
    """
    module = name.rpartition(":")[0]
    if not module or module in sys.modules:
        return
    search_here()
    place = _file_of(module)
    if place is not None and not _is_known(place):
        raise InputError(
            f"its task is {name}, whose module {place} would be run: if you trust that file, add "
            f"--task {name} (Python: import {module})"
        )


def _file_of(module: str) -> str | None:
    """The file that importing a module would run; no package of it is run to find out."""
    path, place, name = None, None, ""
    for part in module.split("."):
        name = f"{name}.{part}".lstrip(".")
        spec = PathFinder.find_spec(name, path)
        if spec is None:
            return None
        path, place = spec.submodule_search_locations, spec.origin
    return place


def _is_known(place: str) -> bool:
    try:
        known = _register().read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return False
    return os.path.realpath(place) in known


def _register() -> Path:
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(state).expanduser() / "trm-mlx" / "task_modules.txt"
