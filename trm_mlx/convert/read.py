"""Reads checkpoint files into named arrays: PyTorch, safetensors, in shards too, and npz.

The first bytes of a file tell its kind, so its name needs no suffix. Nothing in a file is executed,
and the sizes it claims are checked against its own before anything is allocated.
"""

import dataclasses
import json
import math
import os
import re
import struct
import warnings
import zipfile
import zlib
from pathlib import Path
from tokenize import TokenError
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np
from safetensors import SafetensorError, safe_open

from trm_mlx.config import ModelConfig
from trm_mlx.config_io import load_yaml
from trm_mlx.convert.names import check_family, published_names
from trm_mlx.convert.torch_files import read_torch
from trm_mlx.errors import InputError
from trm_mlx.files import open_regular, read_text
from trm_mlx.models.variants import VARIANTS

# Four times the largest published checkpoint, ARC's with its table of puzzles.
LARGEST_BYTES = 8 * 2**30
MOST_PACKED = 20  # unpacked size over file size; weights hardly compress
LARGEST_PICKLE = 16 * 2**20  # 39 tensors need 6 kB
# What zipfile and NumPy raise for archives cut short, overwritten, encrypted, or oddly packed.
DAMAGED = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, LookupError, MemoryError,
    NotImplementedError, OSError, RuntimeError, SyntaxError, TokenError, TypeError, ValueError,
)  # fmt: skip


class Checkpoint(NamedTuple):
    """Arrays under the published names, without prefix.

    ``settings`` are the fields of a ``ModelConfig`` that the file itself states; each of ``notes``
    is a line about what was done to the arrays.
    """

    weights: dict[str, mx.array]
    settings: dict[str, Any]
    notes: list[str]


INDEX = ".safetensors.index.json"
# First bytes of what people have in place of weights, in small letters.
OTHERS = (
    (b"version https://git-lfs", "a Git LFS pointer, not the weights: run git lfs pull"),
    (b"<!doctype html", "a web page, not the weights: download the file itself"),
    (b"<html", "a web page, not the weights: download the file itself"),
    (b"<?xml", "an XML page, not the weights: download the file itself"),
    (b"\x1f\x8b", "packed with gzip: unpack it first"),
    (b"bzh", "packed with bzip2: unpack it first"),
    (b"\xfd7zxz", "packed with xz: unpack it first"),
    (b"\x28\xb5\x2f\xfd", "packed with zstd: unpack it first"),
    (
        b"\x80\x02\x8a\nl\xfc\x9cf\xf9 j\xa8p\x19.",
        "a file of PyTorch before 1.6: load it with a newer one and save its state_dict() again",
    ),
    (b"gguf", "a GGUF file, for llama.cpp: name the PyTorch or safetensors file it was made of"),
    (b"\x89hdf", "an HDF5 file, as Keras writes: save the model's state_dict() with torch.save"),
    (b"entry not found", "what a hub says of a missing file: download the weights again"),
    (b"rar!", "a RAR archive: unpack it first"),
    (b"7z\xbc\xaf", "a 7-Zip archive: unpack it first"),
    (b"{", "JSON text, not the weights: name the file of weights beside it"),
)


def read_checkpoint(path: Path, key: str | None = None) -> Checkpoint:
    """Read a file of weights of any kind.

    Args:
        path: the file, or the index of a safetensors file in shards.
        key: where in the file the state dict is, such as ``ema.shadow``; by default the usual
            places, with averaged weights beside the model in place of the last ones.

    Raises:
        InputError: the file is missing, damaged, hostile or of another kind, or holds a model that
            cannot be converted.
    """
    kind = "safetensors" if path.name.endswith(INDEX) else _kind(path)
    beside: dict[str, Any] = {}
    if kind == "PyTorch":
        arrays, beside = read_torch(path, key)
    else:
        arrays = _read_safetensors(path) if kind == "safetensors" else _read_npz(path)
        if key is not None:
            arrays = {n: array for n, array in arrays.items() if n.startswith(f"{key}.")}
            if not arrays:
                raise InputError(f"{path}: no array is called {key}.something, as --key asks")
            arrays = {name.removeprefix(f"{key}."): array for name, array in arrays.items()}
    weights, settings, notes = published_names(arrays, beside, str(path))
    check_family(weights, str(path), whole=key is None)
    for name, array in weights.items():
        if not mx.issubdtype(array.dtype, mx.floating):
            raise InputError(f"{path}: {name} holds {array.dtype}; only floating point converts")
        if not mx.isfinite(array).all():
            raise InputError(f"{path}: {name} holds values that are not finite numbers")
    return Checkpoint(weights, settings, [f"{path}: {kind} file", *notes])


