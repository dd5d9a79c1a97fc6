"""``trm bench``: how fast this machine trains and runs a model, beside the published code or alone.

    trm bench --batch-size 768 arch.mlp_t=true arch.pos_encodings=none --reference CHECKOUT

Both run in turns, a few calls at a time, and the medians are compared.
"""

import argparse
import dataclasses
import json
import statistics
import tempfile
from pathlib import Path

import numpy as np

from trm_mlx import device
from trm_mlx.bench.reference_process import Reference
from trm_mlx.config import ModelConfig, TrainConfig
from trm_mlx.config_io import load_config
from trm_mlx.errors import InputError
from trm_mlx.files import path_text

GIBIBYTE = 2**30
SIZES = ("seq_len", "vocab_size", "num_puzzle_identifiers")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="as for pretrain.py")
    parser.add_argument("--batch-size", type=int, default=8, help="rows (default: %(default)s)")
    parser.add_argument(
        "--checkpoint",
        type=path_text,
        help="measure instead how fast this trained model solves --data",
    )
    parser.add_argument(
        "--data", type=path_text, help="dataset folder whose test puzzles are solved"
    )
    parser.add_argument(
        "--max-steps", type=int, default=16, help="supervision steps (default: %(default)s)"
    )
    parser.add_argument("--seq-len", type=int, default=81, help="cells (default: %(default)s)")
    parser.add_argument("--vocab-size", type=int, default=11, help="tokens (default: %(default)s)")
    parser.add_argument(
        "--identifiers", type=int, default=1, help="rows of the puzzle table (default: %(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=5, help="turns (default: %(default)s)")
    parser.add_argument("--runs", type=int, default=3, help="calls a turn (default: %(default)s)")
    parser.add_argument(
        "--reference", type=path_text, metavar="DIR", help="checkout of the published PyTorch code"
    )
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of a table")


def run(arguments: argparse.Namespace) -> None:
    """Measure and print."""
    for name in ("batch_size", "seq_len", "rounds", "runs", "max_steps", "identifiers"):
        if getattr(arguments, name) < 1:
            option = f"--{name.replace('_', '-')}"
            raise InputError(f"{option} {getattr(arguments, name)}: must be at least 1")
    if arguments.vocab_size < 2:
        raise InputError(f"--vocab-size {arguments.vocab_size}: must be at least 2")
    if (arguments.checkpoint is None) != (arguments.data is None):
        raise InputError("--checkpoint and --data belong together: name both")
    if arguments.checkpoint:
        _print_solving(solving(arguments), arguments)
        return
    words = [*arguments.overrides, "data_paths=[random]", "ema=true"]
    config = load_config([*words, f"global_batch_size={arguments.batch_size}"])
    device.announce(config.arch.forward_dtype)
    rows = measure(config, arguments)
    if arguments.json:
        figures = {name: dict(zip(("ours", "published"), row, strict=True)) for name, row in rows}
        print(json.dumps({"device": device.device_kind(), **figures}))
        return
    print(f"{'':34} {'ours':>10} {'published':>10} {'ratio':>7}")
    for name, (ours, published) in rows:
        compared = f"{published:10.2f} {ours / published:7.2f}" if published else ""
        print(f"{name:34} {ours:10.2f} {compared}".rstrip())


def measure(
    config: TrainConfig, arguments: argparse.Namespace
) -> list[tuple[str, tuple[float, float | None]]]:
    """The rows of the table: a name, our figure and the published code's, or None."""
    from trm_mlx.bench.mlx_bench import MLXBench, loop_seconds

    identifiers = arguments.identifiers
    mlx_bench = MLXBench(config, arguments.seq_len, arguments.vocab_size, identifiers=identifiers)
    if arguments.reference:
        sizes = {
            "batch_size": config.global_batch_size,
            "loss": config.loss,
            "seq_len": arguments.seq_len,
            "vocab_size": arguments.vocab_size,
            "num_puzzle_identifiers": identifiers,
        }
        with Reference(arguments.reference, config.arch, sizes) as reference:
            reference.measure("synchronize", 1)  # by then it no longer starts, which takes cores
            rows = _compare([mlx_bench, reference], arguments)
    else:
        rows = _compare([mlx_bench], arguments)
    steps = arguments.rounds * arguments.runs
    loading, loop = loop_seconds(config, arguments.seq_len, arguments.vocab_size, steps)
    return [
        *rows,
        ("training loop, ms a step", (1e3 * loop, None)),
        ("loading a batch, ms", (1e3 * loading, None)),
    ]


def solving(arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Puzzles per second and the fraction solved, halting and with all steps, of both codes."""
    from trm_mlx.bench.mlx_bench import solving_rates
    from trm_mlx.data.dataset import PuzzleDataset
    from trm_mlx.data.reader import split_asked
    from trm_mlx.models.checkpoint_files import load

    model, config = load(arguments.checkpoint)
    device.announce(config.forward_dtype)
    puzzles = PuzzleDataset([arguments.data], split_asked(arguments.data, None)).whole()
    steps, rows = arguments.max_steps, arguments.batch_size
    results = solving_rates(model, puzzles, steps, rows, arguments.rounds)
    if arguments.reference:
        results["published, all steps"] = _published_rate(arguments, config, puzzles)
    return results


def _published_rate(arguments: argparse.Namespace, config: ModelConfig, puzzles: dict) -> dict:
    from trm_mlx.convert.export import export
    from trm_mlx.models.checkpoint_files import EMA_FILE, find_checkpoint

    checkpoint = find_checkpoint(arguments.checkpoint)
    sizes = {name: getattr(config, name) for name in SIZES}
    sizes |= {"batch_size": arguments.batch_size, "loss": "stablemax_cross_entropy"}
    arch = dataclasses.replace(config, halt_max_steps=arguments.max_steps)
    with tempfile.TemporaryDirectory() as folder:
        weights, data = Path(folder, "weights.pth"), Path(folder, "puzzles.npz")
        export(
            checkpoint,
            weights,
            prefix="model.inner.",
            average=(checkpoint / EMA_FILE).exists(),
            report=lambda _: 0,
        )
        np.savez(data, **puzzles)
        sizes |= {"weights": str(weights), "puzzles": str(data)}
        with Reference(arguments.reference, arch, sizes) as reference:
            turns = [reference.measure("evaluation", 1) for _ in range(arguments.rounds + 1)][1:]
    seconds = statistics.median(turn["seconds"] for turn in turns)
    return {"puzzles a second": len(puzzles["inputs"]) / seconds, "solved": turns[0]["solved"]}


def _print_solving(results: dict[str, dict[str, float]], arguments: argparse.Namespace) -> None:
    if arguments.json:
        print(json.dumps({"device": device.device_kind(), **results}))
        return
    fastest = results["halting"]["puzzles a second"]
    print(f"{'':24} {'puzzles/s':>10} {'solved':>8} {'halting is':>11}")
    for name, row in results.items():
        rate = row["puzzles a second"]
        print(f"{name:24} {rate:10.1f} {row['solved']:8.2%} {fastest / rate:10.1f}x")


def _compare(benches: list, arguments: argparse.Namespace) -> list[tuple[str, tuple]]:
    """Times and memory peaks of all benches, measured in turns."""
    from trm_mlx.bench.mlx_bench import Unlimited

    ours, others = benches[0], [Unlimited(benches[0]), *benches[1:]]
    rows = []
    for name, label in (("step", "training step"), ("forward", "forward pass")):
        first = [bench.measure(name, 1)["seconds"] for bench in benches]
        rounds = [
            [bench.measure(name, arguments.runs) for bench in (ours, *others)]
            for _ in range(arguments.rounds)
        ]
        turns = list(zip(*rounds, strict=True))
        seconds = [1e3 * statistics.median(turn["seconds"] for turn in bench) for bench in turns]
        peaks = [max(turn["peak"] for turn in bench) / GIBIBYTE for bench in turns]
        planned = max(turn["planned"] for turn in turns[0]) / GIBIBYTE
        rows += [
            (f"{label}, ms", _pair([seconds[0], *seconds[2:]])),
            (f"{label} unlimited, ms", (seconds[1], None)),
            (f"first {label}, s", _pair(first)),
            (f"{label}, peak GiB", _pair([peaks[0], *peaks[2:]])),
            (f"{label}, planned GiB", (planned, None)),
            (f"{label} unlimited, peak GiB", (peaks[1], None)),
        ]
    return rows


def _pair(values: list[float]) -> tuple[float, float | None]:
    return values[0], values[1] if len(values) > 1 else None
