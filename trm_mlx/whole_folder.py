"""Folders and files that are whole or absent: filled aside, flushed to disk, renamed last.

Aside is a hidden folder beside the final place, which a killed process leaves behind; `sweep`
clears such folders away.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_ASIDE = ".partial-"  # in the names of the folders that are being filled


@contextmanager
def whole_folder(final: Path) -> Iterator[Path]:
    """An empty folder to fill, which takes the place of ``final`` once the block has ended.

    If the block raises, or the disk refuses, what was at ``final`` is there still, untouched.

    Raises:
        OSError: the disk refuses.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    with _workspace_of(final) as workspace:
        finished = workspace / "new"
        finished.mkdir()
        yield finished
        for path in [*finished.rglob("*"), finished]:
            _sync(path)
        _move_into_place(finished, final, workspace / "old")
        _sync(final.parent)


@contextmanager
def whole_file(final: Path) -> Iterator[Path]:
    """The path of a file to write, which becomes ``final`` once the block has ended.

    Raises:
        OSError: the disk refuses.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    with _workspace_of(final) as workspace:
        unfinished = workspace / final.name
        yield unfinished
        _sync(unfinished)
        unfinished.rename(final)
        _sync(final.parent)


def remove_folder(folder: Path) -> None:
    """Delete a folder that is whole up to the moment it is gone.

    Raises:
        OSError: the disk refuses.
    """
    with _workspace_of(folder) as workspace:
        folder.rename(workspace / "old")


def sweep(parent: Path) -> None:
    """Clear away what killed processes were filling in ``parent``, where nobody else writes now.

    Raises:
        OSError: the disk refuses.
    """
    for leftover in parent.glob(f".*{_ASIDE}*"):
        shutil.rmtree(leftover)


@contextmanager
def _workspace_of(final: Path) -> Iterator[Path]:
    # A sibling is on the same file system, so that the final rename is atomic.
    workspace = Path(tempfile.mkdtemp(prefix=f".{final.name}{_ASIDE}", dir=final.parent))
    try:
        yield workspace
    finally:
        shutil.rmtree(workspace, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _move_into_place(finished: Path, final: Path, retired: Path) -> None:
    """Renames ``finished`` to ``final``; what was there goes to ``retired``, or back on failure."""
    replaces = final.exists()
    try:
        if replaces:
            final.rename(retired)
        finished.rename(final)
    finally:
        if replaces and not final.exists():
            retired.rename(final)
