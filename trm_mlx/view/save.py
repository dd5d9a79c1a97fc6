"""Saving a recording as a picture or a page, by the suffix of the file name."""

import importlib
import importlib.util
from pathlib import Path

from trm_mlx.atomic import atomic_file
from trm_mlx.errors import InputError, refusal
from trm_mlx.view.recording import Recording

_WRITERS = {
    ".png": ("trm_mlx.view.image", "save_png"),
    ".gif": ("trm_mlx.view.image", "save_gif"),
    ".html": ("trm_mlx.view.html", "save_html"),
}


def check_target(path: Path) -> None:
    """Check that `save` can write a file, before any work.

    Raises:
        InputError: the suffix is unknown, the folder is missing, the path is a folder, or Pillow is
            missing.
    """
    if path.suffix.lower() not in _WRITERS:
        raise InputError(f"--save {path}: no such picture; end the name in .png, .gif or .html")
    if path.is_dir():
        raise InputError(f"{path} is a folder: name a file to write")
    if not path.parent.is_dir():
        raise InputError(f"{path}: there is no folder {path.parent}; make it first")
    if path.suffix.lower() != ".html" and importlib.util.find_spec("PIL") is None:
        raise InputError(
            f"--save {path} needs Pillow: pip install 'trm-mlx[view]', or save .html instead"
        )


def save(recording: Recording, path: Path) -> None:
    """Write the picture or page that the suffix asks for; the file is whole or absent.

    Raises:
        InputError: as of `check_target`, or the file cannot be written.
    """
    check_target(path)
    module, name = _WRITERS[path.suffix.lower()]
    write = getattr(importlib.import_module(module), name)
    try:
        with atomic_file(path) as unfinished:
            write(recording, unfinished)
    except OSError as error:
        raise InputError(f"cannot write {path}: {refusal(error)}") from error
