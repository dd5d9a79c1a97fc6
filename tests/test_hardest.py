"""``tools/hardest.py``: the puzzles that `make demo` shows."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from trm_mlx import build_sudoku

TOOL = Path(__file__).resolve().parents[1] / "tools" / "hardest.py"


def test_most_wrong_steps_first_and_no_wrong_answer(tmp_path, monkeypatch, capsys):
    """Steps after the answer is right, as the model is not sure of it, do not count."""
    build_sudoku(tmp_path, generate=4, num_train=8, num_test=5)
    right_from = [1, 4, 2, 9, 3]  # of 8 steps

    class SolverOfSteps:
        def __init__(self, model, intermediates, states):
            pass

        def solve(self, inputs, identifiers):
            labels = np.load(tmp_path / "test" / "all__labels.npy").astype(int)
            for label, first in zip(labels, right_from, strict=True):
                answers = [label + (step < first) for step in range(1, 9)]
                yield SimpleNamespace(outputs=[SimpleNamespace(answer=a) for a in answers])

    main = runpy.run_path(str(TOOL))["main"]
    monkeypatch.setitem(main.__globals__, "Solver", SolverOfSteps)
    monkeypatch.setattr("sys.argv", ["hardest.py", "sudoku-4x4", str(tmp_path), "--count", "4"])
    main()
    assert capsys.readouterr().out == "1 4 2\n"
    right_from[:] = [1] * 5
    main()
    assert capsys.readouterr().out == "0\n"
