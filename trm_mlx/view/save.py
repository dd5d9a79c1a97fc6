"""Saving a recording as a picture or a page, by the suffix of the file name."""

import importlib
import importlib.util
from collections.abc import Iterable
from pathlib import Path

from trm_mlx.errors import InputError
from trm_mlx.files import check_target, output_file
from trm_mlx.view.recording import Recording

_WRITERS = {
    ".png": ("trm_mlx.view.image", "save_png"),
    ".gif": ("trm_mlx.view.image", "save_gif"),
    ".html": ("trm_mlx.view.html", "save_html"),
}


def check_picture(path: Path, suffixes: Iterable[str] = tuple(_WRITERS)) -> None:
    """Check that a picture or page can be written, before any work.

    Raises:
        InputError: the suffix is none of those allowed, the folder or Pillow is missing, or the
            path is a folder.
    """
    *others, last = suffixes
    suffix = path.suffix.lower()
    if suffix not in (*others, last):
        words = f"{', '.join(others)} or {last}" if others else last
        raise InputError(f"--save {path}: no such picture; end the name in {words}")
    check_target(path)
    if suffix != ".html" and importlib.util.find_spec("PIL") is None:
        instead = ", or save .html instead" if ".html" in (*others, last) else ""
        raise InputError(f"--save {path} needs Pillow: pip install 'trm-mlx[view]'{instead}")


def save(recording: Recording, path: Path) -> None:
    """Write the picture or page that the suffix asks for; the file is whole or absent.

    Raises:
        InputError: as of `check_picture`, or the file cannot be written.
    """
    check_picture(path)
    module, name = _WRITERS[path.suffix.lower()]
    write = getattr(importlib.import_module(module), name)
    with output_file(path) as unfinished:
        write(recording, unfinished)
