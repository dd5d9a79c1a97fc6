"""ARC on smaller canvases: which one a puzzle gets, what lies on it, and runs that use them."""

import json

import mlx.core as mx
import numpy as np
import pytest
from arcs import random_grid
from runs import arrays_of, assert_same, take_steps
from tiny import ARCH

from trm_mlx.builders.arc import build_arc
from trm_mlx.config import ModelConfig
from trm_mlx.config_io import arch_config, load_config
from trm_mlx.data.arrays import IGNORE_LABEL
from trm_mlx.data.dataset import PuzzleDataset
from trm_mlx.errors import InputError
from trm_mlx.evaluate import evaluate as evaluating
from trm_mlx.evaluate.evaluate import EvaluationStep, evaluate
from trm_mlx.models.model import build_model
from trm_mlx.run.trainer import Trainer
from trm_mlx.tasks.arc import canvas_of, grids_of
from trm_mlx.tasks.arc_canvas import fit_to, known_extent, restore, smallest_side
from trm_mlx.train.batches import train_stream
from trm_mlx.train.canvases import CanvasStream, examples_by_side, groups_by_side

SIDES = [10, 14, 18, 30]
EXTENTS = {"small": 3, "also": 5, "middle": 11, "large": 16}  # of the grids of a puzzle


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("canvases")
    rng = np.random.default_rng(0)
    for subset, names in {"a": ["small", "middle"], "b": ["also", "large"]}.items():
        puzzles, solutions = {}, {}
        for name in names:
            pairs = [square_pair(rng, EXTENTS[name]) for _ in range(4)]
            puzzles[name] = {"train": pairs[:3], "test": [{"input": pairs[3]["input"]}]}
            solutions[name] = [pairs[3]["output"]]
        (folder / f"arc_{subset}_challenges.json").write_text(json.dumps(puzzles))
        (folder / f"arc_{subset}_solutions.json").write_text(json.dumps(solutions))
    build_arc(
        folder / "data",
        input_file_prefix=folder / "arc",
        subsets=["a", "b"],
        test_set_name="b",
        num_aug=2,
    )
    return folder / "data"


def square_pair(rng, extent):
    grids = rng.integers(10, size=(2, extent, extent)).tolist()
    return {"input": grids[0], "output": grids[1]}


def config(data, folder, *words, canvases=SIDES):
    return load_config(
        [
            *ARCH,
            "arch.pos_encodings=rope2d",
            "arch.halt_max_steps=2",
            f"arch.canvases={canvases}".replace(" ", ""),
            f"data_paths=[{data}]",
            "global_batch_size=6",
            "epochs=6",
            "eval_interval=3",
            "lr_warmup_steps=1",
            f"checkpoint_path={folder}",
            *words,
        ]
    )


# One puzzle


def test_the_smallest_canvas_with_room_for_the_end_marks():
    assert [smallest_side(extent, (10, 14, 30)) for extent in (1, 9, 10, 14, 29, 30)] == [
        10, 10, 14, 30, 30, 30,
    ]  # fmt: skip


def test_an_answer_is_expected_to_grow_as_in_the_pairs():
    assert known_extent([((3, 2), (9, 2)), ((2, 2), (2, 4))], [(4, 4), (1, 5)]) == 15
    assert known_extent([((9, 9), (3, 3))], [(12, 4)]) == 12
    assert known_extent([((1, 1), (30, 30))], [(2, 2)]) == 30


def moved(grid, row, column):
    """A stored canvas with a grid and its marks at a place."""
    canvas = np.zeros((61, 61), np.int32)
    canvas[row : row + 31, column : column + 31][: grid.shape[0] + 1, : grid.shape[1] + 1] = marked(
        grid
    )
    return canvas[:30, :30].ravel()


def marked(grid):
    board = np.zeros((grid.shape[0] + 1, grid.shape[1] + 1), np.int32)
    board[:-1, :-1] = grid + 2
    board[-1, :-1] = board[:-1, -1] = 1
    return board


