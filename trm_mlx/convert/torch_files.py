"""State dicts in PyTorch's own file format, read without running anything pickled in them.

`torch.load` is only ever called with ``weights_only=True``. The one module besides `torch_model`
that imports torch, and only once a file or an option needs it.
"""

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

from trm_mlx.convert.pickles import Refused, check_pickle
from trm_mlx.errors import InputError

# What `torch.load` was seen to raise for files cut short, overwritten, or of another kind.
DAMAGED = (
    UnpicklingError, struct.error, AssertionError, AttributeError, EOFError, LookupError,
    MemoryError, OverflowError, RuntimeError, TypeError, ValueError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
# Where training programs put the state dict when they save more than it: Lightning, then others.
WRAPPERS = ("state_dict", "model_state_dict", "model")
BESIDE = ("hyper_parameters", "callbacks")
# How often its tensors may share what a file stores.
SHARED = 2


def import_torch(purpose: str) -> ModuleType:
    """The torch module.

    Raises:
        InputError: it is not installed; ``purpose`` says what needs it.
    """
    try:
        import torch
    except ImportError as error:
        raise InputError(f"{purpose} needs torch: pip install 'trm-mlx[convert]'") from error
    return torch


def read_torch(path: Path) -> tuple[dict[str, mx.array], dict[str, Any]]:
    """The arrays of a state dict under the names they have in the file.

    Also returns what Lightning puts beside it: ``hyper_parameters`` and ``callbacks``, tensors in
    them as arrays.

    Raises:
        InputError: torch is missing, or the file is anything but tensors, numbers and text.
    """
    torch = import_torch("reading PyTorch files")
    try:
        _check_pickles(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch guesses at the cause of errors in warnings
            content = torch.load(path, map_location="cpu", weights_only=True)
        mappings = _mappings(_unwrapped(torch, path, content))
        _check_tensors(torch, path, mappings)
        state, *beside = _with_arrays(torch, mappings)[0].values()
        return state, dict(zip(BESIDE, beside, strict=True))
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except Refused as error:
        raise _refused(path, f" ({error})") from error
    except DAMAGED as error:  # of which PyTorch's own advises to load without its protection
        raise _refused(path) from error


def _refused(path: Path, asks: str = "") -> InputError:
    return InputError(
        f"{path} is not a whole PyTorch file of weights alone{asks}; anything else is refused, "
        "as loading it could execute code: save the model's state_dict()"
    )


def _check_pickles(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.endswith(".pkl"):
                check_pickle(archive.read(name))


def _unwrapped(torch: ModuleType, path: Path, content: Any) -> dict[str, Any]:
    """The state dict, checked, as ``state``, and what is beside it."""
    state, beside = content, {}
    for key in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            state, beside = content[key], content
            break
    if not isinstance(state, dict) or not state or not all(isinstance(n, str) for n in state):
        raise InputError(f"{path} does not hold a state dict (names to tensors)")
    for name, value in state.items():
        if not isinstance(value, torch.Tensor):
            kind = type(value).__name__
            raise InputError(f"{path} does not hold a state dict: {name} is {kind}, not a tensor")
    return {"state": state, **{name: beside.get(name) for name in BESIDE}}


def _mappings(root: dict) -> list[dict]:
    """All that are in it, each once: a file may repeat one endlessly, or within itself."""
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
            # One may repeat few stored values endlessly; copying it out would fill the memory.
            size = value.numel() * value.element_size()
            if size > value.untyped_storage().nbytes():
                raise InputError(
                    f"{path}: {name} claims shape {tuple(value.shape)}, the file holds less"
                )
            claimed += size
    stored = path.stat().st_size
    if claimed > SHARED * stored:  # and many may show the same
        raise InputError(
            f"{path} claims tensors of {claimed:,} bytes and has {stored:,}: save it again"
        )


def _with_arrays(torch: ModuleType, mappings: list[dict]) -> list[dict]:
    """Copies of the mappings, one within the other as they were, with arrays for tensors."""
    copies = {id(mapping): {} for mapping in mappings}
    for mapping in mappings:
        for name, value in mapping.items():
            if isinstance(value, torch.Tensor):
                value = value.detach()
                value = mx.array((value.float() if value.is_floating_point() else value).numpy())
            copies[id(mapping)][name] = copies.get(id(value), value)
    return list(copies.values())


def write_torch(path: Path, weights: Mapping[str, mx.array], halved: frozenset[str]) -> None:
    """Write a state dict as `torch.save` does: float32, those named in ``halved`` bfloat16.

    Raises:
        InputError: torch is missing.
        OSError, RuntimeError: the disk refuses.
    """
    torch = import_torch("writing PyTorch files")
    state = {}
    for name, array in weights.items():
        tensor = torch.from_numpy(np.array(array.astype(mx.float32)))
        state[name] = tensor.bfloat16() if name in halved else tensor
    torch.save(state, path)
