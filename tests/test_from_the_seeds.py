"""Every command of docs/from_the_seeds.md runs, in the order of the page, at a small size."""

import io
import json
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from mlx.utils import tree_flatten
from pages import CHECKOUT, commands
from tiny import TINY

import trm_mlx
from trm_mlx.cli import main
from trm_mlx.config import ModelConfig
from trm_mlx.config_io import arch_config, to_dict
from trm_mlx.models.checkpoint_files import save_model
from trm_mlx.models.model import build_model

PAGE = CHECKOUT / "docs" / "from_the_seeds.md"
BUILDER = {"--num-train": "4", "--num-aug": "1"}
RUN = {
    **dict(word.split("=") for word in TINY),
    "epochs": "1",
    "global_batch_size": "2",
    "puzzles_per_epoch": "4",
    "test_puzzles": "2",
}
OTHERS = {"git"}  # what the page calls that is not of this package


def small(words, number):
    """A command with little to do: its own options and keys, but for those of size.

    Runs without a name of their own, which begin in one second, get the command's number for one.
    """
    if "pretrain.py" in words:
        kept = [word for word in words if word.partition("=")[0] not in RUN]
        named = any(word.lstrip("+").startswith("run_name=") for word in words)
        name = [] if named else [f"run_name=run{number}"]
        return [*kept, *(f"{key}={value}" for key, value in RUN.items()), *name]
    words = list(words)
    if "--checkpoint" in words:
        words += ["--trajectories", "1"]
    for option, value in BUILDER.items():
        if option in words:
            words[words.index(option) + 1] = value
    return [*words, "--num-test", "4"] if "--num-train" in words else words


def run(words, monkeypatch):
    """Run a command in this process; its exit status."""
    if words[0] == "trm":
        return main(words[1:])
    assert words[0] == "python"
    if words[1] == "-c":
        exec(words[2], {})
        return 0
    monkeypatch.setattr(sys, "argv", words[1:])
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(CHECKOUT / words[1]), run_name="__main__")
    return ended.value.code


@pytest.fixture
def things_of_the_page(tmp_path, monkeypatch):
    """What ``make demo`` and downloads leave, small: a model, datasets, ARC, a checkpoint."""
    monkeypatch.chdir(tmp_path)
    arch = arch_config("trm", hidden_size=16, num_heads=2, L_layers=1, halt_max_steps=2)
    sizes = {"seq_len": 16, "vocab_size": 6, "num_puzzle_identifiers": 1}
    (tmp_path / "checkpoints" / "demo").mkdir(parents=True)
    save_model(tmp_path / "checkpoints" / "demo", build_model(ModelConfig.of(arch, **sizes)))
    trm_mlx.build_sudoku("data/sudoku4x4", generate=4, num_train=8, num_test=4)
    shutil.copytree("data/sudoku4x4", "data/sudoku-extreme-1k-aug-1000")
    pairs = [{"input": [[1, 2]], "output": [[2], [1]]}] * 2
    for split in ("training", "evaluation"):
        (tmp_path / "ARC-AGI" / split).mkdir(parents=True)
        task = tmp_path / "ARC-AGI" / split / f"{split}.json"
        task.write_text(json.dumps({"train": pairs, "test": pairs[:1]}))


@pytest.fixture
def published_checkpoint(things_of_the_page):
    """Weights as the published code saves them, and the configuration beside them."""
    torch = pytest.importorskip("torch")
    model, config = trm_mlx.load("checkpoints/demo")
    state = {
        f"_orig_mod.model.inner.{name}": torch.tensor(np.array(array))
        for name, array in tree_flatten(model.parameters())
    }
    torch.save(state, "step_65104")
    arch = {name: to_dict(config)[name] for name in ("num_heads", "H_cycles", "L_cycles")}
    Path("all_config.yaml").write_text(json.dumps({"arch": arch | {"seq_len": 16}}))


@pytest.mark.slow
def test_commands_run(published_checkpoint, monkeypatch, capsys):
    found = [list(command.words) for command in commands(PAGE)]
    assert len(found) > 20
    for number, words in enumerate(found):
        if words[0] in OTHERS:
            continue
        solves = words[:2] in (["trm", "solve"], ["python", "single_inference.py"])
        status = run(small(words, number), monkeypatch)
        assert status == 0 or (solves and status == 1), (words, capsys.readouterr().err)
