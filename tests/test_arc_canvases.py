"""tools/arc_canvases.py: what smaller canvases save."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from trm_mlx.builders.arc import build_arc
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
    rng, puzzles, solutions = np.random.default_rng(0), {}, {}

    def grid(side):
        return rng.integers(10, size=(side, side)).tolist()

    for name, side, pairs, answer in [("small", 3, 2, 12), ("large", 8, 3, 8)]:
        shown = [{"input": grid(side), "output": grid(side)} for _ in range(pairs)]
        puzzles[name] = {"train": shown, "test": [{"input": grid(side)}]}
        solutions[name] = [grid(answer)]
    (tmp_path / "arc_a_challenges.json").write_text(json.dumps(puzzles))
    (tmp_path / "arc_a_solutions.json").write_text(json.dumps(solutions))
    build_arc(
        tmp_path / "data",
        input_file_prefix=tmp_path / "arc",
        subsets=["a"],
        test_set_name="a",
        num_aug=4,
    )
    return tmp_path / "data"


def test_the_share_of_the_arithmetic(tool, data):
    """A side has room for the mark of the grids' end, and an epoch for one version of a puzzle."""
    examples = tool.examples_of_sides(PuzzleDataset([data], "train"))
    assert {side: count for side, count in enumerate(examples) if count} == {4: 2, 9: 3}
    costs = np.arange(31.0)
    assert tool.share([10, 30], examples, costs) == pytest.approx(10 / 30)
    assert tool.share([4, 10, 30], examples, costs) == pytest.approx((2 * 4 + 3 * 10) / (5 * 30))
    assert tool.share([30], examples, costs) == 1


def test_outputs_that_do_not_fit(tool, data):
    assert tool.outputs_that_do_not_fit(data, [10, 30]) == (1, 2)
    assert tool.outputs_that_do_not_fit(data, [13, 30]) == (0, 2)
    assert tool.outputs_that_do_not_fit(data, [30]) == (0, 2)


def test_the_recipe_is_compared_with_the_best_sides(tool, data, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["arc_canvases.py", str(data)])
    tool.main()
    recipe, best, every, missed = capsys.readouterr().out.splitlines()
    assert recipe.startswith("recipe [11, 14, 17, 21, 26, 30]: 0.")
    sides, cost = best.removeprefix("best ").split(": ")
    assert {4, 9} <= set(json.loads(sides))
    assert every == f"every side: {cost}"
    assert missed == "1 of 2 test outputs do not fit"
