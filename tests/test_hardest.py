"""``tools/hardest.py``: the puzzles that `make demo` shows."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from trm_mlx import build_sudoku

TOOL = Path(__file__).resolve().parents[1] / "tools" / "hardest.py"


def test_most_steps_first_and_no_wrong_answer(tmp_path, monkeypatch, capsys):
    build_sudoku(tmp_path, generate=4, num_train=8, num_test=5)
    steps, wrong = [1, 4, 2, 8, 4], 3

    class SolverOfSteps:
        def __init__(self, model):
            pass

        def solve(self, inputs, identifiers):
            labels = np.load(tmp_path / "test" / "all__labels.npy").astype(int)
            labels[wrong] += 1
            for answer, count in zip(labels, steps, strict=True):
                yield SimpleNamespace(answer=answer, steps=count)

    main = runpy.run_path(str(TOOL))["main"]
    monkeypatch.setitem(main.__globals__, "Solver", SolverOfSteps)
    monkeypatch.setattr("sys.argv", ["hardest.py", "sudoku-4x4", str(tmp_path), "--count", "4"])
    main()
    assert capsys.readouterr().out == "1 4 2 0\n"
