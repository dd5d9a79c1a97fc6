"""Computes bytes and time of the all-reduce of one training step: the table of docs/distributed.md.

    python tools/bench_allreduce.py

A ring of n machines adds S bytes up in 2(n-1) hops of S/n bytes each, and gathers G bytes in n-1
hops of G/n. A machine sends and receives at once; the time of a hop is its bytes over the bandwidth
of one link, plus a delay.
"""

import argparse

import trm_mlx  # noqa: F401  isort: skip
from mlx.utils import tree_flatten

from trm_mlx.config import ModelConfig
from trm_mlx.config_io import load_config
from trm_mlx.models.model import build_model

MODELS = {"mlp_t": ["arch.mlp_t=true", "arch.pos_encodings=none"], "attention": []}
MACHINES = (2, 4, 8, 16, 32, 64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=768, help="of the global batch")
    parser.add_argument("--thunderbolt", type=float, default=20, help="Gb/s that get through")
    parser.add_argument("--ethernet", type=float, default=9, help="Gb/s that get through")
    parser.add_argument("--delay", type=float, default=100, help="microseconds of a hop")
    arguments = parser.parse_args()
    links = {"Thunderbolt": arguments.thunderbolt, "10 GbE": arguments.ethernet}
    print("| model | machines | sent by each | " + " | ".join(links) + " |")
    print("|---|---|---|---|---|")
    for name, words in MODELS.items():
        config = load_config(["data_paths=[none]", *words])
        sizes = {"seq_len": 81, "vocab_size": 11, "num_puzzle_identifiers": 1}
        model = build_model(ModelConfig.of(config.arch, **sizes))
        weights = sum(array.nbytes for _, array in tree_flatten(model.trainable_parameters()))
        puzzles = arguments.rows * (model.config.puzzle_dims + 1) * 4
        for machines in MACHINES:
            hops = 3 * (machines - 1)
            sent = (2 * weights + puzzles) * (machines - 1) / machines
            times = (
                f"{1e3 * (sent * 8 / (speed * 1e9) + hops * arguments.delay * 1e-6):.0f} ms"
                for speed in links.values()
            )
            title = f"{name}, {weights / 4e6:.1f} M"
            print(f"| {title} | {machines} | {sent / 1e6:.1f} MB | " + " | ".join(times) + " |")


if __name__ == "__main__":
    main()
