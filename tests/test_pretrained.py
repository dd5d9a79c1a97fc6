"""Models that come with the package: found by name, and by the puzzle where none is named."""

import csv
import json
import sys
from contextlib import suppress

import mlx.core as mx
import numpy as np
import pytest

import trm_mlx
from trm_mlx import InputError, tasks
from trm_mlx.cli import main
from trm_mlx.config import ModelConfig
from trm_mlx.config_io import arch_config
from trm_mlx.models import checkpoint_files
from trm_mlx.models.checkpoint_files import save_model
from trm_mlx.models.model import build_model
from trm_mlx.solve.questions import Source, bundled_model, bundled_solvers
from trm_mlx.tasks.arc import canvas_of
from trm_mlx.tasks.holdout import draw_distinct
from trm_mlx.train.canvases import cut

pytestmark = pytest.mark.slow
SUDOKU = "4 3 . . 2 1 . 4 3 2 . . . . . 2"


@pytest.fixture
def two_models(tmp_path, monkeypatch):
    """Untrained models for 4x4 Sudoku and for sums of one digit, bundled."""
    for name, task in (("small-sudoku", "sudoku4x4"), ("sums", "addition1")):
        arch = arch_config(
            "trm", hidden_size=8, num_heads=1, L_layers=1, H_cycles=1, L_cycles=1,
            puzzle_emb_ndim=0, halt_max_steps=2,
        )  # fmt: skip
        sizes = {"seq_len": tasks.get(task).seq_len, "vocab_size": tasks.get(task).vocab_size}
        folder = tmp_path / "pretrained" / name
        folder.mkdir(parents=True)
        save_model(folder, build_model(ModelConfig.of(arch, num_puzzle_identifiers=1, **sizes)))
    monkeypatch.setattr(checkpoint_files, "PRETRAINED", tmp_path / "pretrained")
    return tmp_path


def test_by_name(two_models, monkeypatch):
    _, config = trm_mlx.load("sums")
    assert config.seq_len == tasks.get("addition1").seq_len
    with pytest.raises(InputError, match="products does not exist"):
        trm_mlx.load("products")
    monkeypatch.chdir(two_models)
    (two_models / "sums").mkdir()  # a folder goes first
    with pytest.raises(InputError, match="sums has no checkpoint"):
        trm_mlx.load("sums")


@pytest.mark.parametrize("puzzle", [SUDOKU, "3+4="])
def test_by_the_puzzle(two_models, capsys, puzzle):
    main(["solve", puzzle])
    assert "attempts" in capsys.readouterr().out


def test_by_file_dataset_and_table(two_models, capsys, monkeypatch):
    text = two_models / "puzzles.txt"
    text.write_text(f"\n{SUDOKU}\n")
    main(["solve", "--file", str(text)])
    assert "halted" in capsys.readouterr().out.replace("stopped", "halted")
    table = two_models / "puzzles.csv"
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([["question"], ["no puzzle"], ["1+2="], ["9+9="]])
    assert main(["solve", str(table), "-o", str(two_models / "out.csv")]) == 1
    assert "3 rows" in capsys.readouterr().out
    words = ["--output-dir", str(two_models / "data"), "--num-train", "4", "--num-test", "4"]
    assert main(["build", "sudoku", "--generate", "4", *words]) == 0
    main(["solve", "--data", str(two_models / "data")])
    assert "the dataset's answer" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("puzzle", "reason"),
    [
        ("." * 15, "15 cells where a 4x4 Sudoku has 16; write every cell, blanks as . or 0"),
        ("11" + "." * 14, "r1c1 and r1c2 both hold 1; change or blank one of them"),
    ],
)
def test_a_puzzle_of_no_bundled_model(two_models, capsys, puzzle, reason):
    assert main(["solve", puzzle]) == 2
    assert capsys.readouterr().err == (
        f"error: the puzzle of {len(puzzle)} characters: looks like a 4x4 Sudoku; {reason}\n"
    )


def test_a_file_is_read_and_one_without_puzzles_refused(two_models, capsys):
    path = two_models / "puzzles.txt"
    path.write_text("1+2=\n")
    assert main(["solve", str(path)]) in (0, 1)  # by an untrained model
    assert "1+2=" in capsys.readouterr().out
    path.write_text("question\n")
    assert main(["solve", str(path), "-o", str(two_models / "out.csv")]) == 2
    assert f"{path} has no puzzles" in capsys.readouterr().err


