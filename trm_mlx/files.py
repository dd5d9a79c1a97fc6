"""Files and folders: written whole or not at all, read only if regular; paths as people type them.

What is written is filled in a hidden folder beside the final place, which is locked meanwhile, then
flushed to disk and renamed. A killed process leaves the hidden folder behind unlocked, and the next
one that writes to that place removes it. Between the two renames of a replacement the old folder is
complete under the hidden name ``.NAME.replaced``, where `recover` finds it after a kill.

What others have sent may be a device or a named pipe, which would not end, or wait for a writer: it
is opened as a regular file, within a size, and checked by its checksum.
"""

import argparse
import errno
import fcntl
import glob
import hashlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from trm_mlx.errors import InputError, refusal

_ASIDE = ".partial-"  # in the names of the folders that are being filled
# They may be regular files, which keep their inode.
_OPEN_FILES = ("/dev/fd/", "/dev/std", "/proc/")
LARGEST_TEXT = 16 * 2**20  # bytes; a config.json or state.json has a few thousand
LARGEST_JSON = 2**30  # of the names of a dataset's puzzles: those of a million have 50 MB
_CHUNK = 2**20


@contextmanager
def atomic_folder(final: Path) -> Iterator[Path]:
    """Yield an empty folder to fill, which replaces ``final`` once the block has ended.

    If the block raises or the disk is full, ``final`` stays as it was.

    Raises:
        OSError: the folder cannot be written.
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
    """Put back the folder that a killed process was replacing; return whether there was one.

    Raises:
        OSError: the folder cannot be renamed.
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
    """Yield the path of a file to write, which becomes ``final`` once the block has ended.

    A symbolic link is followed and stays. What is not a regular file, such as ``/dev/stdout`` or a
    named pipe, is not replaced: the finished content is written into it.

    Raises:
        OSError: the file cannot be written.
    """
    if _is_special(final):
        with tempfile.TemporaryDirectory() as folder:
            unfinished = Path(folder, final.name)
            yield unfinished
            with unfinished.open("rb") as content, open(final, "ab", buffering=0) as target:
                shutil.copyfileobj(content, target)
        return
    final = Path(os.path.realpath(final))
    if final.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(final))
    final.parent.mkdir(parents=True, exist_ok=True)
    with _workspace_of(final) as workspace:
        unfinished = workspace / final.name
        yield unfinished
        _sync(unfinished)
        unfinished.rename(final)
        _sync(final.parent)


@contextmanager
def output_file(final: Path) -> Iterator[Path]:
    """`atomic_file` for a file that a person names; what MLX and PyTorch raise counts too.

    Raises:
        InputError: the file cannot be written.
    """
    try:
        with atomic_file(final) as unfinished:
            yield unfinished
    except (OSError, RuntimeError) as error:
        raise InputError(f"cannot write {final}: {refusal(error)}") from error


def write_text(final: Path, text: str) -> None:
    """Write a text file in UTF-8, which is whole or absent.

    Raises:
        InputError: it cannot be written.
    """
    with output_file(final) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def check_target(path: Path) -> None:
    """Check that a file could be written, before any work.

    Raises:
        InputError: its folder, or that which it links to, is missing, or it is a folder itself.
    """
    linked = path.is_symlink() and not _is_special(path)
    folder = Path(os.path.realpath(path)).parent if linked else path.parent
    if not folder.is_dir():
        raise InputError(f"{path}: there is no folder {folder}, create it first")
    if path.is_dir():
        raise InputError(f"{path} is a folder: name a file to write")


def is_any_of(path: Path, others: Iterable[str | Path]) -> bool:
    """Whether a path names the same file as one of ``others``, which need not be there."""
    return path.exists() and any(os.path.exists(o) and path.samefile(o) for o in others)


def _is_special(final: Path) -> bool:
    """Whether a path is a device, a pipe, a socket, or the name of an open file of a process."""
    if os.path.abspath(final).startswith(_OPEN_FILES):
        return True
    return final.exists() and not (final.is_file() or final.is_dir())


def remove_folder(folder: Path) -> None:
    """Delete a folder, which is complete up to the moment it is gone.

    Raises:
        OSError: the folder cannot be deleted.
    """
    with _workspace_of(folder) as workspace:
        folder.rename(workspace / "old")


def remove_stale(parent: Path, name: str = "*") -> None:
    """Remove what killed processes have left in ``parent`` of files and folders called ``name``.

    What cannot be removed stays.
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
            with suppress(OSError):  # a disk without locks, where nothing stale is removed
                fcntl.flock(lock, fcntl.LOCK_EX)
            if workspace.exists():  # nobody removed it before it was locked
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


# Reading


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading; a symbolic link to one is followed.

    Raises:
        OSError: it is missing, unreadable, or not a regular file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise OSError(errno.EINVAL, "it is a device or a pipe, not a regular file", str(path))


def read_text(path: Path) -> str:
    """Return the text of a regular file of at most `LARGEST_TEXT` bytes, in UTF-8.

    Raises:
        OSError: it cannot be opened, see `open_regular`, or is larger.
        UnicodeDecodeError: it is not UTF-8.
    """
    return read_bytes(path, LARGEST_TEXT).decode("utf-8")


def read_bytes(path: Path, most: int) -> bytes:
    """Return the content of a regular file of at most ``most`` bytes.

    Raises:
        OSError: it cannot be opened, see `open_regular`, or is larger.
    """
    with open_regular(path) as file:
        if os.fstat(file.fileno()).st_size > most:
            raise OSError(errno.EFBIG, f"it has more than {most:,} bytes", str(path))
        return file.read(most)


def is_open_file(path: Path, descriptor: int) -> bool:
    """Return whether a path still leads to the file that a descriptor was opened on."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except OSError:
        return False


def sha256(path: Path) -> str:
    """Return the SHA-256 of a regular file, in hexadecimal digits.

    Raises:
        OSError: it cannot be read.
    """
    digest, chunk = hashlib.sha256(), memoryview(bytearray(_CHUNK))
    with open_regular(path) as file:
        while count := file.readinto(chunk):
            digest.update(chunk[:count])
    return digest.hexdigest()


# Paths


def expand_path(text: str) -> str:
    """A path with ``~`` and ``$VAR`` replaced, as shells do, but not inside ``key=value``.

    What exists under this very name stays as it is.

    Raises:
        InputError: a variable that is not set, or a user that is not known.
    """
    if not (text.startswith("~") or "$" in text) or os.path.lexists(text):
        return text
    path = os.path.expanduser(os.path.expandvars(text))
    unset = re.search(r"\$\w+|\$\{\w+\}", path)
    if unset:
        raise InputError(f"{text}: the variable {unset[0]} is not set: set it, or write the path")
    if path.startswith("~"):
        raise InputError(f"{text}: no user of this name: write the path, or ./{text} for a folder")
    return path


def path_text(text: str) -> str:
    """The ``type`` of an option of ``argparse`` that is a path: see `expand_path`."""
    try:
        return expand_path(text)
    except InputError as error:  # argparse would leave out the words of a ValueError
        raise argparse.ArgumentTypeError(str(error)) from error


def path_type(text: str) -> Path:
    """`path_text` as a ``Path``."""
    return Path(path_text(text))
