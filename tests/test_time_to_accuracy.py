"""tools/time_to_accuracy.py: timed runs, and their comparison."""

import csv
import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import trm_mlx  # isort: skip
from mlx.utils import tree_flatten

from trm_mlx.config import ModelConfig
from trm_mlx.config_io import arch_config
from trm_mlx.models.model import build_model
from trm_mlx.models.operations import flop

pytestmark = pytest.mark.slow
CHECKOUT = Path(__file__).resolve().parents[1]
TOOL = CHECKOUT / "tools" / "time_to_accuracy.py"
TINY = [
    "data_paths=[generate:sudoku4x4]", "puzzles_per_epoch=16", "test_puzzles=4", "epochs=4",
    "eval_interval=2", "global_batch_size=8", "arch.hidden_size=8", "arch.num_heads=1",
    "arch.H_cycles=1", "arch.L_cycles=1", "arch.puzzle_emb_ndim=0", "arch.halt_max_steps=2",
]  # fmt: skip


def run_tool(*words):
    command = [sys.executable, TOOL, *map(str, words)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_a_run_and_its_curve(tmp_path):
    run_tool("run", tmp_path / "tiny", *TINY)
    words = ["-o", tmp_path / "out", "--name", "all=small ones", "--share", "0", "1"]
    shown = run_tool("compare", tmp_path / "tiny", *words)
    with (tmp_path / "out.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    log = (tmp_path / "tiny" / "metrics.jsonl").read_text("utf-8")
    logged = [json.loads(line) for line in log.splitlines()]
    found = [line["all/exact_accuracy"] for line in logged if "all/exact_accuracy" in line]
    assert [int(row["step"]) for row in rows] == [4, 8]
    assert [float(row["accuracy"]) for row in rows] == pytest.approx(found, abs=1e-4)
    assert {row["set"] for row in rows} == {"small ones"}
    minutes = [float(row["minutes"]) for row in rows]
    assert 0 < minutes[0] <= minutes[1] < 2
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
    first, last = shown.splitlines()
    assert first.startswith("small ones, 0 %: tiny ")
    assert first.endswith("step 4")
    assert last.startswith("small ones, 100 %: tiny not within ")


def test_arithmetic_of_a_step():
    model, _ = trm_mlx.load("sudoku-9x9")
    channels = 88 * (3072 * 512 + 512 * 1536)
    tokens = 512 * (512 * 88 + 88 * 256)
    passes = 3 * 7 + 2 * 7  # forward; backward, of the last cycle alone, counts twice
    assert flop(model, model.recursion) == 2 * 2 * (channels + tokens) * passes


def test_attention_compares_all_positions():
    sizes = {"seq_len": 10, "vocab_size": 5, "num_puzzle_identifiers": 1}
    arch = arch_config("trm", hidden_size=32, num_heads=2, puzzle_emb_ndim=0, puzzle_emb_len=0)
    config = ModelConfig.of(arch, **sizes)
    model = build_model(config)
    weights = sum(weight.size for _, weight in tree_flatten(model.L_level.parameters()))
    scores_and_sums = 2 * config.L_layers * 32 * 10 * 10
    passes = (config.L_cycles + 1) * (config.H_cycles + 2)
    assert flop(model, model.recursion) == 2 * passes * (weights * 10 + scores_and_sums)


def test_a_curriculum_computes_less_at_first(tmp_path):
    depth = ["arch.H_cycles=3", "arch.L_cycles=3", "epochs=20"]
    tool, computed = runpy.run_path(str(TOOL)), {}
    for name, grows in (("whole", "false"), ("grown", "true")):
        folder = tmp_path / name
        run_tool("run", folder, *TINY, *depth, f"depth_curriculum={grows}")
        log = [values for _, values in tool["read_log"](folder / "metrics.jsonl")]
        computed[name] = tool["operations"](folder, log)
    # Updates forward, and twice as many backward for those with a gradient: all, and in each third.
    whole, thirds = (8 + 3 * 4), (3 * 2, 3 + 3 * 3, 8 + 3 * 4)
    step = computed["whole"][1]
    assert computed["whole"] == [number * step for number in range(41)]
    taken = [b - a for a, b in zip(computed["grown"], computed["grown"][1:], strict=False)]
    expected = [thirds[0]] * 12 + [thirds[1]] * 12 + [thirds[2]] * 16
    assert taken == [updates * step // whole for updates in expected]
