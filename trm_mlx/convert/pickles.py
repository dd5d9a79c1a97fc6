"""Pickles gone through without making anything, before PyTorch is given them.

Its ``weights_only`` calls nothing but its own, and that is still enough to fill the memory: with
tensors of a size the file names, with text encoded again and again, and with error messages that
print lists of lists of the same list. So a pickle may only do here what weights need.
"""

import io
import pickle
import re
from typing import Any, ClassVar

CALLED = re.compile(
    r"collections\.(OrderedDict|Counter)|(__builtin__|builtins)\.set|torch\.(Size|device|sparse_coo)"
    r"|torch\.\w+Storage|torch\.storage\.UntypedStorage|torch\.(b?float|u?int)\d+"
    r"|torch\.serialization\._get_layout|torch\._utils\._rebuild_(tensor(_v[23])?|parameter)"
    r"|torch\._utils\._rebuild_sparse_tensor"
)
SCALAR = str | int | float | None


class Refused(Exception):
    """A pickle that is not one of weights, and what it asks for."""


def check_pickle(data: bytes) -> None:
    """Go through a pickle.

    Raises:
        Refused: it does what weights have no need of, or is none.
        Exception of pickle, EOFError, LookupError, TypeError, ...: it is damaged.
    """
    _Rehearsal(io.BytesIO(data)).load()


class _Name:
    """Stands for what a pickle calls by its name, which makes a ``_Made``."""


class _Made(dict):
    """Stands for what a call makes."""


class _Rehearsal(pickle._Unpickler):  # the one in C lets nobody see each step
    dispatch: ClassVar = {
        opcode[0]: pickle._Unpickler.dispatch[opcode[0]]
        for opcode in (
            pickle.PROTO, pickle.STOP, pickle.MARK, pickle.NONE, pickle.NEWFALSE, pickle.NEWTRUE,
            pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3, pickle.EMPTY_TUPLE,
            pickle.EMPTY_LIST, pickle.EMPTY_DICT, pickle.EMPTY_SET, pickle.APPEND, pickle.APPENDS,
            pickle.BININT, pickle.BININT1, pickle.BININT2, pickle.LONG1, pickle.BINFLOAT,
            pickle.BINUNICODE, pickle.SHORT_BINSTRING, pickle.BINPERSID, pickle.GLOBAL,
            pickle.BINGET, pickle.LONG_BINGET, pickle.BINPUT, pickle.LONG_BINPUT,
        )
    }  # fmt: skip

    def find_class(self, module: str, name: str) -> _Name:
        called = f"{module}.{name}"
        if not CALLED.fullmatch(called):
            raise Refused(f"it asks to run {called}")
        return _Name()

    def persistent_load(self, pid: Any) -> _Made:
        """A storage: its kind, its file in the archive, its place and its length."""
        if not isinstance(pid, tuple) or not all(isinstance(p, SCALAR | _Name) for p in pid):
            raise Refused("it asks for what is no tensor")
        return _Made()

    def _call(self) -> None:
        self.stack.pop()
        if not isinstance(self.stack.pop(), _Name):
            raise Refused("it asks to run what has no name")
        self.append(_Made())

    def _build(self) -> None:
        self.stack.pop()
        if not isinstance(self.stack[-1], _Made):
            raise Refused("it asks to change what is no tensor")

    def _set_items(self) -> None:
        items = self.pop_mark()
        self._put(items[::2], items[1::2])

    def _set_item(self) -> None:
        value = self.stack.pop()
        self._put([self.stack.pop()], [value])

    def _put(self, keys: list, values: list) -> None:
        if not all(isinstance(key, SCALAR) for key in keys):  # a tuple of tuples takes for ever
            raise Refused("it names values by other than words and numbers")
        self.stack[-1].update(zip(keys, values, strict=True))

    dispatch |= {
        pickle.REDUCE[0]: _call,
        pickle.BUILD[0]: _build,
        pickle.SETITEM[0]: _set_item,
        pickle.SETITEMS[0]: _set_items,
    }
