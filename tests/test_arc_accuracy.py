"""tools/arc_accuracy.py: the figures of an ARC model's card."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from arcs import TASK, build_random, random_grid, save_untrained

from trm_mlx.adaptation import Adapted, Answer

TOOLS = str(Path(__file__).resolve().parents[1] / "tools")


@pytest.fixture
def tool(monkeypatch):
    monkeypatch.syspath_prepend(TOOLS)
    import arc_accuracy

    return arc_accuracy


def test_known_tasks_by_the_votes_of_their_versions(tool, monkeypatch, tmp_path):
    """Of four tasks two are answered by their labels, and all others by an empty grid."""
    data = build_random(tmp_path, 4)
    model = save_untrained(tmp_path / "model", puzzle_emb_ndim=0)

    def evaluate(_step, dataset, evaluators, max_steps):
        assert max_steps == 3
        (evaluator,) = evaluators
        every = np.arange(len(dataset))
        batch = dataset.batch(every, dataset.owners(every), len(every))
        names = [evaluator.names[owner] for owner in batch["puzzle_identifiers"]]
        right = np.array([name[:2] in ("p0", "p1") for name in names])
        preds = np.where(right[:, None], batch["labels"], 0)
        evaluator.begin()
        evaluator.update(batch, {"preds": preds, "q_halt_logits": np.zeros(len(every))})

    monkeypatch.setattr(tool, "evaluate", evaluate)
    assert tool.known(str(model), data, 3) == {
        "tasks": 4, "versions": 3, "steps": 3, "pass@1": 50.0, "pass@2": 50.0, "pass@10": 50.0,
        "pass@2 interval": [15.0, 85.0],
    }  # fmt: skip


def test_unseen_tasks_by_their_two_attempts(tool, monkeypatch, tmp_path):
    """One task is found by its second attempt, one half by its first, one not."""
    rng = np.random.default_rng(0)
    wrong, grids = random_grid(rng), [random_grid(rng) for _ in range(4)]
    questions = {"a": [0], "b": [1, 2], "c": [3]}
    for name, tests in questions.items():
        pairs = [{"input": [[0]], "output": grids[test].tolist()} for test in tests]
        task = {"train": [{"input": [[1]], "output": [[1]]}], "test": pairs}
        (tmp_path / f"{name}.json").write_text(json.dumps(task))
    attempts = {0: [wrong, grids[0]], 1: [grids[1], wrong], 2: [wrong] * 2, 3: [wrong] * 2}

    def adapt(model, puzzles, run, minutes):
        assert (model, minutes, list(Path(run).iterdir())) == ("model", 2.0, [])
        answers = {
            puzzle.name: [
                Answer(np.zeros((1, 1)), attempts[test], [1, 1], 2, None)
                for test in questions[puzzle.name]
            ]
            for puzzle in puzzles
        }
        return Adapted(answers, Path(run), False)

    monkeypatch.setattr(tool, "adapt", adapt)
    found = tool.unseen("model", tmp_path, 2.0)
    assert found == {
        "tasks": 3, "minutes": 2.0, "outputs": 4, "outputs found": 2,
        "pass@1": 16.67, "pass@2": 50.0, "pass@2 interval": [12.5, 87.5],
    }  # fmt: skip


def test_both_are_measured_and_written(tool, monkeypatch, tmp_path, capsys):
    found = tool.known(
        str(save_untrained(tmp_path / "plain", puzzle_emb_ndim=0)), build_random(tmp_path, 2), None
    )
    assert (found["tasks"], found["steps"]) == (2, 2)
    (tmp_path / "task.json").write_text(json.dumps(TASK))
    words = [str(save_untrained(tmp_path / "model")), "--unseen", str(tmp_path / "task.json")]
    words += ["--minutes", "0.05", "--json", str(tmp_path / "out.json")]
    monkeypatch.setattr(sys, "argv", ["arc_accuracy.py", *words])
    tool.main()
    written = json.loads((tmp_path / "out.json").read_text())
    assert written == json.loads(capsys.readouterr().out)
    assert written["unseen tasks"]["outputs"] == 1
