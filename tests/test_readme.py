"""The Python that the README and the pages of docs/ show runs as it stands."""

import json
import re
import runpy

import numpy as np
import pytest
from arcs import TASK, save_untrained
from pages import CARDS, CHECKOUT, PAGES, README, blocks

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


def test_figures_of_the_arc_model_are_those_of_its_card():
    (folder,) = (card.parent for card in CARDS if card.parent.name == "arc-agi-1")
    known, unseen = list(json.loads((folder / "accuracy.json").read_text()).values())[:2]
    for page in (README.read_text("utf-8"), (CHECKOUT / "docs" / "arc.md").read_text("utf-8")):
        text = " ".join(page.split())
        assert f"Of {unseen['tasks']} evaluation tasks of ARC-AGI-1 that it had never seen" in text
    low, high = unseen["pass@2 interval"]
    assert f"found {unseen['pass@2']:.0f} % [{low:.0f}, {high:.0f}] in two attempts" in text
    low, high = known["pass@2 interval"]
    assert f"{known['pass@2']:.1f} % [{low}, {high}]" in text


def test_hours_on_a_mac_are_those_of_the_arithmetic():
    eflop = runpy.run_path(str(CHECKOUT / "tools" / "mac_hours.py"))["eflop"]
    found = re.findall(
        r"^\| `(\w+)` .* \| (\d+) to (\d+) (min|h|days) \|$", README.read_text(), re.M
    )
    assert len(found) == 9
    for experiment, *limits, unit in found:
        seconds = {"min": 60, "h": 3600, "days": 86400}[unit]
        for limit, rate in zip(limits, (10e12, 5e12), strict=True):
            hours = eflop(experiment) * 1e18 / rate / seconds
            assert int(limit) == pytest.approx(hours, abs=0.51), experiment
