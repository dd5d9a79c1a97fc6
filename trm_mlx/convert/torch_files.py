"""Reads and writes state dicts in PyTorch's own file format, without running pickled code.

``torch.load`` is only ever called with ``weights_only=True``, after the names that a pickle calls
have been checked: PyTorch allows some that let a file of a few bytes ask for gigabytes. Torch is
imported only when a file or an option needs it.
"""

import pickletools
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from types import ModuleType
from typing import Any

import mlx.core as mx
import numpy as np

from trm_mlx.errors import InputError

# What a pickle of weights calls. ``weights_only`` also allows ``bytearray``, ``torch.Tensor`` and
# ``_codecs.encode``, which allocate any size the file names.
CALLED = re.compile(
    r"collections (OrderedDict|Counter)|(__builtin__|builtins) set|torch (Size|device|sparse_coo)"
    r"|torch \w+Storage|torch\.storage UntypedStorage|torch (b?float|u?int)\d+"
    r"|torch\.serialization _get_layout|torch\._utils _rebuild_(tensor(_v[23])?|parameter)"
    r"|torch\._utils _rebuild_sparse_tensor"
)
# The opcodes of such a pickle and what each leaves on the stack; those in TAKES pop operands.
LEAVES = {
    **dict.fromkeys(
        ("NONE", "NEWFALSE", "NEWTRUE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT",
         "BINUNICODE", "SHORT_BINSTRING"), "scalar",
    ),
    **dict.fromkeys(("EMPTY_LIST", "EMPTY_DICT", "EMPTY_SET"), "container"),
    **dict.fromkeys(("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"), "tuple"),
    **dict.fromkeys(("REDUCE", "BINPERSID"), "object"),
    **dict.fromkeys(("PROTO", "STOP", "BUILD", "SETITEM", "SETITEMS", "APPEND", "APPENDS"), None),
    "GLOBAL": "name",
}  # fmt: skip
TAKES = {
    "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3, "BINPERSID": 1, "BUILD": 1, "APPEND": 1, "REDUCE": 2,
    "SETITEM": 2,
}  # fmt: skip
# What ``torch.load`` raises for files cut short, overwritten, or of another kind.
DAMAGED = (
    UnpicklingError, struct.error, AssertionError, AttributeError, EOFError, LookupError,
    MemoryError, OverflowError, RuntimeError, TypeError, ValueError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
# Keys of the state dict in files that hold more than it: Lightning's first.
WRAPPERS = ("state_dict", "model_state_dict", "model")
BESIDE = ("hyper_parameters", "callbacks", "average")
# Keys of averaged weights beside them, as they are or below "shadow".
AVERAGES = ("ema_helper", "ema", "ema_state_dict", "model_ema", "ema_model")
_AVERAGE = re.compile(r"(^|[._])(ema|swa|averaged?|shadow)([._]|$)", re.IGNORECASE)
# How many times the size of the file its tensors may have together, as they can share storage.
SHARED = 2


def import_torch(purpose: str) -> ModuleType:
    """Import torch, which ``purpose`` needs.

    Raises:
        InputError: torch is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise InputError(f"{purpose} needs torch: pip install 'trm-mlx[convert]'") from error
    return torch


def read_torch(path: Path, key: str | None = None) -> tuple[dict[str, mx.array], dict[str, Any]]:
    """Read the arrays of a state dict under the names they have in the file.

    Args:
        path: the file.
        key: where in the file the state dict is; by default the usual places.

    Returns:
        The arrays, and what is beside them, with arrays for tensors: Lightning's
        ``hyper_parameters`` and ``callbacks``, and the ``average``, with the ``key`` of the state
        dict and the ``average_key``.

    Raises:
        InputError: torch is missing, or the file holds more than tensors, numbers and text.
    """
    torch = import_torch("reading PyTorch files")
    try:
        with zipfile.ZipFile(path) as archive:
            (name,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
            check_pickle(archive.read(name))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch guesses at the cause of errors in warnings
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        found, keys = _unwrapped(torch, path, content, key)
        mappings = _mappings(found)
        _check_tensors(torch, path, mappings)
        state, *beside = _with_arrays(torch, mappings)[0].values()
        return state, dict(zip(BESIDE, beside, strict=True)) | keys
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except Refused as error:
        raise _not_weights(path, f" ({error})") from error
    except DAMAGED as error:  # whose text may advise to load the file unprotected
        raise _not_weights(path) from error


def _not_weights(path: Path, reason: str = "") -> InputError:
    return InputError(
        f"{path} is not a whole PyTorch file of weights alone{reason}; anything else is refused, "
        "as loading it could execute code: save the model's state_dict()"
    )


class Refused(Exception):
    """A pickle holds something that weights do not need; the message names it."""


def check_pickle(data: bytes) -> None:
    """Walk the opcodes of a pickle with a stack of kinds of values, without building any value.

    Only the functions of ``CALLED`` may be called, only their results changed, storages are named
    by flat tuples and dictionary keys are scalars. Otherwise a tuple of the same tuple twice, and
    so on, takes exponential time and memory to hash or to print in an error message.

    Raises:
        Refused: an opcode, a name or an operand that no pickle of weights has.
        ValueError, LookupError: the pickle is damaged.
    """
    stack: list[str] = []
    marks: list[int] = []
    memo: dict[int, str] = {}
    for opcode, argument, _ in pickletools.genops(data):
        name = opcode.name
        if name == "MARK":
            marks.append(len(stack))
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name not in LEAVES:
            raise Refused(f"it holds the opcode {name}")
        else:
            start = len(stack) - TAKES.get(name, 0)
            if name in ("TUPLE", "APPENDS", "SETITEMS"):
                start = marks.pop()
            if start < 0:
                raise LookupError("the stack is empty")
            operands, stack = stack[start:], stack[:start]
            _check_operands(name, argument, operands, stack)
            kind = LEAVES[name]
            if kind == "tuple" and set(operands) - {"scalar", "name"}:
                kind = "container"
            if kind:
                stack.append(kind)


def _check_operands(name: str, argument: str, operands: list[str], stack: list[str]) -> None:
    if name == "GLOBAL" and not CALLED.fullmatch(argument):
        raise Refused(f"it asks to run {argument.replace(' ', '.', 1)}")
    if name == "REDUCE" and operands[0] != "name":
        raise Refused("it asks to run what has no name")
    if name == "BINPERSID" and operands != ["tuple"]:
        raise Refused("it asks for what is no tensor")
    if name == "BUILD" and stack[-1] != "object":
        raise Refused("it asks to change what is no tensor")
    if name.startswith("SETITEM") and set(operands[::2]) - {"scalar"}:
        raise Refused("it names values by other than words and numbers")


def _unwrapped(
    torch: ModuleType, path: Path, content: Any, key: str | None
) -> tuple[dict[str, Any], dict[str, str]]:
    """Find and check the state dict: returned as ``state``, with what is beside it, and the keys.

    Raises:
        InputError: there is none, or another than ``key`` asks for.
    """
    state, beside, keys = content, {}, {}
    if key is not None:
        for part in key.split("."):
            state = state.get(part) if isinstance(state, dict) else None
        if not isinstance(state, dict):
            raise InputError(f"{path} holds no state dict at --key {key}{_candidates(content)}")
    else:
        for wrapper in WRAPPERS:
            if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
                state, beside, keys = content[wrapper], dict(content), {"key": wrapper}
                break
    if not isinstance(state, dict) or not state or not all(isinstance(n, str) for n in state):
        raise InputError(
            f"{path} does not hold a state dict (names to tensors){_candidates(content)}"
        )
    for name, value in state.items():
        if not isinstance(value, torch.Tensor):
            kind = type(value).__name__
            raise InputError(
                f"{path} does not hold a state dict: {name} is {kind}, not a tensor"
                f"{_candidates(content)}"
            )
    beside["average"] = None
    for name in AVERAGES:
        average = beside.get(name)
        average = average.get("shadow", average) if isinstance(average, dict) else None
        if not isinstance(average, dict):
            continue
        tensors = {
            n: v for n, v in average.items() if isinstance(n, str) and isinstance(v, torch.Tensor)
        }
        if tensors:
            beside["average"] = tensors
            keys["average_key"] = name if average is beside[name] else f"{name}.shadow"
            break
    if keys and not beside["average"]:
        named = [str(name) for name, value in content.items() if value and value is not state]
        keys["not_taken"] = [name for name in named if _AVERAGE.search(name)]
    return {"state": state, **{name: beside.get(name) for name in BESIDE}}, keys


def _candidates(content: Any) -> str:
    """Name the mappings of a file, the end of a message."""
    if not isinstance(content, dict):
        return ""
    named = [key for key, value in content.items() if isinstance(value, dict) and value]
    return f"; --key names it, one of {', '.join(map(str, named[:8]))}" if named else ""


def _mappings(root: dict) -> list[dict]:
    """Collect the mappings inside ``root``, each once: they may contain each other."""
    found, waiting = {id(root): root}, [root]
    while waiting:
        for value in waiting.pop().values():
            if isinstance(value, dict) and id(value) not in found:
                found[id(value)] = value
                waiting.append(value)
    return list(found.values())


def _check_tensors(torch: ModuleType, path: Path, mappings: list[dict]) -> None:
    claimed = 0
    for mapping in mappings:
        for name, value in mapping.items():
            if not isinstance(value, torch.Tensor):
                continue
            if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
                raise InputError(f"{path}: {name} is not a plain dense tensor; save it as float32")
            # An expanded tensor repeats a few stored values; copying it could fill the memory.
            size = value.numel() * value.element_size()
            if size > value.untyped_storage().nbytes():
                raise InputError(
                    f"{path}: {name} claims shape {tuple(value.shape)}, the file holds less"
                )
            claimed += size
    stored = path.stat().st_size
    if claimed > SHARED * stored:  # as many tensors may share one storage
        raise InputError(
            f"{path} claims tensors of {claimed:,} bytes and has {stored:,}: save it again"
        )


def _with_arrays(torch: ModuleType, mappings: list[dict]) -> list[dict]:
    """Copy the mappings, nested as they are, with arrays for tensors."""
    copies = {id(mapping): {} for mapping in mappings}
    for mapping in mappings:
        for name, value in mapping.items():
            if isinstance(value, torch.Tensor):
                value = value.detach()
                value = mx.array((value.float() if value.is_floating_point() else value).numpy())
            copies[id(mapping)][name] = copies.get(id(value), value)
    return list(copies.values())


def write_torch(path: Path, weights: Mapping[str, mx.array], halved: frozenset[str]) -> None:
    """Write a state dict as ``torch.save`` does: float32, those named in ``halved`` bfloat16.

    Raises:
        InputError: torch is missing.
        OSError, RuntimeError: the file cannot be written.
    """
    torch = import_torch("writing PyTorch files")
    state = {}
    for name, array in weights.items():
        tensor = torch.from_numpy(np.array(array.astype(mx.float32)))
        state[name] = tensor.bfloat16() if name in halved else tensor
    torch.save(state, path)