def _kind(path: Path) -> str:
    """PyTorch, safetensors or npz, by content."""
    try:
        with open_regular(path) as file:
            start = file.read(64)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    if start.startswith(b"PK\3\4"):
        return _kind_of_archive(path)
    if start[8:9] == b"{":
        return "safetensors"
    for first, what in OTHERS:
        if start.lstrip().lower().startswith(first):
            raise InputError(f"{path} is {what}")
    what = "is empty" if not start else "holds no weights that are known here"
    raise InputError(
        f"{path} {what}: expected weights as torch.save writes them, .safetensors or .npz; plain "
        "pickles are refused, as loading them could execute code"
    )


def _kind_of_archive(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            _check_sizes(path, entries)
            damaged = archive.testzip()  # PyTorch writes check sums, but ignores them
        directory_in_place = _is_directory_last(path)
    except InputError:
        raise
    except DAMAGED as error:
        raise InputError(f"{path} is cut short or damaged: copy it again") from error
    if damaged:
        raise InputError(f"{path} is damaged: the check sum of {damaged} is wrong; copy it again")
    names = [entry.filename for entry in entries]
    # Readers differ in which of two such entries, names or directories they take.
    if len({name.lower() for name in names}) < len(names):
        raise InputError(f"{path} holds two entries of one name: save it again")
    if any(entry.filename != entry.orig_filename for entry in entries):
        raise InputError(f"{path} holds an entry of two names: save it again")
    if not directory_in_place:
        raise InputError(f"{path} has its directory not at its end: save it again")
    # PyTorch takes the one in the folder of the first entry, in letters of any case.
    pickles = [name for name in names if _is_pickle(name)]
    if pickles == [f"{names[0].partition('/')[0]}/data.pkl"]:
        return "PyTorch"
    if names and all(name.endswith(".npy") for name in names):
        return "npz"
    raise InputError(f"{path} is an archive, but neither a PyTorch file nor an .npz of arrays")


def _is_pickle(name: str) -> bool:
    return name.lower().endswith("data.pkl")


def _is_directory_last(path: Path) -> bool:
    """Whether the end records of an archive, the file's last bytes, follow its directory."""
    size = path.stat().st_size
    with open_regular(path) as file:
        file.seek(-min(size, 98), os.SEEK_END)
        tail = file.read()
    _, _, _, _, _, length, offset, comment = struct.unpack("<4s4H2LH", tail[-22:])
    records = 22
    if tail[-42:-38] == b"PK\6\7":  # the record for sizes beyond 4 GiB, and where it is
        records = 98
        (record,) = struct.unpack("<8xQ4x", tail[-42:-22])
        signature, length, offset = struct.unpack("<4s36x2Q", tail[:56])
        if signature != b"PK\6\6" or record != size - records:
            return False
    return tail[-22:-18] == b"PK\5\6" and comment == 0 and offset + length == size - records


def _check_sizes(path: Path, entries: list[zipfile.ZipInfo]) -> None:
    unpacked = sum(entry.file_size for entry in entries)
    pickles = [entry for entry in entries if entry.filename.lower().endswith(".pkl")]
    pickled = sum(entry.file_size for entry in pickles)
    if unpacked > LARGEST_BYTES or pickled > LARGEST_PICKLE:
        raise InputError(
            f"{path} unpacks to {unpacked:,} bytes, {pickled:,} of them a pickle; refused above "
            f"{LARGEST_BYTES:,} and {LARGEST_PICKLE:,}: no published model is as large"
        )
    size = path.stat().st_size
    if pickles and unpacked > size:
        raise InputError(f"{path} is compressed, which torch.save never does: save it again")
    if unpacked > MOST_PACKED * size:
        raise InputError(
            f"{path} unpacks to {unpacked:,} bytes from {size:,}: save it uncompressed"
        )


def _read_safetensors(path: Path) -> dict[str, mx.array]:
    if path.name.endswith(INDEX):
        return _read_shards(path)
    try:
        with safe_open(path, "numpy") as file:  # checks the header against the file
            kinds = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
        for name, kind in kinds.items():
            if kind not in ("F32", "F16", "BF16", "I32", "I64"):
                raise InputError(f"{path}: {name} holds {kind}; save it as F32, F16 or BF16")
        return mx.load(str(path), format="safetensors")
    except (SafetensorError, OSError, RuntimeError) as error:
        raise InputError(f"{path} is not a whole safetensors file: {error}") from error


def _read_shards(index: Path) -> dict[str, mx.array]:
    """Read the files that an index names, all in its folder; together they hold what it lists."""
    try:
        listed = json.loads(read_text(index))["weight_map"]
        shards = sorted({str(name) for name in listed.values()})
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{index} is no index of safetensors files ({error})") from error
    arrays: dict[str, mx.array] = {}
    for shard in shards:
        if shard != Path(shard).name:
            raise InputError(f"{index} names {shard}, which is not in its folder")
        path = index.with_name(shard)
        if _kind(path) != "safetensors":
            raise InputError(f"{path} is not a safetensors file, as {index.name} says")
        arrays |= _read_safetensors(path)
    if wrong := sorted(listed.keys() ^ arrays.keys()):
        raise InputError(f"{index} and its files differ in {', '.join(wrong)}: copy them again")
    return arrays


def _read_npz(path: Path) -> dict[str, mx.array]:
    arrays = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                name = entry.filename.removesuffix(".npy")
                with archive.open(entry) as stream:
                    arrays[name] = _read_npy(stream, entry.file_size, f"{path}: {name}")
    except InputError:
        raise
    except DAMAGED as error:
        raise InputError(f"{path} is not a whole .npz file: {error}") from error
    return arrays


def _read_npy(stream: Any, size: int, place: str) -> mx.array:
    """Read one array, whose header must claim the bytes that follow it."""
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0
    if version != (1, 0):
        read = np.lib.format.read_array_header_2_0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of headers that Python 2 wrote, such as "1L"
        shape, fortran, dtype = read(stream)
    if dtype.kind not in "fiu":
        raise InputError(f"{place} holds {dtype} values; numbers convert, pickled objects never")
    if math.prod(shape) * dtype.itemsize != size - stream.tell() or min(shape, default=0) < 0:
        raise InputError(f"{place} claims shape {shape}, the file holds {size:,} bytes of it")
    values = np.frombuffer(stream.read(), dtype).reshape(shape, order="F" if fortran else "C")
    return mx.array(values.astype(np.float32) if dtype.kind == "f" else values)


# Options of the published code that are constants here: another value is another model.
CONSTANTS = {"rope_theta": 10000, "rms_norm_eps": 1e-5}


def read_published_config(path: Path) -> dict[str, Any]:
    """Read the architecture of ``all_config.yaml`` or of a ``config.json``, ``arch`` or flat.

    ``forward_dtype``, what the shapes say better and what is unknown here are left out.

    Raises:
        InputError: there is no such file, or a constant has another value than here.
    """
    values = load_yaml(path)
    values = values if isinstance(values, dict) else {}
    arch = values["arch"] if isinstance(values.get("arch"), dict) else values
    known = {field.name for field in dataclasses.fields(ModelConfig)}
    known -= {"forward_dtype", "name", "num_puzzle_identifiers", "vocab_size"}
    for name, value in CONSTANTS.items():
        if str(arch.get(name, value)) not in (str(value), str(float(value))):
            raise InputError(f"{path}: arch.{name}={arch[name]}; ours is always {value}")
    chosen = {key: value for key, value in arch.items() if key in known}
    match = re.fullmatch(r"(?:recursive_reasoning\.)?(\w+?)(?:@\w+)?", str(arch.get("name")))
    if match and match[1] in VARIANTS:
        chosen["name"] = match[1]
    return chosen
