"""What fuzzing found (tools/fuzz.py): damaged files of every kind are refused in one line."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import trm_mlx
from trm_mlx import InputError
from trm_mlx.cli import main
from trm_mlx.config import ModelConfig
from trm_mlx.config_io import arch_config
from trm_mlx.data.dataset import PuzzleDataset
from trm_mlx.models.checkpoint_files import save_model
from trm_mlx.models.model import build_model

CHECKOUT = Path(__file__).resolve().parents[1]
DEEP = "[" * 100_000


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A dataset and a model."""
    folder = tmp_path_factory.mktemp("good")
    words = ["--n-digits", "1", "--num-train", "4", "--num-test", "2"]
    assert main(["build", "arithmetic", *words, "--output-dir", str(folder / "data")]) == 0
    arch = arch_config("trm", hidden_size=8, num_heads=1, L_layers=1, puzzle_emb_ndim=0)
    model = build_model(ModelConfig.of(arch, seq_len=4, vocab_size=5, num_puzzle_identifiers=1))
    (folder / "model").mkdir()
    save_model(folder / "model", model)
    return folder


@pytest.fixture
def folder(good, tmp_path):
    return shutil.copytree(good, tmp_path / "copy")


def test_json_nested_without_end(folder):
    (folder / "data" / "train" / "dataset.json").write_text(DEEP)
    with pytest.raises(InputError, match=r"dataset\.json"):
        PuzzleDataset([str(folder / "data")], "train")
    (folder / "model" / "config.json").write_text(DEEP)
    with pytest.raises(InputError, match=r"config\.json"):
        trm_mlx.load(folder / "model")


def test_array_header_that_is_no_python(folder):
    path = folder / "data" / "train" / "all__inputs.npy"
    path.write_bytes(path.read_bytes().replace(b"'shape': (", b"'shape': (0"))
    with pytest.raises(InputError, match=r"all__inputs\.npy is damaged"):
        PuzzleDataset([str(folder / "data")], "train")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("vocab_size", 10**30),
        ("seq_len", 2**21),
        ("num_puzzle_identifiers", 2**31),
        ("L_layers", 10**9),
        ("H_cycles", 10**9),
        ("puzzle_emb_len", 10**9),
        ("halt_max_steps", 10**9),
    ],
)
def test_sizes_are_bounded_before_anything_is_allocated(folder, name, value):
    path = folder / "model" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))
    with pytest.raises(InputError, match=f"{name}={value}: must be from"):
        trm_mlx.load(folder / "model")


@pytest.mark.slow
def test_the_fuzzer_still_knows_its_targets(tmp_path):
    pytest.importorskip("torch")
    command = [sys.executable, CHECKOUT / "tools" / "fuzz.py", "--inputs=1", f"--keep={tmp_path}"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count(" inputs, ") == len(done.stdout.splitlines()) > 30
    assert not list(tmp_path.iterdir())
