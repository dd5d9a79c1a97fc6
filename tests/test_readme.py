"""The Python that the README and the pages of docs/ show runs as it stands."""

import json

import numpy as np
import pytest
from arcs import TASK, save_untrained
from pages import PAGES, blocks

import trm_mlx
from trm_mlx.config import ModelConfig
from trm_mlx.config_io import arch_config
from trm_mlx.models.checkpoint_files import save_model
from trm_mlx.models.model import build_model
from trm_mlx.tasks.sudoku import Sudoku


@pytest.fixture
def after_the_demo(tmp_path, monkeypatch):
    """The working directory is as `make demo` leaves it, but small and untrained."""
    arch = arch_config("trm", hidden_size=16, num_heads=2, L_layers=1, halt_max_steps=2)
    sizes = {"seq_len": 16, "vocab_size": 6, "num_puzzle_identifiers": 1}
    folder = tmp_path / "checkpoints" / "demo"
    folder.mkdir(parents=True)
    save_model(folder, build_model(ModelConfig.of(arch, **sizes)))
    task, random = Sudoku(4), np.random.default_rng(0)
    splits = {}
    for split, count in (("train", 72), ("test", 8)):
        questions, answers, _ = task.generate(count, random)
        splits[split] = trm_mlx.SplitArrays.of(task.encode(questions), task.encode(answers))
    (tmp_path / "data").mkdir()
    folder = tmp_path / "data" / "sudoku4x4"
    trm_mlx.write_dataset(folder, splits, ["<blank>"], vocab_size=6, seq_len=16)
    save_untrained(tmp_path / "checkpoints" / "arc1")
    (tmp_path / "task.json").write_text(json.dumps(TASK))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.stem
)
def test_python_blocks_run(page, after_the_demo, capsys):
    names = {}
    for block in blocks(page, "python"):
        exec(block.replace("steps=400", "steps=4"), names)  # a minute of docs/arc.md
    assert capsys.readouterr().out, "a page that prints nothing shows nothing"
