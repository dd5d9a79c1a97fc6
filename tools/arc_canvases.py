"""What smaller canvases save on an ARC dataset, and which sides save most.

    python tools/arc_canvases.py data/arc1-aug-127

prints the share of the arithmetic of 30x30 canvases that a training step takes, on average over an
epoch, with the sides of ``arc1_fast``, with the best ones of as many, and with all; and how many
outputs of held-out tests do not fit on the canvas that was chosen without knowing them.
"""

import argparse
import itertools
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from trm_mlx.cli import explained
from trm_mlx.config import ModelConfig
from trm_mlx.config_io import load_config
from trm_mlx.data.dataset import PuzzleDataset
from trm_mlx.models.model import build_model
from trm_mlx.models.operations import flop
from trm_mlx.tasks.arc import PUZZLES_FILE, SIZE, pairs_of
from trm_mlx.tasks.arc_canvas import smallest_side
from trm_mlx.train.canvases import groups_by_side, known_extents


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path, help="dataset folder of trm build arc")
    parser.add_argument("--experiment", default="arc1_fast", help="default: %(default)s")
    arguments = parser.parse_args()
    arch = load_config([f"experiment={arguments.experiment}"]).arch
    sides_of_recipe = arch.canvases or (SIZE,)
    data = PuzzleDataset([arguments.dataset], "train")
    examples, costs = examples_of_sides(data), costs_of_sides(ModelConfig.of(arch, **sizes(data)))
    every = tuple(range(1, SIZE + 1))
    smaller = itertools.combinations(every[:-1], len(sides_of_recipe) - 1)
    best = min(
        ((*sides, SIZE) for sides in smaller), key=lambda sides: share(sides, examples, costs)
    )
    for title, sides in (("recipe", sides_of_recipe), ("best", best), ("every side", every)):
        shown = "" if sides == every else f" {list(sides)}"
        print(f"{title}{shown}: {share(sides, examples, costs):.3f} of the arithmetic")
    missed, tests = outputs_that_do_not_fit(arguments.dataset, sides_of_recipe)
    print(f"{missed} of {tests} test outputs do not fit")


def sizes(data: PuzzleDataset) -> dict:
    """The sizes of a model for a dataset; its rows for puzzles cost no arithmetic."""
    meta = data.metadata
    return {
        "seq_len": meta.seq_len, "vocab_size": meta.vocab_size, "num_puzzle_identifiers": 2,
        "num_puzzle_rows": 2,
    }  # fmt: skip


def examples_of_sides(data: PuzzleDataset) -> np.ndarray:
    """Examples of an epoch ``[31]`` on canvases of each side, if all sides were there.

    An epoch visits one version of every puzzle.
    """
    counts, found = np.diff(data.puzzle_indices), np.zeros(SIZE + 1)
    for side, groups in groups_by_side(data, range(1, SIZE + 1)).items():
        spans = (counts[slice(*data.group_indices[group : group + 2])] for group in groups)
        found[side] = sum(versions.mean() for versions in spans if len(versions))
    return found


def costs_of_sides(config: ModelConfig) -> np.ndarray:
    """Operations ``[31]`` of a training step of a row on a canvas of each side."""
    model = build_model(config)
    return np.array([flop(model, model.recursion, side**2) for side in range(SIZE + 1)], float)


def share(sides: Sequence[int], examples: np.ndarray, costs: np.ndarray) -> float:
    """What an epoch costs with these sides, as a share of its cost on canvases of 30."""
    ends = np.cumsum(examples)
    taken = np.diff(ends[[0, *sides]])
    return float(taken @ costs[[*sides]] / (ends[-1] * costs[-1]))


def outputs_that_do_not_fit(dataset: Path, sides: Sequence[int]) -> tuple[int, int]:
    """How many outputs of held-out tests are larger than their canvas, of how many."""
    extents = known_extents(dataset / PUZZLES_FILE)
    missed = tests = 0
    for name, puzzle in json.loads((dataset / PUZZLES_FILE).read_text("utf-8")).items():
        side, pairs = smallest_side(extents[name], sides), pairs_of(puzzle, "test")
        missed += sum(max(output.shape) > side for _, output in pairs)
        tests += len(pairs)
    return missed, tests


if __name__ == "__main__":
    sys.exit(explained(main))
