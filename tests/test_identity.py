"""Puzzle identifiers have a meaning, which a run keeps: it is not judged by another numbering."""

import json
import re
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from runs import config, make_data

from trm_mlx import InputError
from trm_mlx.cli import main
from trm_mlx.run.trainer import Trainer

NAMES = ["p0", "p1", "p2", "p3"]


def renamed(folder, names):
    """The random dataset with puzzles of other names."""
    make_data(folder, identifiers=len(names))
    (folder / "identifiers.json").write_text(json.dumps(names))
    return str(folder)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A dataset, and a checkpoint of it whose table tells its rows apart."""
    place = tmp_path_factory.mktemp("identity")
    trainer = Trainer(config(renamed(place / "data", NAMES), place / "run", epochs=2))
    rows = mx.arange(4)[:, None] * mx.ones((1, trainer.model.puzzle_emb.weights.shape[1]))
    trainer.model.puzzle_emb.weights = rows
    trainer.carry = trainer.model.initial_carry(
        {name: mx.zeros((8, 9), mx.int32) for name in ("inputs", "labels")}
        | {"puzzle_identifiers": mx.zeros((8,), mx.int32)}
    )
    trainer.open()
    trainer.save()
    trainer._folder.close()
    return place


def test_a_checkpoint_names_its_puzzles(place):
    (folder,) = (place / "run").glob("step_*")
    assert json.loads((folder / "identifiers.json").read_text()) == NAMES


def test_another_numbering_is_neither_judged_nor_continued(place, tmp_path, capsys):
    other = renamed(tmp_path / "other", ["p0", "p2", "p1", "p3"])
    assert main(["eval", str(place / "run"), "--data", other]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"puzzle identifier 1 is p1 in {place}/run/step_0000000 but p2 in {other}" in line
    assert "load_checkpoint=" in line
    assert "--data DIR" in line
    with pytest.raises(InputError, match="resume with the run's own dataset"):
        Trainer(config(other, place / "run", epochs=2), resume=place / "run")
    assert main(["eval", str(place / "run"), "--data", str(place / "data"), "--json"]) == 0


def test_a_test_set_of_another_numbering_is_refused(place, tmp_path):
    other = renamed(tmp_path / "other", ["p0", "p2", "p1", "p3"])
    with pytest.raises(InputError, match=r"identifier 1 is p1 .* build both from the same puzzles"):
        Trainer(config(str(place / "data"), tmp_path / "r", data_paths_test=[other]))


def test_a_numbering_that_nothing_checks_is_warned_of(place, tmp_path, capsys):
    other = renamed(tmp_path / "other", NAMES)
    (tmp_path / "other" / "identifiers.json").unlink()
    assert main(["eval", str(place / "run"), "--data", other, "--json"]) == 0
    assert f"warning: {other} does not name its puzzles" in capsys.readouterr().err
    trainer = Trainer(config(other, place / "run", epochs=2), resume=place / "run")
    assert [line for line in trainer._warnings if f"{other} does not name its puzzles" in line]
    assert trainer.names == NAMES  # which its next checkpoint still has
    assert main(["eval", str(place / "run"), "--data", str(place / "data"), "--json"]) == 0
    assert "warning: " not in capsys.readouterr().err


def test_puzzles_that_are_not_judged_may_be_others(place, tmp_path):
    other = Path(renamed(tmp_path / "other", ["p0", "p1", "p2", "new"]))
    identifiers = other / "test" / "all__puzzle_identifiers.npy"
    np.save(identifiers, np.minimum(np.load(identifiers), 2))
    assert main(["eval", str(place / "run"), "--data", str(other), "--json"]) == 0


def test_rows_are_kept_by_name(place, tmp_path, capsys):
    other = renamed(tmp_path / "other", ["p0", "new", "p1", "newer", "p3"])
    run = config(other, tmp_path / "r", epochs=2, load_checkpoint=str(place / "run"))
    trainer = Trainer(run)
    table = np.array(trainer.model.puzzle_emb.weights)[:, 0]
    np.testing.assert_allclose(table, [0, 1.5, 1, 1.5, 3])
    trainer.fit(lambda: True)
    expected = "3 of 5 puzzle embeddings kept by name, 2 set to the mean row"
    assert capsys.readouterr().err.count(expected) == 1


def test_checkpoints_without_names_still_load(place, tmp_path, capsys):
    folder = tmp_path / "run" / "step_0000000"
    folder.mkdir(parents=True)
    for path in (place / "run" / "step_0000000").iterdir():
        if path.name != "identifiers.json":
            (folder / path.name).write_bytes(path.read_bytes())
    other = renamed(tmp_path / "other", ["p0", "p2", "p1", "p3"])
    assert main(["eval", str(folder), "--data", other, "--json"]) == 0
    trainer = Trainer(config(other, tmp_path / "r", load_checkpoint=str(folder)))
    assert np.array(trainer.model.puzzle_emb.weights)[:, 0].tolist() == [0, 1, 2, 3]
    trainer.fit(lambda: True)
    assert "4 of 4 puzzle embeddings kept by number" in capsys.readouterr().err


def test_names_that_are_damaged(place, tmp_path):
    other = Path(renamed(tmp_path / "other", NAMES))
    (other / "identifiers.json").write_text('["p0"]')
    with pytest.raises(InputError, match=r"identifiers.json: 1 puzzles are named, but .* counts 4"):
        Trainer(config(str(other), tmp_path / "r"))


@pytest.mark.parametrize(
    ("task", "problem"),
    [
        ("sudoku9x9z", "no task 'sudoku9x9z'; choose "),
        ("sudoku9x9", "the task sudoku9x9 has vocab_size 11 and seq_len 81, not 6 and 9: correct"),
    ],
)
def test_a_task_that_data_state_wrongly_is_warned_of(tmp_path, capsys, task, problem):
    folder = Path(make_data(tmp_path / "data"))
    for path in folder.glob("*/dataset.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "task": task}))
    trainer = Trainer(config(str(folder), tmp_path / "r", epochs=2, eval_interval=2))
    trainer.fit(lambda: True)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "dataset.json" in line]
    assert line.startswith(f"warning: dataset.json of {folder}: {problem}")
    assert "the model is trained, but trm solve and evaluators=[rules] will refuse it" in line
    with pytest.raises(InputError, match=re.escape(problem)):
        Trainer(config(str(folder), tmp_path / "s", evaluators=[{"name": "rules"}]))


def test_without_a_test_split_a_run_trains_and_says_so_once(tmp_path, capsys):
    folder = Path(make_data(tmp_path / "data"))
    for path in (folder / "test").iterdir():
        path.unlink()
    (folder / "test").rmdir()
    trainer = Trainer(config(str(folder), tmp_path / "r"))
    assert trainer.fit() == {}
    assert trainer.finished
    assert (tmp_path / "r" / "step_0000012").is_dir()
    assert capsys.readouterr().err.count("no test split, so nothing is evaluated") == 1
    with pytest.raises(InputError, match="has no split 'test'"):
        Trainer(config(str(folder), tmp_path / "s", data_paths_test=[str(folder)]))
