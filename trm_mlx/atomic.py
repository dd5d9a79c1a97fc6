"""Folders and files that are whole or absent: filled aside, flushed to disk, renamed last.

Aside is a hidden folder beside the final place, locked while somebody fills it. A killed process
leaves it behind unlocked, and whoever writes to that place next clears it away. A folder that is
replaced is, between two renames, whole under the hidden name ``.NAME.replaced``; `recover` finds
it there after a kill.
"""

import fcntl
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_ASIDE = ".partial-"  # in the names of the folders that are being filled


@contextmanager
def atomic_folder(final: Path) -> Iterator[Path]:
    """An empty folder to fill, which takes the place of ``final`` once the block has ended.

    If the block raises, or the disk refuses, what was at ``final`` is there still, untouched.

    Raises:
        OSError: the disk refuses.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    recover(final)
    with _workspace_of(final) as workspace:
        finished = workspace / "new"
        finished.mkdir()
        yield finished
        for path in [*finished.rglob("*"), finished]:
            _sync(path)
        _move_into_place(finished, final)
        _sync(final.parent)
        if _replaced(final).exists():
            _replaced(final).rename(workspace / "old")


def recover(final: Path) -> bool:
    """Put back what a killed process was replacing; whether there was anything to put back.

    Raises:
        OSError: the disk refuses.
    """
    replaced = _replaced(final)
    if not replaced.exists():
        return False
    if final.exists():  # by what was to replace it
        remove_folder(replaced)
        return False
    try:
        replaced.rename(final)
    except FileNotFoundError:  # of several processes another was faster
        return final.exists()
    _sync(final.parent)
    return True


@contextmanager
def atomic_file(final: Path) -> Iterator[Path]:
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


def remove_stale(parent: Path, name: str = "*") -> None:
    """Clear away what killed processes were filling in ``parent``, to be called ``name``.

    What the disk does not let go of stays.
    """
    for leftover in parent.glob(f".{name}{_ASIDE}{'?' * 8}"):  # as mkdtemp has named it
        # Being filled, gone meanwhile, another user's, or on a disk that knows no locks.
        with suppress(OSError), _opened(leftover) as descriptor:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(leftover)


@contextmanager
def _workspace_of(final: Path) -> Iterator[Path]:
    remove_stale(final.parent, glob.escape(final.name))
    workspace, lock = _locked_workspace(final)
    try:
        yield workspace
    finally:
        shutil.rmtree(workspace, ignore_errors=True)
        os.close(lock)


def _locked_workspace(final: Path) -> tuple[Path, int]:
    """An empty folder, and the descriptor that holds its lock while it is open."""
    while True:
        # A sibling is on the same file system, so that the final rename is atomic.
        workspace = Path(tempfile.mkdtemp(prefix=f".{final.name}{_ASIDE}", dir=final.parent))
        with suppress(FileNotFoundError):
            lock = os.open(workspace, os.O_RDONLY)
            with suppress(OSError):  # a disk that knows no locks, where nobody sweeps either
                fcntl.flock(lock, fcntl.LOCK_EX)
            if workspace.exists():  # nobody swept it away before it was locked
                return workspace, lock
            os.close(lock)


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _replaced(final: Path) -> Path:
    return final.with_name(f".{final.name}.replaced")


def _move_into_place(finished: Path, final: Path) -> None:
    """Renames ``finished`` to ``final``, and what was there aside, or back on failure."""
    replaced = _replaced(final)
    try:
        if final.exists():
            final.rename(replaced)
        finished.rename(final)
    finally:
        if not final.exists() and replaced.exists():
            replaced.rename(final)
