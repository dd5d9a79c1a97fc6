"""Reads and checks files that others have sent: regular ones alone, within a size, by checksum.

A device or a named pipe in their place would not end, or wait for a writer.
"""

import errno
import hashlib
import os
import stat
from pathlib import Path
from typing import BinaryIO

LARGEST_TEXT = 16 * 2**20  # bytes; a config.json or state.json has a few thousand
_CHUNK = 2**20


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


def read_text(path: Path, most: int = LARGEST_TEXT) -> str:
    """Return the text of a regular file of at most ``most`` bytes, in UTF-8.

    Raises:
        OSError: it cannot be opened, see `open_regular`, or is larger.
        UnicodeDecodeError: it is not UTF-8.
    """
    with open_regular(path) as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise OSError(errno.EFBIG, f"it has more than {most:,} bytes", str(path))
    return data.decode("utf-8")


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
