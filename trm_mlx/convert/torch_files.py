"""State dicts in PyTorch's own file format, read without running anything pickled in them.

`torch.load` is only ever called with ``weights_only=True``. The one module besides `torch_model`
that imports torch, and only once a file or an option needs it.
"""

import re
import struct
import warnings
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from types import ModuleType
from typing import Any

import mlx.core as mx
import numpy as np

from trm_mlx.errors import InputError, shortened

# What `torch.load` was seen to raise for files cut short, overwritten, or of another kind.
DAMAGED = (
    UnpicklingError, struct.error, AssertionError, AttributeError, EOFError, LookupError,
    MemoryError, OverflowError, RuntimeError, TypeError, ValueError,
)  # fmt: skip
# Where training programs put the state dict when they save more than it: Lightning, then others.
WRAPPERS = ("state_dict", "model_state_dict", "model")
BESIDE = ("hyper_parameters", "callbacks")


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
    the latter as arrays.

    Raises:
        InputError: torch is missing, or the file is anything but tensors, numbers and text.
    """
    torch = import_torch("reading PyTorch files")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch guesses at the cause of errors in warnings
            content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except DAMAGED as error:
        # PyTorch's own message would advise to load the file without its protection.
        wanted = re.search(r"GLOBAL (\S+)", str(error))
        asks = f" (it asks to run {shortened(wanted[1])})" if wanted else ""
        raise InputError(
            f"{path} is not a whole PyTorch file of weights alone{asks}; anything else is refused, "
            "as loading it could execute code: save the model's state_dict()"
        ) from error
    state, beside = _unwrap(content)
    if not isinstance(state, Mapping) or not state or not all(isinstance(n, str) for n in state):
        raise InputError(f"{path} does not hold a state dict (names to tensors)")
    for name, value in state.items():
        if not isinstance(value, torch.Tensor):
            kind = type(value).__name__
            raise InputError(
                f"{path} does not hold a state dict: {shortened(name)} is {kind}, not a tensor"
            )
    beside = {key: _with_arrays(torch, path, value) for key, value in beside.items()}
    return {name: _array(torch, path, name, value) for name, value in state.items()}, beside


def _unwrap(content: Any) -> tuple[Any, dict[str, Any]]:
    for key in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            return content[key], {name: content[name] for name in BESIDE if name in content}
    return content, {}


def _with_arrays(torch: ModuleType, path: Path, value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return _array(torch, path, "a callback's tensor", value)
    if isinstance(value, Mapping):
        return {key: _with_arrays(torch, path, inner) for key, inner in value.items()}
    return value


def _array(torch: ModuleType, path: Path, name: str, value: Any) -> mx.array:
    if value.layout != torch.strided or value.is_quantized or value.device.type != "cpu":
        raise InputError(
            f"{path}: {shortened(name)} is not a plain dense tensor; save it as float32"
        )
    # A tensor may repeat few stored values endlessly; copying it out would fill the memory.
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise InputError(
            f"{path}: {shortened(name)} claims shape {shortened(tuple(value.shape))}, the file "
            "holds less"
        )
    value = value.detach()
    return mx.array((value.float() if value.is_floating_point() else value).numpy())


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
