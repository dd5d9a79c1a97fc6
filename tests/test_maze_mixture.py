"""The mixture of mazes, its options, and weights that go from one board to a larger one."""

import hashlib

import building
import hand_drawn
import mlx.core as mx
import numpy as np
import pytest

import trm_mlx
from trm_mlx import InputError, Solver, tasks
from trm_mlx.cli import main
from trm_mlx.config_io import train_config
from trm_mlx.models.checkpoint_files import read_weights
from trm_mlx.run.trainer import Trainer
from trm_mlx.solve.search import DEFAULT_SEARCH
from trm_mlx.tasks.maze import OPEN, WALL, Maze
from trm_mlx.train.batches import open_test, open_train


def config(*data_paths, **changes):
    arch = {
        "name": "trm", "hidden_size": 16, "num_heads": 2, "H_cycles": 1, "L_cycles": 1,
        "L_layers": 1, "puzzle_emb_ndim": 0, "halt_max_steps": 2, "pos_encodings": "rope2d",
    }  # fmt: skip
    arch |= changes.pop("arch", {})
    values = {"arch": arch, "data_paths": list(data_paths), "global_batch_size": 8, "epochs": 1}
    return train_config({**values, "puzzles_per_epoch": 16, "test_puzzles": 6, **changes})


def test_the_mixture_is_a_ladder_of_everything():
    questions, _, steps = Maze(30).generate(400, np.random.default_rng(0), kind="mixed")
    walls = (questions == WALL).mean(axis=1)
    assert walls.min() < 0.05
    assert walls.max() > 0.55
    assert steps.min() < 10
    assert steps.max() > 250  # serpentines and spirals
    assert (steps >= 110).mean() > 0.2
    edges = (questions.reshape(-1, 30, 30)[:, [0, -1]] == WALL).all(axis=(1, 2))
    assert 0.1 < edges.mean() < 0.5  # framed
    # Rows of corridors, which random walls never make: whole rows open but for a cell or two.
    rows = (questions.reshape(-1, 30, 30) == OPEN).sum(axis=2)
    assert ((rows >= 27).sum(axis=1) >= 8).mean() > 0.03


@pytest.mark.parametrize(
    ("kind", "side", "digest"),
    [
        ("walls", 10, "94549e82df1a5ec9"),
        ("walls", 30, "612e35a5d0363e73"),
        ("tree", 10, "1a77f3cd5fadc7d2"),
        ("mixed", 10, "037d3585577ac838"),
        ("mixed", 30, "f252206ea5bc5528"),
    ],
)
def test_draws_stay_those_that_models_were_tested_on(kind, side, digest):
    puzzles = Maze(side).generate(60, np.random.default_rng(side), kind)
    found = hashlib.blake2b(b"".join(map(np.ndarray.tobytes, puzzles)), digest_size=8)
    assert found.hexdigest() == digest


@pytest.mark.parametrize("side", [5, 6, 7, 31])
def test_the_mixture_exists_on_boards_of_any_side(side):
    task = Maze(side)
    questions, answers, steps = task.generate(20, np.random.default_rng(0), kind="mixed")
    assert task.check(questions, answers).all()
    assert (task.distances(questions) == steps).all()


def test_options_of_a_generator():
    task, options = tasks.get_generator("maze7x7/kind=mixed/min_path_length=12")
    assert (task, options) == (Maze(7), {"kind": "mixed", "min_path_length": 12})
    assert tasks.get_generator("sudoku4x4") == (tasks.get("sudoku4x4"), {})
    for text, message in (
        ("maze7x7/walls", "no such option; write /kind=..., /min_path_length=..."),
        ("maze7x7/kind=", "no such option; write /kind="),
        ("maze7x7/sort=mixed", "no such option; write /kind="),
        ("maze4x4/kind=mixed", "no maze of side 4"),
    ):
        with pytest.raises(InputError, match=message):
            tasks.get_generator(text)
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match="kind=hedge: choose one of walls, tree, mixed"):
        task.generate(1, rng, kind="hedge")
    with pytest.raises(InputError, match="min_path_length=49: a maze7x7 has paths of 1 to 48"):
        task.generate(1, rng, min_path_length=49)


def test_a_run_trains_and_tests_with_the_options():
    run = config("generate:maze7x7/kind=tree/min_path_length=9")
    task = Maze(7)
    train = open_train(run).batch(20, np.random.default_rng(0))
    test = open_test(run).parts[0].arrays
    assert open_test(run).metadata.task == "maze7x7"
    keys = []
    for inputs, labels in ((train["inputs"], train["labels"]), (test.inputs, test.labels)):
        boards = task.decode(inputs), task.decode(labels)
        assert task.distances(boards[0]).min() >= 9
        passable = (boards[0] != WALL).reshape(-1, 7, 7)
        edges = (passable[:, 1:] & passable[:, :-1]).sum(axis=(1, 2))
        edges += (passable[:, :, 1:] & passable[:, :, :-1]).sum(axis=(1, 2))
        assert (edges == passable.sum(axis=(1, 2)) - 1).all()  # trees
        keys.append(set(task.split_keys(*boards)))
    assert not keys[0] & keys[1]


def test_several_processes_build_the_same_whatever_their_number(tmp_path):
    words = ["--generate", 8, "--kind", "mixed", "--num-train", 300, "--num-test", 20]
    built = [
        building.build("maze", tmp_path / str(n), *words, "--workers", n)[0].parts[0].arrays
        for n in (2, 3)
    ]
    assert len(np.unique(built[0].inputs, axis=0)) == 300
    np.testing.assert_array_equal(built[0].inputs, built[1].inputs)


def test_weights_go_on_to_another_side(tmp_path):
    small = config("generate:maze5x5", checkpoint_path=str(tmp_path / "small"))
    Trainer(small).fit()
    large = {"load_checkpoint": str(tmp_path / "small"), "checkpoint_path": str(tmp_path / "large")}
    trainer = Trainer(config("generate:maze6x6", **large))
    saved = read_weights(next((tmp_path / "small").glob("step_*")) / "model.safetensors")
    ours = dict(trainer.parameters())
    assert all(mx.array_equal(saved[name], ours[name]) for name in ours)
    trainer.fit()
    assert trm_mlx.load(tmp_path / "large")[1].seq_len == 36
    for arch in ({"pos_encodings": "learned"}, {"mlp_t": True}):
        folder = tmp_path / "-".join(arch)
        Trainer(config("generate:maze5x5", arch=arch, checkpoint_path=str(folder))).fit()
        with pytest.raises(InputError, match="trained with seq_len=25, this run has seq_len=36"):
            Trainer(config("generate:maze6x6", arch=arch, load_checkpoint=str(folder)))


def test_what_is_no_board_is_refused_with_a_line(capsys):
    words = ["arch=trm", "data_paths=[generate:addition3]", "arch.pos_encodings=rope2d"]
    assert main(["train", *words]) == 2
    assert "seq_len=12 is no square board" in capsys.readouterr().err


def test_the_bundled_models_solve_what_people_draw():
    boards = np.stack(hand_drawn.drawn())
    larger = hand_drawn.larger(boards[2], False)[None]
    for name, questions, rows in (("maze-10x10", boards, 3), ("maze-30x30", larger, 1)):
        model, _ = trm_mlx.load(name)
        task = Maze(int(questions.shape[1] ** 0.5))
        solver = Solver(model, batch_size=rows, search=DEFAULT_SEARCH, task=task)
        answers, _ = solver.predict(task.encode(questions))
        assert task.check(questions, task.decode(answers)).mean() >= 0.95
