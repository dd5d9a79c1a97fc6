"""Throughput of the training step on one process and on several, as lines of JSON.

    python tools/distributed_bench.py --processes 1 2 --rows 768 arch.mlp_t=true

Every process has ``--rows`` rows of the batch, so several of them should be as fast as one in steps
and faster in rows a second. Random puzzles; the time of the messages alone is measured too.
"""

import argparse
import json
import shlex
import statistics
import subprocess
import sys
import time
from pathlib import Path

import trm_mlx  # noqa: F401  isort: skip
import mlx.core as mx
from mlx.utils import tree_flatten

from trm_mlx import device
from trm_mlx.bench.mlx_bench import MLXBench
from trm_mlx.config_io import load_config
from trm_mlx.distributed import connect


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="as for pretrain.py")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rows", type=int, default=768, help="of each process")
    parser.add_argument("--seq-len", type=int, default=81)
    parser.add_argument("--vocab-size", type=int, default=11)
    parser.add_argument("--rounds", type=int, default=5, help="of which the median counts")
    parser.add_argument("--steps", type=int, default=10, help="of a round")
    parser.add_argument("--launch", default="", help="more options of mlx.launch, in one word")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_intermixed_args()


def measure(arguments: argparse.Namespace) -> dict:
    """Median seconds of a step and of its messages, in this process and the others beside it."""
    world = connect()
    rows = arguments.rows * world.size
    words = [*arguments.overrides, "data_paths=[random]", "ema=true", f"global_batch_size={rows}"]
    bench = MLXBench(load_config(words), arguments.seq_len, arguments.vocab_size, world)
    weights = bench.model.trainable_parameters()
    dims = bench.model.config.puzzle_dims
    puzzles = mx.zeros((arguments.rows, dims + 1), mx.int32)

    def exchange() -> None:
        summed = world.sum(weights)
        mx.eval(summed)
        if dims:
            mx.eval(world.gather(puzzles))

    seconds, waiting = [], []
    bench.measure("step", 3)
    exchange()
    for _ in range(arguments.rounds):
        seconds.append(bench.measure("step", arguments.steps)["seconds"])
        start = time.perf_counter()
        for _ in range(arguments.steps):
            exchange()
        waiting.append((time.perf_counter() - start) / arguments.steps)
    step = statistics.median(seconds)
    return {
        "processes": world.size,
        "device": device.device_kind(),
        "global_batch_size": rows,
        "steps_per_second": 1 / step,
        "rows_per_second": rows / step,
        "milliseconds_per_step": 1e3 * step,
        "fastest_and_slowest_round": [1e3 * min(seconds), 1e3 * max(seconds)],
        "milliseconds_of_messages": 1e3 * statistics.median(waiting) if world.size > 1 else 0.0,
        "megabytes_summed": sum(array.nbytes for _, array in tree_flatten(weights)) / 1e6,
        "megabytes_gathered_per_process": puzzles.nbytes / 1e6 if dims else 0.0,
        "is_main": world.is_main,
    }


def launched(processes: int, launch: str) -> dict:
    """The figures of a run of this program in so many processes."""
    command = [sys.executable, __file__, "--worker", *sys.argv[1:]]
    if processes > 1:
        launcher = str(Path(sys.executable).with_name("mlx.launch"))
        command = [launcher, "-n", str(processes), *shlex.split(launch), "--", *command]
    done = subprocess.run(
        command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    )
    figures = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if not figures:
        sys.exit(f"{processes} processes gave no figures, see above")
    (main_figures,) = (line for line in figures if line.pop("is_main"))
    return main_figures


def main() -> None:
    arguments = parse()
    if arguments.worker:
        print(json.dumps(measure(arguments)), flush=True)
        return
    first = None
    for processes in arguments.processes:
        figures = launched(processes, arguments.launch)
        first = first or figures
        ratio = figures["rows_per_second"] / first["rows_per_second"]
        print(json.dumps({**figures, "times_the_first": ratio}), flush=True)


if __name__ == "__main__":
    main()
