"""Structured rows: the embedding of a version of an ARC puzzle as a sum of rows."""

import mlx.core as mx
import numpy as np
import pytest
from arcs import build_random
from runs import arrays_of, assert_same, take_steps
from tiny import ARCH

import trm_mlx
from trm_mlx.cli import main
from trm_mlx.config_io import load_config
from trm_mlx.errors import InputError
from trm_mlx.run.trainer import Trainer
from trm_mlx.tasks.arc_rows import PARTS, SHARED, parts_of, row_names
from trm_mlx.train.optim import shared_sign_descent, sign_descent

NAMES = ["<blank>", "a", "a|||t3|||0213456789", "b", "a|||t3|||0987654321"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return build_random(tmp_path_factory.mktemp("rows"), count=3)


def config(data, folder, *words):
    return load_config(
        [
            *ARCH,
            "arch.puzzle_rows=structured",
            "arch.pos_encodings=rope2d",
            "arch.canvases=[10,30]",
            "arch.halt_max_steps=2",
            f"data_paths=[{data}]",
            "global_batch_size=4",
            "epochs=40",
            "eval_interval=40",
            "lr_warmup_steps=0",
            f"checkpoint_path={folder}",
            *words,
        ]
    )


def test_parts_are_those_of_puzzle_transform_and_colours():
    parts = parts_of(NAMES)
    assert parts.shape == (5, PARTS)
    assert (parts[0] == 0).all()
    assert parts[:, 0].tolist() == [0, SHARED, SHARED, SHARED + 1, SHARED]
    assert parts[1:, 1].tolist() == [1, 4, 1, 4]
    # Rows 9 + 9 * (colour - 1) + (new colour - 1).
    assert parts[1, 2:].tolist() == [9 + 10 * n for n in range(9)]
    assert parts[2, 2:4].tolist() == [9 + 1, 18 + 0]
    assert parts[4, 2] == 9 + 8
    assert len(row_names(NAMES)) == parts.max() + 1
    assert row_names(NAMES)[SHARED:] == ["a", "b"]


def test_descent_moves_every_row_by_its_own_sum():
    """Beside the plain one on embeddings of one row: the same moves."""
    rng = np.random.default_rng(0)
    table = mx.array(rng.normal(size=(SHARED + 3, 4)).astype(np.float32))
    gradients = mx.array(rng.normal(size=(3, 4)).astype(np.float32))
    alone = mx.array([SHARED, SHARED + 2, SHARED])
    rate = mx.array(0.01)
    plain = sign_descent(mx.array(table), alone, gradients, rate, 0.1)
    shared = shared_sign_descent(table, alone[:, None], gradients, rate, 0.1)
    np.testing.assert_allclose(shared, plain, rtol=1e-6)
    parts = mx.array([[SHARED, 5], [SHARED + 2, 5], [SHARED, 7]])
    moved = np.array(shared_sign_descent(table, parts, gradients, rate, 0.1))
    np.testing.assert_allclose(moved[SHARED:], plain[SHARED:], rtol=1e-6)
    five = np.array(table[5]) * (1 - 0.001 * 0.1) - 0.001 * np.sign(gradients[0] + gradients[1])
    np.testing.assert_allclose(moved[5], five, rtol=1e-6)
    np.testing.assert_array_equal(moved[6], table[6])


def test_a_run_learns_resumes_loads_and_goes_on(data, tmp_path):
    whole = Trainer(config(data, tmp_path / "whole"))
    expected = take_steps(whole, 4)
    table = whole.model.puzzle_emb.weights
    assert len(table) == SHARED + 3
    assert mx.abs(table[SHARED:]).sum(axis=1).min().item() > 0
    assert mx.abs(table[9:SHARED]).sum().item() > 0
    assert (table[0] == 0).all()
    cut = Trainer(config(data, tmp_path / "cut"))
    take_steps(cut, 2)
    folder = cut.save()
    resumed = Trainer(config(data, tmp_path / "cut"), folder)
    assert take_steps(resumed, 2) == expected[2:]
    assert_same(arrays_of(whole), arrays_of(resumed))
    # Loaded, it has the embeddings that it was trained with.
    model, _ = trm_mlx.load(folder)
    versions = mx.arange(1, 6)
    np.testing.assert_array_equal(
        model.puzzle_emb(versions),
        cut_table_sum(model, parts_of(cut.names)[1:6]),
    )
    assert mx.abs(model.puzzle_emb(versions)).sum().item() > 0
    # Another run keeps the shared rows and the puzzles that it knows by name.
    more = build_random(tmp_path, count=5)
    start = config(more, tmp_path / "more", f"load_checkpoint={folder}")
    begun = Trainer(start).model.puzzle_emb.weights
    names = row_names(Trainer(start).names)
    known = dict(zip(row_names(cut.names), np.array(model.puzzle_emb.weights), strict=True))
    mean = np.array(model.puzzle_emb.weights[SHARED:]).mean(axis=0)
    assert len(names) == len(begun) == SHARED + 5
    for name, row in zip(names, begun, strict=True):
        np.testing.assert_allclose(row, known.get(name, mean), rtol=1e-5, atol=1e-7)


def test_export_refuses_what_the_published_code_lacks(data, tmp_path, capsys):
    words = ["arch.pos_encodings=rope", "arch.canvases=null"]
    folder = Trainer(config(data, tmp_path / "run", *words))
    take_steps(folder, 1)
    assert main(["export", str(folder.save()), str(tmp_path / "x.pt")]) == 2
    assert (
        "puzzle_rows=structured, which the published trm does not know" in capsys.readouterr().err
    )


def cut_table_sum(model, parts):
    return model.puzzle_emb.weights[mx.array(parts)].sum(axis=1)


def test_without_names_or_embeddings_it_is_refused(data, tmp_path):
    with pytest.raises(InputError, match=r"arch.puzzle_rows=structured is for data of"):
        Trainer(config(data, tmp_path / "run", "arch.puzzle_emb_ndim=0", "arch.puzzle_emb_len=0"))


def test_solve_says_that_its_canvas_is_another(data, tmp_path, capsys):
    trainer = Trainer(config(data, tmp_path / "run"))
    take_steps(trainer, 1)
    words = ["solve", "--checkpoint", trainer.save(), "--data", data, "--name", "p0"]
    assert main(list(map(str, words))) in (0, 1)
    assert "note: solved on a 30x30 canvas" in capsys.readouterr().err
