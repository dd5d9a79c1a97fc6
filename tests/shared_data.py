"""Datasets that several test modules share."""

import json

import numpy as np
import pytest
from arcs import random_puzzles
from runs import make_data

from trm_mlx.cli import main


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A dataset of random tokens."""
    return make_data(tmp_path_factory.mktemp("data") / "random")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """An ARC dataset of three puzzles with one augmentation each."""
    folder = tmp_path_factory.mktemp("arc")
    puzzles = random_puzzles(np.random.default_rng(0), 3)
    (folder / "arc_test_challenges.json").write_text(json.dumps(puzzles))
    command = ["build", "arc", "--input-file-prefix", f"{folder}/arc", "--output-dir"]
    command += [f"{folder}/d", "--subsets", "test", "--test-set-name", "test", "--num-aug", "1"]
    assert main(command) == 0
    return folder / "d"
