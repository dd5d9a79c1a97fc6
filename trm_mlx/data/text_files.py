"""Text files as people have them: UTF-8 or UTF-16, perhaps zipped; and what is no text at all."""

import gzip
import io
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO, TextIO

from trm_mlx.errors import InputError

_MAGIC = {
    b"PK\x03\x04": "a zip archive or an Excel workbook: export the sheet as CSV",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook: export the sheet as CSV",
    b"\x89PNG": "a picture: write the puzzle as text",
    b"\xff\xd8\xff": "a picture: write the puzzle as text",
    b"%PDF": "a PDF: write the puzzle as text",
    b"\x93NUMPY": "a NumPy file: name it *.npy",
    b"PAR1": "a parquet file: name it *.parquet",
}


def open_text(path: Path) -> AbstractContextManager[TextIO]:
    """A text file in UTF-8 or UTF-16, perhaps zipped by gzip, with its line ends as they are.

    Characters that are not of the encoding are replaced, so that they spoil their own line alone.

    Raises:
        InputError: it cannot be read, or is no text.
    """
    return _opened(partial(path.open, "rb"), path)


def read_text(path: Path) -> str:
    """Read a whole text file; see `open_text`."""
    with open_text(path) as file:
        return file.read()


def decode(data: bytes, name: str) -> str:
    """Return bytes as text, as `open_text` does; ``name`` is for messages."""
    with _opened(partial(io.BytesIO, data), name) as file:
        return file.read()


@contextmanager
def _opened(open_file: Callable[[], BinaryIO], name: object) -> Iterator[TextIO]:
    try:
        with open_file() as file:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            content = gzip.GzipFile(fileobj=file) if packed else file
            start = content.read(4096)
            for magic, words in _MAGIC.items():
                if start.startswith(magic):
                    raise InputError(f"{name} is {words}")
            content.seek(0)
            with io.TextIOWrapper(content, _encoding(start), "replace", newline="") as text:
                yield text
    except FileNotFoundError as error:
        raise InputError(f"there is no file {name}: correct its name") from error
    except (OSError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or f"damaged, pack it again ({error})"
        raise InputError(f"cannot read {name}: {reason}") from error
    except EOFError as error:
        raise InputError(f"cannot read {name}: it is cut short") from error


def _encoding(start: bytes) -> str:
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    nulls = [start[place::2].count(0) for place in (0, 1)]
    if max(nulls) > len(start) // 4 and min(nulls) < max(nulls) // 4:
        return "utf-16-be" if nulls[0] > nulls[1] else "utf-16-le"
    return "utf-8-sig"
