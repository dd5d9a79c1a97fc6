"""Runs the published code in a process of its own, so that its libraries and ours do not meet."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

from trm_mlx import device
from trm_mlx.config import ArchConfig
from trm_mlx.errors import InputError


class Reference:
    """A process that measures on request (``reference.py``)."""

    def __init__(self, checkout: str, arch: ArchConfig, sizes: dict):
        variant = Path(checkout, "models", "recursive_reasoning", f"{arch.name}.py")
        if not variant.is_file():
            raise InputError(
                f"--reference {checkout}: no published code there, {variant} is missing; "
                "clone SamsungSAILMontreal/TinyRecursiveModels"
            )
        dtype = device.default_dtype() if arch.forward_dtype == "auto" else arch.forward_dtype
        changes = {
            "forward_dtype": dtype,
            "puzzle_emb_ndim": arch.puzzle_dims,
            "puzzle_emb_len": arch.prefix,
        }
        sizes = {
            **sizes,
            "arch": dataclasses.asdict(arch) | changes,
            "device": "cpu" if device.device_kind() == "cpu" else "cuda",
        }
        command = [sys.executable, "-m", "trm_mlx.bench.reference", checkout, json.dumps(sizes)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def measure(self, name: str, runs: int) -> dict:
        """The same as ``MLXBench.measure``, of the published code."""
        try:
            self._process.stdin.write(json.dumps([name, runs]) + "\n")
            self._process.stdin.flush()
            return json.loads(self._process.stdout.readline())
        except (BrokenPipeError, json.JSONDecodeError) as error:
            raise InputError(
                "--reference: the published code stopped, see above; it needs torch, einops and "
                "pydantic in this environment"
            ) from error

    def __enter__(self) -> "Reference":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.communicate()
