"""``trm bench``: how fast this machine trains and runs a model, beside the published code or alone.

    trm bench --batch-size 768 arch.mlp_t=true arch.pos_encodings=none --reference CHECKOUT

Both run in turns, a few calls at a time, and the medians are compared.
"""

import argparse
import dataclasses
import json
import statistics
import subprocess
import sys
from pathlib import Path

from trm_mlx import backend
from trm_mlx.config import TrainConfig
from trm_mlx.errors import InputError
from trm_mlx.options import load_config

GIBIBYTE = 2**30


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="as for pretrain.py")
    parser.add_argument("--batch-size", type=int, default=8, help="rows (default: %(default)s)")
    parser.add_argument("--seq-len", type=int, default=81, help="cells (default: %(default)s)")
    parser.add_argument("--vocab-size", type=int, default=11, help="tokens (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="turns (default: %(default)s)")
    parser.add_argument("--runs", type=int, default=3, help="calls a turn (default: %(default)s)")
    parser.add_argument("--reference", metavar="DIR", help="checkout of the published PyTorch code")
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of a table")


def run(arguments: argparse.Namespace) -> None:
    """Measure and print."""
    for name in ("batch_size", "seq_len", "rounds", "runs"):
        if getattr(arguments, name) < 1:
            option = f"--{name.replace('_', '-')}"
            raise InputError(f"{option} {getattr(arguments, name)}: must be at least 1")
    if arguments.vocab_size < 2:
        raise InputError(f"--vocab-size {arguments.vocab_size}: must be at least 2")
    words = [*arguments.overrides, "data_paths=[random]", "ema=true"]
    config = load_config([*words, f"global_batch_size={arguments.batch_size}"])
    backend.announce(config.arch.forward_dtype)
    rows = measure(config, arguments)
    if arguments.json:
        figures = {name: dict(zip(("ours", "published"), row, strict=True)) for name, row in rows}
        print(json.dumps({"device": backend.device_name(), **figures}))
        return
    print(f"{'':30} {'ours':>10} {'published':>10} {'ratio':>7}")
    for name, (ours, published) in rows:
        compared = f"{published:10.2f} {ours / published:7.2f}" if published else ""
        print(f"{name:30} {ours:10.2f} {compared}".rstrip())


def measure(
    config: TrainConfig, arguments: argparse.Namespace
) -> list[tuple[str, tuple[float, float | None]]]:
    """Rows of a table: a name, our figure and, where there is one, the published code's."""
    from trm_mlx.bench.ours import Ours, loop_seconds

    ours = Ours(config, arguments.seq_len, arguments.vocab_size)
    if arguments.reference:
        with Reference(arguments.reference, config, arguments) as reference:
            rows = _compare([ours, reference], arguments)
    else:
        rows = _compare([ours], arguments)
    if backend.device_name() != "cpu":
        least = ours.least_memory() / GIBIBYTE
        published = rows[2][1][1]
        rows.append(("training step, least GiB", (least, published)))
    steps = arguments.rounds * arguments.runs
    loading, loop = loop_seconds(config, arguments.seq_len, arguments.vocab_size, steps)
    return [
        *rows,
        ("training loop, ms a step", (1e3 * loop, None)),
        ("loading a batch, ms", (1e3 * loading, None)),
    ]


def _compare(rivals: list, arguments: argparse.Namespace) -> list[tuple[str, tuple]]:
    """Times and peaks of all rivals, in turns."""
    rows = []
    for name, label in (("step", "training step"), ("forward", "forward pass")):
        first = [rival.measure(name, 1)["seconds"] for rival in rivals]
        rounds = [
            [rival.measure(name, arguments.runs) for rival in rivals]
            for _ in range(arguments.rounds)
        ]
        turns = list(zip(*rounds, strict=True))
        seconds = [statistics.median(turn["seconds"] for turn in rival) for rival in turns]
        peaks = [max(turn["peak"] for turn in rival) / GIBIBYTE for rival in turns]
        rows += [
            (f"{label}, ms", _pair([1e3 * value for value in seconds])),
            (f"first {label}, s", _pair(first)),
            (f"{label}, peak GiB", _pair(peaks)),
        ]
    return rows


def _pair(values: list[float]) -> tuple[float, float | None]:
    return values[0], values[1] if len(values) > 1 else None


class Reference:
    """The published code in a process of its own, which measures when told to."""

    def __init__(self, checkout: str, config: TrainConfig, arguments: argparse.Namespace):
        variant = Path(checkout, "models", "recursive_reasoning", f"{config.arch.name}.py")
        if not variant.is_file():
            raise InputError(
                f"--reference {checkout}: no published code there, {variant} is missing; "
                "clone SamsungSAILMontreal/TinyRecursiveModels"
            )
        dtype = config.arch.forward_dtype
        dtype = backend.default_dtype() if dtype == "auto" else dtype
        arch = {**dataclasses.asdict(config.arch), "forward_dtype": dtype}
        arch["puzzle_emb_ndim"] = config.arch.puzzle_dims
        sizes = {
            "arch": arch,
            "loss": config.loss,
            "batch_size": config.global_batch_size,
            "seq_len": arguments.seq_len,
            "vocab_size": arguments.vocab_size,
            "num_puzzle_identifiers": 1,
            "device": "cpu" if backend.device_name() == "cpu" else "cuda",
        }
        command = [sys.executable, "-m", "trm_mlx.bench.reference", checkout, json.dumps(sizes)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def measure(self, name: str, runs: int) -> dict:
        """As `Ours.measure`, over there."""
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
