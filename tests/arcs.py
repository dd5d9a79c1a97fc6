"""Random ARC puzzles."""

import json

import numpy as np

from trm_mlx.builders.arc import build_arc


def random_grid(rng, largest=6):
    return rng.integers(10, size=rng.integers(1, largest + 1, size=2)).astype(np.uint8)


def random_puzzles(rng, count, tests=2):
    """Puzzles by name, each of one training pair and ``tests`` test pairs."""
    return {
        f"p{number}": {
            "train": [{"input": random_grid(rng).tolist(), "output": random_grid(rng).tolist()}],
            "test": [
                {"input": random_grid(rng).tolist(), "output": random_grid(rng).tolist()}
                for _ in range(tests)
            ],
        }
        for number in range(count)
    }


def build_random(folder, count, num_aug=2):
    """A dataset ``folder/data`` of random puzzles, all of them held out."""
    puzzles = random_puzzles(np.random.default_rng(0), count, tests=1)
    (folder / "arc_a_challenges.json").write_text(json.dumps(puzzles))
    build_arc(
        folder / "data",
        input_file_prefix=folder / "arc",
        subsets=["a"],
        test_set_name="a",
        num_aug=num_aug,
    )
    return folder / "data"
