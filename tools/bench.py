"""Times the training step and the forward pass of a full-size model on this machine.

    python tools/bench.py --batch-size 768 arch.mlp_t=true arch.pos_encodings=none

Figures are medians of single steps, each waited for; the first step includes compiling.
"""

import argparse
import json
import statistics
import time

from trm_mlx import backend
from trm_mlx.config import ModelConfig
from trm_mlx.models.model import build_model
from trm_mlx.options import load_config
from trm_mlx.train.step import EvaluationStep, Training, compiles

import mlx.core as mx  # isort: skip

GIGABYTE = 2**30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="as for pretrain.py")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--seq-len", type=int, default=81)
    parser.add_argument("--vocab-size", type=int, default=11)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    config = load_config(
        [
            *arguments.overrides,
            "data_paths=[none]",
            f"global_batch_size={arguments.batch_size}",
            "ema=true",
        ]
    )
    backend.announce(config.arch.forward_dtype)
    figures = measure(config, arguments)
    if arguments.json:
        print(json.dumps(figures))
        return
    for name, value in figures.items():
        print(f"{name:24} {value:10.2f}")


def measure(config, arguments) -> dict[str, float]:
    """Milliseconds, seconds and GiB of one configuration."""
    shape = (arguments.batch_size, arguments.seq_len)
    batch = {
        "inputs": mx.random.randint(1, arguments.vocab_size, shape),
        "labels": mx.random.randint(1, arguments.vocab_size, shape),
        "puzzle_identifiers": mx.zeros((arguments.batch_size,), mx.int32),
    }
    sizes = {"seq_len": arguments.seq_len, "vocab_size": arguments.vocab_size}
    model = build_model(ModelConfig.of(config.arch, num_puzzle_identifiers=1, **sizes))
    training = Training(model, config, total_steps=10_000)
    carry = model.initial_carry(batch)
    mx.eval(training.state, carry, batch)

    def train():
        mx.eval(training.step(carry, batch, mx.random.key(0)), training.state)

    first, step, memory = timed(train, arguments.runs)
    model.eval()
    evaluation = EvaluationStep(model, config.loss, compiles(config))
    forward_first, forward, forward_memory = timed(
        lambda: mx.eval(evaluation(carry, batch)), arguments.runs
    )
    return {
        "training step, ms": step * 1e3,
        "first step, s": first,
        "training peak, GiB": memory / GIGABYTE,
        "forward, ms": forward * 1e3,
        "first forward, s": forward_first,
        "forward peak, GiB": forward_memory / GIGABYTE,
    }


def timed(function, runs: int) -> tuple[float, float, int]:
    """Seconds of the first call, median seconds of ``runs`` further ones, and peak bytes."""
    mx.clear_cache()
    mx.reset_peak_memory()
    seconds = []
    for _ in range(runs + 1):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return seconds[0], statistics.median(seconds[1:]), mx.get_peak_memory()


if __name__ == "__main__":
    main()