def test_grids_keep_their_share_of_the_room():
    rng = np.random.default_rng(1)
    for side in (10, 14, 30):
        for _ in range(30):
            before, after = (random_grid(rng, side) for _ in range(2))
            rows, columns = np.maximum(before.shape, after.shape)
            row, column = rng.integers(0, (30 - rows, 30 - columns), endpoint=True)
            labels = moved(after, row, column)
            labels[labels == 0] = IGNORE_LABEL
            inputs, labels = fit_to(
                moved(before, row, column)[None], labels[None], side, IGNORE_LABEL
            )
            there = [
                int(place * (side - size + 1) // (30 - size + 1))
                for place, size in ((row, rows), (column, columns))
            ]
            for board, grid, empty in ((inputs, before, 0), (labels, after, IGNORE_LABEL)):
                expected = moved(grid, *there).reshape(30, 30)[:side, :side]
                expected = np.where(expected == 0, empty, expected)
                np.testing.assert_array_equal(board.reshape(side, side), expected)


def test_back_on_a_stored_canvas():
    grid = np.arange(12, dtype=np.uint8).reshape(3, 4) % 10
    stored = canvas_of(grid)[None].astype(np.int32)
    small, _ = fit_to(stored, stored, 10, IGNORE_LABEL)
    np.testing.assert_array_equal(restore(small, 10), stored)
    np.testing.assert_array_equal(grids_of(restore(small, 10))[0], grid)
    assert restore(np.ones((2, 100, 12)), 10).shape == (2, 900, 12)


# A dataset


def test_groups_of_both_splits_get_the_same_side(data):
    for split in ("train", "test"):
        dataset = PuzzleDataset([data], split)
        found = groups_by_side(dataset, SIDES)
        extents = {
            side: sorted(
                int((dataset.batch(np.array([first]), np.array([0]), 1)["inputs"] > 1).sum()) ** 0.5
                for first in dataset.puzzle_indices[dataset.group_indices[groups]]
            )
            for side, groups in found.items()
        }
        expected = {10: [3, 5], 14: [11], 18: [16]} if split == "train" else {10: [5], 18: [16]}
        assert extents == expected


def test_rare_sides_join_larger_ones(data):
    dataset = PuzzleDataset([data], "train")  # small: 4 examples, also: 3, middle: 4, large: 3
    assert [*groups_by_side(dataset, SIDES, least=4)] == [10, 18]
    assert [*groups_by_side(dataset, SIDES, least=8)] == [18]


def test_batches_are_of_one_side_and_an_interval_visits_every_puzzle(data, tmp_path):
    settings = config(data, tmp_path)
    train, test = (PuzzleDataset([data], split) for split in ("train", "test"))
    stream = train_stream(train, test, settings, None)
    assert isinstance(stream, CanvasStream)
    batches = list(stream)
    sides = [round(batch["inputs"].shape[1] ** 0.5) for batch, _ in batches]
    assert sides == [10, 14, 18, 10, 10]
    assert batches[-1][1] == {"epoch": 3, "offset": 0} == stream.position
    for batch, _ in batches:
        assert batch["labels"].shape == batch["inputs"].shape
        assert (batch["inputs"] > 1).any(axis=1).all()
    second = list(stream)
    assert len(second) == len(batches)
    assert (second[0][0]["inputs"] != batches[0][0]["inputs"]).any()
    # From every position on, the rest is the same.
    for number in (1, 2, 4):
        rest = list(train_stream(train, test, settings, batches[number - 1][1]))
        for (batch, position), (again, place) in zip(batches[number:], rest, strict=True):
            assert position == place
            for name, array in batch.items():
                np.testing.assert_array_equal(array, again[name])


def test_one_canvas_is_the_published_run(data, tmp_path):
    """``canvases: [30]`` draws the batches and takes the steps of a run without the option."""
    results = []
    for canvases in ("null", "[30]"):
        words = "global_batch_size=2"
        trainer = Trainer(config(data, tmp_path / canvases, words, canvases=canvases))
        results.append((take_steps(trainer, 1), arrays_of(trainer)))
    (metrics, arrays), (others, other_arrays) = results
    assert metrics == others
    assert_same(arrays, other_arrays)


# A run


def test_a_run_resumes_bit_for_bit_with_a_carry_for_every_side(data, tmp_path):
    whole = Trainer(config(data, tmp_path / "whole"))
    expected = take_steps(whole, 6)
    assert sorted(whole.carries) == [100, 196, 324]
    cut = Trainer(config(data, tmp_path / "cut"))
    take_steps(cut, 3)
    folder = cut.save()
    assert {path.name for path in folder.glob("carry*")} == {
        "carry_10.safetensors", "carry_14.safetensors", "carry_18.safetensors",
    }  # fmt: skip
    resumed = Trainer(config(data, tmp_path / "cut"), tmp_path / "cut")
    assert take_steps(resumed, 3) == expected[3:]
    assert_same(arrays_of(whole), arrays_of(resumed))


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_passes_of_a_smaller_canvas_are_one_batch(data, tmp_path, dropout):
    word = f"arch.dropout={dropout}"
    whole = Trainer(config(data, tmp_path / "whole", word))
    parts = Trainer(config(data, tmp_path / "parts", word, "batch_size=2"))
    for one, other in zip(take_steps(whole, 4), take_steps(parts, 4), strict=True):
        np.testing.assert_allclose(other["lm_loss"], one["lm_loss"], rtol=1e-5)


def test_the_log_counts_operations_and_visits(data, tmp_path):
    trainer = Trainer(config(data, tmp_path / "run", "epochs=3"))
    trainer.fit()
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "train/pflop" in line]
    by_side = [line["train/pflop"] for line in steps]
    assert len(set(by_side)) == 3
    assert by_side[0] < by_side[1] < by_side[2]
    model, length = trainer.model, 1 + 324
    weights = sum(w.size for name, w in parameters(model) if name.startswith("L_level"))
    application = 2 * (weights * length + 2 * 16 * length**2)
    updates = model.recursion
    expected = len(updates.free_updates) + 3 * len(updates.in_grad_updates)
    assert by_side[2] == pytest.approx(6 * expected * application / 1e15)
    counts = np.cumsum([line["train/count"] for line in steps])
    identifiers = len(np.unique(PuzzleDataset([data], "train").puzzle_identifiers))
    np.testing.assert_allclose([line["train/visits"] for line in steps], counts / identifiers)
    assert any(name.startswith("ARC/") for line in lines for name in line)


