"""What fuzzing found (tools/fuzz.py): damaged files of every kind are refused in one line."""

import json
import os
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

import trm_mlx
from trm_mlx import InputError
from trm_mlx.cli import main
from trm_mlx.config import ModelConfig
from trm_mlx.config_io import arch_config
from trm_mlx.data.dataset import PuzzleDataset, puzzle_names, saved_names
from trm_mlx.models.checkpoint_files import bundled, save_model
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


# Damage without a word, and folders that were received


@pytest.fixture(scope="module")
def good_run(good):
    words = [f"data_paths=[{good / 'data'}]", f"checkpoint_path={good / 'run'}", "ema=true"]
    words += ["global_batch_size=4", "epochs=2", "eval_interval=1", "arch.hidden_size=8"]
    words += ["arch.num_heads=1", "arch.L_layers=1", "arch.H_cycles=1", "arch.L_cycles=1"]
    assert main(["train", *words, "arch.halt_max_steps=2", "arch.puzzle_emb_ndim=0"]) == 0
    return good / "run"


@pytest.fixture
def run(good_run, tmp_path):
    return shutil.copytree(good_run, tmp_path / "run")


def flip(path, bit):
    data = bytearray(path.read_bytes())
    data[-1 - bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["model.safetensors", "ema.safetensors"])
@pytest.mark.parametrize("alone", [False, True])
def test_a_flipped_bit_in_a_model(run, name, alone):
    folder = sorted(run.glob("step_*"))[-1]
    if alone:
        (folder / "state.json").unlink()
    trm_mlx.load(folder)
    flip(folder / name, 3)
    message = rf"{name} is not the file that config\.json was written with \(SHA-256\): it is dam"
    with pytest.raises(InputError, match=message):
        trm_mlx.load(folder)


@pytest.mark.parametrize("name", ["optimizer.safetensors", "carry.safetensors", "config.json"])
def test_a_flipped_bit_in_a_run(run, capsys, name):
    folder = sorted(run.glob("step_*"))[-1]
    words = ["train", f"resume={run}", "epochs=3"]
    if name == "config.json":
        text = (folder / name).read_text()
        (folder / name).write_text(text.replace('"L_cycles": 1', '"L_cycles": 3'))
    else:
        flip(folder / name, 20)
    assert main(words) == 2
    line = capsys.readouterr().err
    assert f"{folder / name} is not the file that state.json was written with" in line


def test_half_of_zeros(folder):
    path = folder / "model" / "model.safetensors"
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(size - 500)
        file.truncate(size)
    with pytest.raises(InputError, match="is damaged or was changed; copy it again"):
        trm_mlx.load(folder / "model")


def test_models_without_checksums_load(folder):
    path = folder / "model" / "config.json"
    values = json.loads(path.read_text())
    del values["sha256"]
    path.write_text(json.dumps(values))
    trm_mlx.load(folder / "model")


def test_bundled_models_have_checksums():
    for folder in bundled().values():
        sums = json.loads((folder / "config.json").read_text())["sha256"]
        assert sums.keys() == {path.name for path in folder.glob("*.safetensors")}
        trm_mlx.load(folder)


def test_every_file_of_a_checkpoint_has_a_checksum(run):
    for folder in run.glob("step_*"):
        sums = json.loads((folder / "state.json").read_text())["sha256"]
        assert sums.keys() == {path.name for path in folder.iterdir()} - {"state.json"}


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_pipes_and_devices_in_a_model(folder, name):
    path = folder / "model" / name
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(InputError, match="a device or a pipe, not a regular file"):
        trm_mlx.load(folder / "model")
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(InputError, match="a device or a pipe, not a regular file"):
        trm_mlx.load(folder / "model")


@pytest.mark.parametrize("name", ["dataset.json", "all__inputs.npy", "all__group_indices.npy"])
def test_pipes_and_devices_in_a_dataset(folder, name):
    path = folder / "data" / "train" / name
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(InputError, match="a device or a pipe, not a regular file"):
        PuzzleDataset([str(folder / "data")], "train")
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(InputError, match="a device or a pipe, not a regular file"):
        PuzzleDataset([str(folder / "data")], "train")


def test_names_of_puzzles_that_do_not_end(folder):
    data = PuzzleDataset([str(folder / "data")], "train")
    for place, read in (
        (folder / "model", partial(saved_names, folder / "model")),
        (folder / "data", partial(puzzle_names, data)),
    ):
        path = place / "identifiers.json"
        path.unlink(missing_ok=True)
        os.mkfifo(path)
        with pytest.raises(InputError, match="a device or a pipe, not a regular file"):
            read()
        path.unlink()
        with path.open("wb") as file:
            file.truncate(2**40)
        with pytest.raises(InputError, match="it has more than 1,073,741,824 bytes"):
            read()


def test_files_too_large(folder):
    path = folder / "model" / "config.json"
    with path.open("r+b") as file:
        file.truncate(2**40)
    with pytest.raises(InputError, match="it has more than 16,777,216 bytes"):
        trm_mlx.load(folder / "model")


@pytest.mark.parametrize("name", [".lock", "metrics.jsonl", "all_config.yaml", "state.json"])
def test_links_in_a_received_run(run, tmp_path, capsys, name):
    target = tmp_path / "precious"
    target.write_text("mine")
    path = sorted(run.glob("step_*"))[-1] / name if name == "state.json" else run / name
    if name == "state.json":
        shutil.copy(path, target)
    path.unlink(missing_ok=True)
    path.symlink_to(target)
    before = target.read_bytes()
    assert main(["train", f"resume={run}", "epochs=3"]) == 2
    line = capsys.readouterr().err
    assert f"{path} is a link to {target}, outside the run" in line
    assert target.read_bytes() == before


def test_pipes_in_a_received_run(run, capsys):
    os.mkfifo(run / "outputs_0000001.npz")
    assert main(["train", f"resume={run}", "epochs=3"]) == 2
    assert "is a device or a pipe, not a file: remove it" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["all_config.yaml", ".lock", "metrics.jsonl"])
def test_links_to_themselves_in_a_received_run(run, capsys, name):
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(name)
    assert main(["train", f"resume={run}", "epochs=3"]) == 2
    assert "Too many levels of symbolic links" in capsys.readouterr().err.splitlines()[-1]


def test_a_log_without_line_ends(run, capsys):
    with (run / "metrics.jsonl").open("r+b") as file:
        file.truncate(2**40)
    assert main(["train", f"resume={run}", "epochs=3"]) == 2
    assert re.search(r"metrics\.jsonl line \d+ is damaged", capsys.readouterr().err)


def test_links_to_checkpoints_elsewhere(run, tmp_path):
    """The older ones moved to a larger disk, say."""
    first, *_, last = sorted(run.glob("step_*"))
    shutil.move(first, tmp_path / first.name)
    first.symlink_to(tmp_path / first.name)
    (run / "newest").symlink_to(last)
    assert main(["train", f"resume={run}", "epochs=3"]) == 0
