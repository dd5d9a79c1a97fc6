"""The benchmark runs, and says what it cannot compare; its figures are nobody's to assert."""

import json

import pytest

from trm_mlx import build_sudoku
from trm_mlx.cli import main

TINY = ["arch.hidden_size=32", "arch.num_heads=2", "arch.H_cycles=1", "arch.L_cycles=1"]
SIZES = ["--batch-size", "4", "--seq-len", "9", "--rounds", "1", "--runs", "1"]
MEASURED = ("training step, ms", "forward pass, ms", "training loop, ms a step")


def test_table(capsys):
    assert main(["bench", *TINY, *SIZES]) == 0
    table = capsys.readouterr().out.splitlines()
    rows = {line[:34].strip(): float(line[34:]) for line in table[1:]}
    assert all(rows[name] > 0 for name in MEASURED)


def test_json(capsys):
    assert main(["bench", *TINY, *SIZES, "--json", "arch.mlp_t=true"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["device"] == "cpu"
    assert all(figures[name]["ours"] > 0 for name in MEASURED)
    assert all(figures[name]["published"] is None for name in MEASURED)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--rounds", "0"], "--rounds 0: must be at least 1"),
        (["--vocab-size", "1"], "--vocab-size 1: must be at least 2"),
        (["--reference", "nowhere"], "--reference nowhere: no published code there"),
    ],
)
def test_what_cannot_be_measured(capsys, words, expected):
    assert main(["bench", *TINY, *words]) == 2
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize("solves", [False, True], ids=["steps", "a bundled model"])
def test_reference_that_breaks(capsys, tmp_path, solves):
    """A checkout whose code fails at once: one line of ours after its own message."""
    pytest.importorskip("torch")
    folder = tmp_path / "models" / "recursive_reasoning"
    folder.mkdir(parents=True)
    (folder / "trm.py").write_text("raise SystemExit(1)\n")
    measured = [*TINY, *SIZES]
    if solves:
        build_sudoku(tmp_path / "data", generate=4, num_train=8, num_test=4)
        measured = ["--checkpoint", "sudoku-4x4", "--data", str(tmp_path / "data"), "--rounds", "1"]
    assert main(["bench", *measured, "--reference", str(tmp_path)]) == 2
    assert "--reference: the published code stopped" in capsys.readouterr().err