def test_nothing_to_solve_at_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    assert main(["solve"]) == 2
    assert "no puzzle: write one after trm solve" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("puzzle", "read"),
    [
        ("123+321=", ["arc-agi-1", "arithmetic"]),
        ("12*34", [*checkpoint_files.bundled()]),
    ],
)
def test_no_model_is_read_that_is_not_asked_for(monkeypatch, puzzle, read):
    asked = []
    known = checkpoint_files.read_config
    monkeypatch.setattr(
        "trm_mlx.solve.questions.read_config",
        lambda folder: asked.append(folder.name) or known(folder),
    )
    with suppress(InputError):  # there is none for products
        bundled_model(Source("here", puzzle))
    assert asked == read


# The models themselves

CARDS = checkpoint_files.bundled()


@pytest.mark.parametrize("name", CARDS)
def test_a_bundled_model_is_small_and_has_a_card(name):
    folder = CARDS[name]
    assert (folder / "model.safetensors").stat().st_size <= 24 * 10**6
    arrays = mx.load(str(folder / "model.safetensors"))
    assert {array.dtype for array in arrays.values()} == {mx.bfloat16}
    assert (folder / "README.md").stat().st_size > 1000
    assert json.loads((folder / "accuracy.json").read_text())


@pytest.mark.parametrize("name", bundled_solvers())
def test_a_bundled_model_solves_what_it_never_saw(name):
    model, config = trm_mlx.load(name)
    task = tasks.task_of(config)
    # Large boards take seconds a puzzle on a CPU, and as many for an idle row.
    count, rows = 40, None
    if config.seq_len > 80:
        count, rows = (2 if config.seq_len > 200 else 6), 1
    puzzles = draw_distinct(task, count, np.random.default_rng(7), testing=True)
    solver = trm_mlx.Solver(model, batch_size=rows)
    answers, _ = solver.predict(task.encode(puzzles.questions))
    right = task.check(puzzles.questions, task.decode(answers))
    assert right.mean() >= 0.9


def turned_half(grid):
    return np.rot90(grid, 2)


@pytest.mark.parametrize(
    ("known", "rule", "colours", "shape"),
    [
        ("68b16354", np.flipud, [1, 2, 3, 4, 7, 8], (5, 5)),
        ("3c9b0459", turned_half, [1, 2, 4, 5, 6, 7, 8, 9], (3, 3)),
    ],
)
def test_the_bundled_arc_model_applies_the_rules_of_its_tasks_to_other_grids(
    known, rule, colours, shape
):
    model, _ = trm_mlx.load("arc-agi-1")
    names = json.loads((CARDS["arc-agi-1"] / "identifiers.json").read_text("utf-8"))
    rng, count = np.random.default_rng(0), 8
    grids = [rng.choice(colours, shape) for _ in range(count)]
    stored = {
        "inputs": np.stack([canvas_of(grid) for grid in grids]).astype(np.int32),
        "labels": np.stack([canvas_of(rule(grid)) for grid in grids]).astype(np.int32),
        "puzzle_identifiers": np.full(count, names.index(known), np.int32),
    }
    batch = {name: mx.array(array) for name, array in cut(stored, 10).items()}
    carry = model.initial_carry(batch)
    for _ in range(4):
        carry, outputs = model(carry, batch)
    tokens, wanted = outputs["logits"].argmax(axis=-1), batch["labels"]
    right = ((tokens == wanted) | (wanted < 1)).all(axis=1)
    assert right.sum().item() >= 6


def test_the_bundled_arc_model_is_adapted_by_default(tmp_path, capsys):
    """Minutes of a GPU find tasks; here it makes a few steps."""
    rng = np.random.default_rng(0)
    grids = [rng.integers(0, 4, (4, 4)) for _ in range(4)]
    pairs = [{"input": grid.tolist(), "output": grid.tolist()} for grid in grids]
    task = tmp_path / "task.json"
    task.write_text(json.dumps({"train": pairs[:3], "test": pairs[3:]}))
    words = ["--steps", "4", "--versions", "2", "--batch-size", "4"]
    assert main(["adapt", str(task), *words, "--run", str(tmp_path / "run")]) == 0
    assert json.loads((tmp_path / "run" / "adapt.json").read_text())["model"] == "arc-agi-1"
    assert "known answers in two attempts" in capsys.readouterr().out


def test_an_arc_task_is_not_solved_but_learnt(tmp_path, capsys):
    task = tmp_path / "task.json"
    pair = {"input": [[1, 2]], "output": [[2, 1]]}
    task.write_text(json.dumps({"train": [pair], "test": [pair]}))
    assert main(["solve", str(task)]) == 2
    expected = f"error: {task}: an ARC task is learnt from its examples first: trm adapt TASK.json"
    assert capsys.readouterr().err.strip() == expected