def parameters(model):
    from mlx.utils import tree_flatten

    return tree_flatten(model.trainable_parameters())


@pytest.fixture(scope="module")
def held_out(data):
    return PuzzleDataset([data], "test")


@pytest.fixture
def model(held_out):
    arch = arch_config(
        "trm", hidden_size=16, num_heads=2, L_layers=1, H_cycles=1, L_cycles=1, halt_max_steps=1,
        puzzle_emb_len=1, pos_encodings="rope2d", canvases=SIDES,
    )  # fmt: skip
    identifiers = held_out.metadata.num_puzzle_identifiers
    sizes = {"seq_len": 900, "vocab_size": 12, "num_puzzle_identifiers": identifiers}
    return build_model(ModelConfig.of(arch, **sizes))


def test_evaluation_has_rows_by_the_positions_of_a_side(monkeypatch, held_out, model):
    """And MLX's cache is cleared between sides: nothing of one has the size of another."""
    asked, cleared, evaluation_rows = [], [], evaluating.evaluation_rows
    monkeypatch.setattr("mlx.core.clear_cache", lambda: cleared.append(True))
    monkeypatch.setattr(
        evaluating,
        "evaluation_rows",
        lambda *sizes: asked.append(sizes[1:]) or evaluation_rows(*sizes),
    )
    evaluate(EvaluationStep(model, "softmax_cross_entropy"), held_out)
    sides = examples_by_side(held_out, SIDES)
    lengths = [(len(held_out), 901), *((len(chosen), 1 + side**2) for side, chosen in sides)]
    assert asked == lengths
    assert len(cleared) == len(lengths) - 2 > 0


def test_evaluation_judges_on_stored_canvases(held_out, model):
    """A model that copies its input is right on pairs of equal grids, on every canvas."""
    dataset = held_out
    seen = []

    class Recorder:
        def begin(self):
            pass

        def update(self, batch, outputs):
            seen.append((batch, outputs))

    step = EvaluationStep(model, "softmax_cross_entropy")
    means, saved = evaluate(
        step, dataset, 4, save=("inputs", "labels", "preds"), evaluators=[Recorder()]
    )
    assert means["all"]["count"] == len(dataset.parts[0].arrays.inputs) == len(saved["inputs"])
    every = np.arange(len(saved["inputs"]))
    owners = np.searchsorted(dataset.puzzle_indices, every, side="right") - 1
    stored = dataset.batch(every, owners, len(every))
    np.testing.assert_array_equal(saved["inputs"], stored["inputs"])
    np.testing.assert_array_equal(saved["labels"], stored["labels"])
    for batch, outputs in seen:
        assert batch["inputs"].shape[1] == outputs["preds"].shape[1] == 900
    # One example by hand, on its own canvas.
    inputs, _ = fit_to(stored["inputs"][:1], stored["labels"][:1], 10, IGNORE_LABEL)
    if groups_by_side(dataset, SIDES)[10][0] == 0:
        batch = {
            "inputs": mx.array(inputs),
            "labels": mx.array(inputs),
            "puzzle_identifiers": mx.array(stored["puzzle_identifiers"][:1]),
        }
        model.eval()
        _, outputs = model(model.initial_carry(batch), batch)
        predicted = np.array(mx.argmax(outputs["logits"], axis=-1))
        np.testing.assert_array_equal(restore(predicted, 10)[0], saved["preds"][0])


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["arch.canvases=[10,14]"], "name different sides up to 30"),
        (["arch.canvases=[]"], "name different sides up to 30"),
        (["arch.canvases=[10,10,30]"], "name different sides up to 30"),
        (["arch.canvases=[0,30]"], "name different sides up to 30"),
        (["arch.pos_encodings=rope"], "arch.pos_encodings=rope2d"),
        (["arch.mlp_t=true"], "arch.pos_encodings=rope2d"),
    ],
)
def test_canvases_that_are_refused(tmp_path, words, match):
    with pytest.raises(InputError, match=match):
        config("nowhere", tmp_path, *words)


def test_data_of_other_tasks_are_refused(tmp_path):
    from runs import make_data

    data = make_data(tmp_path / "random", seq_len=900)
    with pytest.raises(InputError, match=r"arch.canvases is for data of 'trm build arc'"):
        Trainer(config(data, tmp_path / "run"))
