"""Hours that the recipes would take on a Mac, by their arithmetic: computed, not run.

    python tools/mac_hours.py

The operations of a training step times the steps; those of runs that were made are from their logs
(docs/fast_recipe.md, docs/arc.md). Memory and the time to compile are left out.
"""

from trm_mlx.config import ModelConfig
from trm_mlx.config_io import load_config
from trm_mlx.models.model import build_model
from trm_mlx.models.operations import flop

RATES = (10, 5)  # TFLOP/s
# EFLOP
MEASURED = {"sudoku_fast": 0.21, "maze_fast": 0.72, "maze10x10": 0.011, "arc1_fast": 0.6}
# Published runs: cells, and puzzles with an identifier of their own, each seen once an epoch.
PUBLISHED = {
    "sudoku_mlp": (81, 1_000),
    "sudoku_attention": (81, 1_000),
    "maze": (900, 1_000),
    "arc1": (900, 960),
    "arc2": (900, 1_280),
}


def eflop(experiment: str) -> float:
    """Return the operations of a run, in 10^18."""
    if experiment in MEASURED:
        return MEASURED[experiment]
    cells, puzzles = PUBLISHED[experiment]
    config = load_config([f"experiment={experiment}", "data_paths=[data]"])
    sizes = {"seq_len": cells, "vocab_size": 12, "num_puzzle_identifiers": 2}
    model = build_model(ModelConfig.of(config.arch, **sizes))
    return flop(model, model.recursion) * puzzles * config.epochs / 1e18


def main() -> None:
    print(f"| experiment | EFLOP | {' | '.join(f'at {rate} TFLOP/s' for rate in RATES)} |")
    print(f"|---|---|{'---|' * len(RATES)}")
    for experiment in (*MEASURED, *PUBLISHED):
        arithmetic = eflop(experiment)
        hours = [arithmetic * 1e18 / (rate * 1e12) / 3600 for rate in RATES]
        times = [f"{h:.1f} h" if h < 100 else f"{h / 24:.0f} days" for h in hours]
        print(f"| {experiment} | {arithmetic:.3g} | {' | '.join(times)} |")


if __name__ == "__main__":
    main()
