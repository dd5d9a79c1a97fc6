"""tools/arc_canvases.py: what smaller canvases save; and what all ARC tools say of bad input."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from arcs import build_held_out

from trm_mlx.data.dataset import PuzzleDataset

TOOLS = str(Path(__file__).resolve().parents[1] / "tools")


@pytest.fixture
def tool(monkeypatch):
    monkeypatch.syspath_prepend(TOOLS)
    import arc_canvases

    return arc_canvases


@pytest.fixture
def data(tmp_path):
    """A puzzle of 3x3 grids with two pairs to train on, one of 8x8 with three, both held out.

    The output of the smaller one's test is 12x12, which nothing told before.
    """
    rng, puzzles = np.random.default_rng(0), {}

    def pair(side, answer):
        grids = (rng.integers(10, size=(cells, cells)).tolist() for cells in (side, answer))
        return dict(zip(("input", "output"), grids, strict=True))

    for name, side, pairs, answer in [("small", 3, 2, 12), ("large", 8, 3, 8)]:
        shown = [pair(side, side) for _ in range(pairs)]
        puzzles[name] = {"train": shown, "test": [pair(side, answer)]}
    return build_held_out(tmp_path, puzzles, num_aug=4)


def test_the_share_of_the_arithmetic(tool, data):
    """A side has room for the mark of the grids' end, and an epoch for one version of a puzzle."""
    examples = tool.examples_of_sides(PuzzleDataset([data], "train"))
    assert {side: count for side, count in enumerate(examples) if count} == {4: 2, 9: 3}
    costs = np.arange(31.0)
    assert tool.share([10, 30], examples, costs) == pytest.approx(10 / 30)
    assert tool.share([4, 10, 30], examples, costs) == pytest.approx((2 * 4 + 3 * 10) / (5 * 30))
    assert tool.share([30], examples, costs) == 1


@pytest.mark.parametrize(("side", "missed"), [(10, 1), (11, 1), (12, 0), (13, 0)])
def test_outputs_that_do_not_fit(tool, data, side, missed):
    """One that fills the canvas fits: it is read without the marks of its end."""
    assert tool.outputs_that_do_not_fit(data, [side, 30]) == (missed, 2)


def test_the_recipe_is_compared_with_the_best_sides(tool, data, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["arc_canvases.py", str(data)])
    tool.main()
    recipe, best, every, missed = capsys.readouterr().out.splitlines()
    assert recipe.startswith("recipe [11, 14, 17, 21, 26, 30]: 0.")
    sides, cost = best.removeprefix("best ").split(": ")
    assert {4, 9} <= set(json.loads(sides))
    assert every == f"every side: {cost}"
    assert missed == "1 of 2 test outputs do not fit"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("arc_accuracy", ["arc-agi-1", "--known"]),
        ("arc_accuracy", ["arc-agi-1", "--unseen"]),
        ("arc_canvases", []),
        ("arc_subset", ["target"]),
        ("arc_unseen", ["target"]),
    ],
)
def test_tools_say_what_is_missing_in_one_line(tmp_path, name, words):
    missing = str(tmp_path / "nothere")
    words = [*words, missing] if "arc-agi-1" in words else [missing, *words]
    command = [sys.executable, f"{TOOLS}/{name}.py", *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {missing}") or line.startswith(f"error: cannot read {missing}")
    assert not list(tmp_path.iterdir())
