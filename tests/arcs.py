"""Random ARC puzzles."""

import json

import mlx.core as mx
import numpy as np

from trm_mlx.builders.arc import build_arc
from trm_mlx.config import ModelConfig
from trm_mlx.config_io import arch_config
from trm_mlx.models.checkpoint_files import save_model
from trm_mlx.models.model import build_model
from trm_mlx.tasks.arc_rows import SHARED, parts_of

FILLED = [
    {"input": [[c, 0], [0, c]], "output": [[c, c], [c, c]]} for c in (1, 2, 3)
]  # every cell takes the colour
TEST = {"input": [[4, 0, 0], [0, 4, 0], [0, 0, 4]], "output": [[4] * 3] * 3}
TASK = {"train": FILLED, "test": [TEST]}


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


def build_held_out(folder, puzzles, num_aug=2):
    """A dataset ``folder/data`` of puzzles, all of them held out."""
    (folder / "arc_a_challenges.json").write_text(json.dumps(puzzles))
    build_arc(
        folder / "data",
        input_file_prefix=folder / "arc",
        subsets=["a"],
        test_set_name="a",
        num_aug=num_aug,
    )
    return folder / "data"


def build_random(folder, count):
    return build_held_out(folder, random_puzzles(np.random.default_rng(0), count, tests=1))


def save_untrained(folder, **arch):
    settings = {
        "hidden_size": 16, "num_heads": 2, "L_layers": 1, "H_cycles": 1, "L_cycles": 1,
        "halt_max_steps": 2, "puzzle_emb_len": 1, "pos_encodings": "rope2d", "canvases": (10, 30),
        **arch,
    }  # fmt: skip
    structured = settings.get("puzzle_rows") == "structured"
    config = ModelConfig.of(
        arch_config("trm", **settings),
        seq_len=900,
        vocab_size=12,
        num_puzzle_identifiers=3,
        num_puzzle_rows=SHARED + 1 if structured else None,
    )
    model = build_model(config)
    if "puzzle_emb" in model:
        model.puzzle_emb.weights = mx.random.normal(model.puzzle_emb.weights.shape)
    if structured:
        model.puzzle_emb.compose(mx.array(parts_of(["<blank>", "x", "x|||t1|||0123456789"])))
    folder.mkdir()
    save_model(folder, model)
    return folder
