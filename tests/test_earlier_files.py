"""Datasets, runs, models and configurations of an earlier version load and give its numbers."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from trm_mlx import PuzzleDataset, load, predict, refine
from trm_mlx.cli import main
from trm_mlx.config_io import load_config, to_dict, train_config

EARLIER = Path(__file__).parent / "data" / "earlier"
EXPECTED = json.loads((EARLIER / "expected.json").read_text(encoding="utf-8"))
CLOSE = {"rel": 1e-4, "abs": 1e-6}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A copy, entered, since the configurations name their dataset from there."""
    shutil.copytree(EARLIER, tmp_path / "earlier")
    monkeypatch.chdir(tmp_path / "earlier")
    return tmp_path / "earlier"


def inputs(split):
    return np.load(EARLIER / "sudoku4x4" / split / "all__inputs.npy")


def test_a_dataset_is_read():
    data = PuzzleDataset([EARLIER / "sudoku4x4"], "train")
    rows = EXPECTED["data"]["rows"]
    assert len(data.puzzle_identifiers) == rows
    batch = data.batch(np.arange(rows), np.arange(rows), rows)
    assert batch["inputs"].sum() == EXPECTED["data"]["inputs"]
    assert batch["labels"].sum() == EXPECTED["data"]["labels"]


@pytest.mark.parametrize("name", ["model", "run"])
def test_a_model_answers_as_before(name):
    model, _ = load(EARLIER / name)
    answers, steps = predict(model, inputs("test"), max_steps=4, halt_threshold=0.5)
    assert answers.tolist() == EXPECTED[name]["answers"]
    assert steps.tolist() == EXPECTED[name]["steps"]
    halting = [step.halt_probability for step in refine(model, inputs("test"), max_steps=3)]
    expected = EXPECTED[name]["halt_probability"]
    np.testing.assert_allclose(halting, expected, rtol=CLOSE["rel"], atol=CLOSE["abs"])


def test_a_run_goes_on_as_it_did(place):
    before = (place / "run" / "metrics.jsonl").read_text(encoding="utf-8")
    assert main(["train", f"resume={place / 'run'}"]) == 0
    log = (place / "run" / "metrics.jsonl").read_text(encoding="utf-8")
    assert log.startswith(before)
    lines = [json.loads(line) for line in log.removeprefix(before).splitlines()]
    assert len(lines) == len(EXPECTED["resumed"])
    for line, expected in zip(lines, EXPECTED["resumed"], strict=True):
        assert {key: line[key] for key in expected} == pytest.approx(expected, **CLOSE)


def saved_configs():
    state = EARLIER / "run" / "step_0000030" / "state.json"
    by_yaml = (EARLIER / "run" / "all_config.yaml").read_text(encoding="utf-8")
    return [json.loads(state.read_text(encoding="utf-8"))["train_config"], yaml.safe_load(by_yaml)]


@pytest.mark.parametrize("saved", saved_configs(), ids=["state.json", "all_config.yaml"])
def test_a_saved_configuration_is_complete_so_new_defaults_do_not_touch_it(saved):
    for config in (train_config(saved), load_config([], base=saved)):
        read = to_dict(config)
        assert {key: read[key] for key in saved if key != "arch"} == {
            key: value for key, value in saved.items() if key != "arch"
        }
        assert {key: read["arch"][key] for key in saved["arch"]} == saved["arch"]
    assert config.weight_decay == config.puzzle_emb_weight_decay == 1.0
