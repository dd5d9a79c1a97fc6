"""Random ARC puzzles."""

import numpy as np


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
