"""The notebook ``examples/tour.ipynb`` runs, and is saved with what it prints and draws."""

import json
import runpy

import pytest
from pages import CHECKOUT

NOTEBOOK = CHECKOUT / "examples" / "tour.ipynb"
# Small models and little training in the place of the notebook's.
SMALLER = {
    "..4.9..2..5.6......7.2...9...64......9..5.2..7....1.8.2......43.3....5.......8.7.": (
        "...2.1..3.....2."
    ),
    "sudoku9x9": "sudoku4x4",
    "sudoku-9x9": "sudoku-4x4",
    "puzzles_per_epoch=32000": "puzzles_per_epoch=128",
    "test_puzzles=500": "test_puzzles=8",
}


@pytest.fixture(scope="module")
def cells():
    notebook = json.loads(NOTEBOOK.read_text("utf-8"))
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def test_its_cells_are_python(cells, tmp_path, monkeypatch, capsys):
    """All of them in this process, with the model for 4x4 and a training of two steps."""
    pytest.importorskip("IPython")
    pytest.importorskip("matplotlib").use("agg")
    monkeypatch.chdir(tmp_path)
    code = "\n\n".join("".join(cell["source"]) for cell in cells)
    for theirs, ours in SMALLER.items():
        assert theirs in code
        code = code.replace(theirs, ours)
    exec(code, {"__name__": "__main__"})
    output = capsys.readouterr().out
    assert "obeys the rules: True" in output
    assert "of 200 puzzles solved" in output


def test_it_is_saved_with_its_outputs(cells):
    assert NOTEBOOK.stat().st_size < 400_000
    assert all(cell["execution_count"] for cell in cells)
    kinds = {
        kind for cell in cells for output in cell["outputs"] for kind in output.get("data", ())
    }
    assert {"image/png", "text/plain"} <= kinds
    printed = "".join(
        "".join(output.get("text", ())) for cell in cells for output in cell["outputs"]
    )
    assert "obeys the rules: True" in printed
    assert "rules satisfied" in printed


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of Jupyter's
def test_it_runs_from_top_to_bottom():
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    executed = runpy.run_path(str(CHECKOUT / "tools" / "run_notebook.py"))["executed"]
    outputs = [output for cell in executed(NOTEBOOK).cells for output in cell.get("outputs", ())]
    assert not [output for output in outputs if output.output_type == "error"]
