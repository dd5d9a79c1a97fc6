"""Targets of fuzz.py: files of strangers' weights through the converter, whole and by their parts.

A file's check sums stop most damage to the whole, so pickles and array headers are also damaged
before they are packed. While one is read nothing may be started, made or removed.
"""

import importlib.util
import io
import pickle
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import trm_mlx  # noqa: F401  isort: skip
import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

from trm_mlx import arch_config
from trm_mlx.config import ModelConfig
from trm_mlx.convert.infer import infer_config
from trm_mlx.convert.nano_trm import RENAMED
from trm_mlx.convert.read import read_checkpoint
from trm_mlx.models.model import build_model

ACTS = (
    "os.exec", "os.mkdir", "os.posix_spawn", "os.remove", "os.rename", "os.system", "os.truncate",
    "shutil.rmtree", "socket.connect", "subprocess.Popen",
)  # fmt: skip
Target = tuple[Callable[[bytes], object], list[bytes]]


class Call:
    """Pickles as a call."""

    def __init__(self, function: Callable, *arguments: object):
        self.call = function, arguments

    def __reduce__(self) -> tuple:
        return self.call


def converter_targets(folder: Path) -> dict[str, Target]:
    """Readers, each with the good inputs that mutation starts from."""
    folder.mkdir()
    arch = arch_config("trm", hidden_size=8, num_heads=1, L_layers=1, puzzle_emb_ndim=0)
    config = ModelConfig.of(arch, seq_len=4, vocab_size=5, num_puzzle_identifiers=1)
    arrays = {n: np.array(a) for n, a in tree_flatten(build_model(config).parameters())}
    read = _watched(folder / "input")

    mx.save_safetensors(str(folder / "a.safetensors"), {n: mx.array(a) for n, a in arrays.items()})
    np.savez(folder / "a.npz", **arrays)
    npz = _entries((folder / "a.npz").read_bytes())
    found = {
        "weights safetensors": (read, [(folder / "a.safetensors").read_bytes()]),
        "weights npz": (read, [(folder / "a.npz").read_bytes()]),
        "weights npy": (
            lambda data: read(_archive({**npz, "lm_head.weight.npy": data})),
            [npz["lm_head.weight.npy"]],
        ),
    }
    return found | _torch_targets(arrays, read) if importlib.util.find_spec("torch") else found


def _torch_targets(arrays: dict[str, np.ndarray], read: Callable) -> dict[str, Target]:
    import torch

    state = {name: torch.tensor(array) for name, array in arrays.items()}
    nano = {}
    for name, tensor in state.items():
        theirs = [(name.replace(o, t, 1)) for t, o in RENAMED.items() if name.startswith(o)]
        nano[theirs[0] if theirs else name] = tensor
    hyper = {"hidden_size": 8, "num_heads": 1, "H_cycles": 2, "rope_theta": 10000, "seq_len": 4}
    itself, laughs = dict(hyper), dict(hyper)
    itself["again"] = itself
    for _ in range(64):
        laughs = {"a": laughs, "b": laughs}
    shadow = {"EMACallback": {"shadow": dict(nano), "decay": 0.999}}
    contents = [
        state,
        {"state_dict": nano, "hyper_parameters": hyper, "callbacks": shadow},
        {"state_dict": nano, "hyper_parameters": itself, "callbacks": laughs},
        {"model": {"w": torch.zeros(1).expand(10**6, 10**6)}},
        {**state, "a": Call(torch.Tensor, 10**5, 10**5), "b": Call(bytearray, 10**11)},
        {**state, "a": Call(sys.modules["os"].mkdir, "executed")},
    ]
    files = [io.BytesIO() for _ in contents]
    for file, content in zip(files, contents, strict=True):
        torch.save(content, file)
    seeds = [file.getvalue() for file in files]
    parts = _entries(seeds[1])
    (name,) = (name for name in parts if name.endswith("/data.pkl"))
    pickles = [
        data for seed in seeds for n, data in _entries(seed).items() if n.endswith("/data.pkl")
    ]
    pickles.append(pickle.dumps({"a": Call(sys.modules["os"].mkdir, "executed")}, 2))
    return {
        "weights pth": (read, seeds),
        "weights pickle": (lambda data: read(_archive({**parts, name: data})), pickles),
    }


def _watched(path: Path) -> Callable[[bytes], None]:
    """The converter's reader of bytes, which may do nothing but read."""
    acts: list[str] = []
    watching = False

    def hook(event: str, _: tuple) -> None:
        if watching and event in ACTS:
            acts.append(event)

    sys.addaudithook(hook)

    def read(data: bytes) -> None:
        nonlocal watching
        path.write_bytes(data)
        acts.clear()
        watching = True
        try:
            checkpoint = read_checkpoint(path)
            infer_config(checkpoint.weights, checkpoint.settings)
        finally:
            watching = False
            if acts:
                raise AssertionError(f"a file of weights caused {acts}")

    return read


def _entries(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {entry.filename: archive.read(entry) for entry in archive.infolist()}


def _archive(entries: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return file.getvalue()
