"""A training run: what a step changes, compiled or not, and that a resumed run is the same run."""

import json
import shutil

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from runs import arrays_of, assert_same, config, make_data, take_steps

import trm_mlx
from trm_mlx import InputError
from trm_mlx.cli import main
from trm_mlx.evaluate.evaluate import evaluate
from trm_mlx.run.trainer import Trainer


@pytest.mark.parametrize(
    ("variant", "changes"),
    [
        ("trm", {}),
        ("hrm", {}),
        ("trm", {"optimizer": "muon", "random_starts": 0.5, "depth_curriculum": True}),
    ],
)
def test_resumed_run_is_the_uninterrupted_one(data, tmp_path, variant, changes):
    arch = {"name": variant, "H_layers": 1, "num_heads": 2}
    whole = Trainer(config(data, tmp_path / "whole", arch, **changes))
    whole.fit()
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut" / "step_0000012")
    resumed = Trainer(config(data, tmp_path / "cut", arch, **changes), resume=tmp_path / "cut")
    assert resumed.progress.step == 6
    resumed.fit()

    assert_same(arrays_of(whole), arrays_of(resumed))
    logs = [(tmp_path / run / "metrics.jsonl").read_text() for run in ("whole", "cut")]
    assert logs[0] == logs[1]
    assert [json.loads(line)["step"] for line in logs[0].splitlines()] == sorted(
        [*range(1, 13), 6, 12]
    )


@pytest.mark.parametrize("cut", [1, 2, 4])
def test_resume_in_the_middle_of_an_interval(data, tmp_path, cut):
    whole = Trainer(config(data, tmp_path / "whole"))
    expected = take_steps(whole, 6)
    cut_run = Trainer(config(data, tmp_path / "cut"))
    take_steps(cut_run, cut)
    cut_run.save()
    resumed = Trainer(config(data, tmp_path / "cut"), resume=tmp_path / "cut")
    assert take_steps(resumed, 6 - cut) == expected[cut:]
    assert_same(arrays_of(whole), arrays_of(resumed))


def test_checkpoints_between_evaluations(data, tmp_path):
    """Every so many steps; each of them continues to the same end."""
    whole = Trainer(config(data, tmp_path / "whole", save_interval=4))
    whole.fit(show=False)
    folders = sorted(path.name for path in (tmp_path / "whole").glob("step_*"))
    assert folders == ["step_0000004", "step_0000006", "step_0000008", "step_0000012"]
    for number, step in enumerate(folders[:3:2]):
        cut = tmp_path / f"cut{number}"
        shutil.copytree(tmp_path / "whole", cut)
        for later in folders[folders.index(step) + 1 :]:
            shutil.rmtree(cut / later)
        resumed = Trainer(config(data, cut, save_interval=4), resume=cut)
        assert resumed.progress.step == int(step[-2:])
        resumed.fit(show=False)
        assert_same(arrays_of(whole), arrays_of(resumed))
        logs = [(run / "metrics.jsonl").read_text() for run in (tmp_path / "whole", cut)]
        assert logs[0] == logs[1]


def test_resume_with_puzzles_of_another_length_names_that(data, tmp_path):
    trainer = Trainer(config(data, tmp_path / "r"))
    take_steps(trainer, 2)
    folder = trainer.save()
    # Too few for the data position, too, which is not the point.
    longer = make_data(tmp_path / "longer", examples=10, seq_len=16)
    with pytest.raises(
        InputError, match="with seq_len=9, this run has seq_len=16: make them agree"
    ):
        Trainer(config(longer, tmp_path / "r"), resume=folder)


def test_resume_on_other_puzzles_names_what_differs(data, tmp_path):
    trainer = Trainer(config(data, tmp_path / "r", epochs=2))
    take_steps(trainer, 1)
    trainer.progress.position = {"epoch": 0, "offset": 20}
    folder = trainer.save()
    few = make_data(tmp_path / "few", identifiers=3, examples=12)
    with pytest.raises(InputError, match="weights has shape"):
        Trainer(config(few, tmp_path / "r", epochs=2), resume=folder)


def test_resume_without_the_carry_begins_new_puzzles(data, tmp_path, capsys):
    cut = Trainer(config(data, tmp_path / "run"))
    take_steps(cut, 4)
    before = arrays_of(cut)
    (cut.save() / "carry.safetensors").unlink()
    resumed = Trainer(config(data, tmp_path / "run"), resume=tmp_path / "run")
    assert not resumed.carries
    resumed.carries = cut.carries
    assert_same(before, arrays_of(resumed))
    resumed.carries = {}
    resumed.fit()
    assert "step_0000004 has no carry: every row begins a new puzzle" in capsys.readouterr().err
    assert resumed.progress.step == 12


def test_same_seed_same_run_and_another_seed_another(data, tmp_path):
    runs = [take_steps(Trainer(config(data, tmp_path / "r", seed=seed)), 4) for seed in (0, 0, 1)]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


@pytest.mark.parametrize("optimizer", ["adam_atan2", "adamw", "muon"])
def test_compiled_step_is_the_plain_one(data, tmp_path, optimizer):
    runs = []
    for compiled in ("false", "true"):
        trainer = Trainer(
            config(data, tmp_path / "r", compile=compiled, optimizer=optimizer, grad_clip=1.0)
        )
        metrics = take_steps(trainer, 5)
        runs.append((metrics, arrays_of(trainer)))
    (plain_metrics, plain), (compiled_metrics, compiled) = runs
    for first, second in zip(plain_metrics, compiled_metrics, strict=True):
        assert first == pytest.approx(second, rel=1e-4, abs=1e-5)
    for name, array in plain.items():
        np.testing.assert_allclose(compiled[name], array, rtol=1e-3, atol=1e-4, err_msg=name)


def test_exploration_differs_from_step_to_step_when_compiled(data, tmp_path):
    """A key that compiling froze would let the same rows explore in every step."""
    arch = {"halt_exploration_prob": 0.5, "halt_max_steps": 8}
    trainer = Trainer(config(data, tmp_path / "r", arch, compile="true"))
    trainer.model.q_head.bias = mx.array([5.0, 0.0])  # every row wants to halt at once
    patterns = set()
    for batch, _ in trainer.stream:
        trainer.train_step(batch)
        patterns.add(tuple(np.array(trainer.carries[9].halted).tolist()))
    assert len(patterns) > 1


def test_every_parameter_is_updated_by_exactly_one_rule(data, tmp_path):
    trainer = Trainer(config(data, tmp_path / "r", arch={"pos_encodings": "learned"}))
    names = {name for name, _ in tree_flatten(trainer.model.parameters())}
    optimized = {
        name.removesuffix(".m")
        for name, _ in tree_flatten(trainer.state.optimizer.state)
        if name.endswith(".m")
    }
    averaged = {name for name, _ in tree_flatten(trainer.state.average)}
    by_sign = {"puzzle_emb.weights"}
    constant = {"H_init", "L_init"}
    assert optimized | by_sign | constant == names
    assert not optimized & (by_sign | constant)
    assert averaged == optimized

    before = {name: np.array(a) for name, a in tree_flatten(trainer.model.parameters())}
    take_steps(trainer, 2)
    after = dict(tree_flatten(trainer.model.parameters()))
    changed = {name for name in names if (np.array(after[name]) != before[name]).any()}
    assert changed == names - constant


def test_puzzle_rows_that_are_absent_stay(data, tmp_path):
    trainer = Trainer(config(data, tmp_path / "r"))
    table = np.random.default_rng(0).normal(size=(4, 16)).astype(np.float32)
    trainer.model.puzzle_emb.weights = mx.array(table)
    batch, _ = next(iter(trainer.stream))
    batch["puzzle_identifiers"][:] = [2, 2, 2, 2, 3, 3, 3, 3]
    trainer.train_step(batch)
    after = np.array(trainer.model.puzzle_emb.weights)
    np.testing.assert_array_equal(after[:2], table[:2])
    rate, decay = 1e-2 / 2, 1.0
    moved = (after[2:] - table[2:] * (1 - rate * decay)) / rate
    np.testing.assert_allclose(np.abs(moved), 1.0, atol=1e-3)


def test_freeze_weights_trains_the_puzzle_embeddings_alone(data, tmp_path):
    trainer = Trainer(config(data, tmp_path / "r", freeze_weights=True))
    before = arrays_of_weights(trainer)
    take_steps(trainer, 2)
    after = arrays_of_weights(trainer)
    assert {n for n in before if (before[n] != after[n]).any()} == {"puzzle_emb.weights"}


def arrays_of_weights(trainer):
    return {name: np.array(array) for name, array in tree_flatten(trainer.model.parameters())}


def test_average_moves_by_its_rate(data, tmp_path):
    trainer = Trainer(config(data, tmp_path / "r", ema_rate=0.75))
    before = arrays_of_weights(trainer)
    take_steps(trainer, 1)
    after = arrays_of_weights(trainer)
    for name, array in tree_flatten(trainer.state.average):
        expected = 0.75 * before[name] + 0.25 * after[name]
        np.testing.assert_allclose(np.array(array), expected, rtol=1e-5, atol=1e-7, err_msg=name)


def test_loss_weights_count_by_the_step_of_the_row():
    from trm_mlx.train.losses import step_weights, total_loss

    weights = step_weights((0.5, 2.0), mx.array([0, 1, 2, 7]))
    np.testing.assert_array_equal(weights, [0.5, 2, 2, 2])
    losses = {"lm_loss": mx.array([1.0, 2, 3, 4]), "q_halt_loss": mx.array([2.0, 0, 0, 2])}
    assert total_loss(losses, weights).item() == 0.5 * 2 + 2 * 2 + 2 * 3 + 2 * 5
    assert total_loss(losses, step_weights((), mx.array([0, 1, 2, 7]))).item() == 12


def test_loss_weights_scale_the_gradients(data, tmp_path):
    """The first step of every puzzle counts half: so do its gradients, and nothing reported."""
    results = []
    for weights in ([], [0.5, 1.0]):
        trainer = Trainer(config(data, tmp_path / "r", loss_weights=weights))
        batch, _ = next(iter(trainer.stream))
        batch = {name: mx.array(array) for name, array in batch.items()}
        carry = trainer.model.initial_carry(batch)
        results.append(trainer.state.gradients(carry, batch, mx.random.key(0)))
    (_, metrics, whole, _), (_, same, half, _) = results
    for name, gradient in tree_flatten(whole):
        got = dict(tree_flatten(half))[name]
        np.testing.assert_allclose(np.array(got), 0.5 * np.array(gradient), rtol=1e-5, atol=1e-9)
    assert metrics["lm_loss"].item() == same["lm_loss"].item()


@pytest.mark.parametrize("weights", [[-1.0], [".inf"], ["x"]])
def test_bad_loss_weights(data, weights):
    with pytest.raises(InputError, match="loss_weights"):
        config(data, loss_weights=weights)


def test_gradient_clipping_bounds_the_norm(data, tmp_path):
    metrics = take_steps(Trainer(config(data, tmp_path / "r", grad_clip=1e-3)), 1)[0]
    assert metrics["grad_norm"] > 1e-3  # reported before clipping


def test_evaluation_uses_the_average_and_training_goes_on_without_it(data, tmp_path):
    trainer = Trainer(config(data, tmp_path / "r", epochs=2))
    results = trainer.fit()
    raw = arrays_of_weights(trainer)
    model, _ = trm_mlx.load(tmp_path / "r")
    loaded = {name: np.array(array) for name, array in tree_flatten(model.parameters())}
    average = {name: np.array(a) for name, a in tree_flatten(trainer.state.average)}
    for name, array in average.items():
        np.testing.assert_array_equal(loaded[name], array)
        assert (raw[name] != array).any(), name
    assert results["all"]["count"] == 24
    rows = []
    again, _ = trainer.evaluate(rows.append)
    assert again["all"] == results["all"]
    assert sum(rows) == 24
    assert_same(arrays_of_weights(trainer), raw)
    own, _ = evaluate(trainer.evaluation, trainer.test_data)
    assert own["all"]["lm_loss"] != again["all"]["lm_loss"]


def test_load_checkpoint_starts_anew_from_the_weights(data, tmp_path):
    Trainer(config(data, tmp_path / "first", epochs=2)).fit()
    model, _ = trm_mlx.load(tmp_path / "first")
    trainer = Trainer(config(data, tmp_path / "second", load_checkpoint=str(tmp_path / "first")))
    assert trainer.progress.step == 0
    for name, array in tree_flatten(model.parameters()):
        np.testing.assert_array_equal(arrays_of_weights(trainer)[name], np.array(array))


def test_load_checkpoint_without_names_takes_the_mean_row(data, tmp_path):
    first = Trainer(config(data, tmp_path / "first", epochs=2))
    first.fit()
    mean = np.array(first.model.puzzle_emb.weights).mean(axis=0)
    other = make_data(tmp_path / "other", identifiers=7)
    (tmp_path / "first" / "step_0000006" / "identifiers.json").unlink()  # as written before
    trainer = Trainer(config(other, tmp_path / "second", load_checkpoint=str(tmp_path / "first")))
    table = np.array(trainer.model.puzzle_emb.weights)
    assert table.shape[0] == 7
    np.testing.assert_allclose(table, np.broadcast_to(mean, table.shape), atol=1e-7)


def test_saved_outputs_hold_every_example_once(data, tmp_path):
    saved = ["preds", "labels", "q_halt_logits"]
    Trainer(config(data, tmp_path / "r", epochs=2, eval_save_outputs=saved)).fit()
    outputs = np.load(tmp_path / "r" / "outputs_0000006.npz")
    assert set(outputs) == set(saved)
    assert outputs["preds"].shape == outputs["labels"].shape == (24, 9)


def test_evaluation_does_not_depend_on_the_batch_size(data, tmp_path):
    trainer = Trainer(config(data, tmp_path / "r"))
    take_steps(trainer, 2)
    results = [evaluate(trainer.evaluation, trainer.test_data, size)[0]["all"] for size in (24, 7)]
    assert results[0] == pytest.approx(results[1], rel=1e-5)
    assert results[0]["count"] == 24
    assert trainer.model.training


def test_a_run_folder_is_not_written_twice(data, tmp_path):
    Trainer(config(data, tmp_path / "r", epochs=2)).fit()
    with pytest.raises(InputError, match=r"already holds a run.*resume="):
        Trainer(config(data, tmp_path / "r", epochs=2))


def test_interrupted_save_leaves_no_step_folder(data, tmp_path, monkeypatch):
    trainer = Trainer(config(data, tmp_path / "r"))
    take_steps(trainer, 1)

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("trm_mlx.run.checkpoint.save_arrays", full_disk)
    with pytest.raises(InputError, match=r"cannot write .*No space left"):
        trainer.save()
    assert not list((tmp_path / "r").glob("step_*"))


@pytest.mark.parametrize("steps", [1, 5])
def test_evaluations_may_take_other_steps(data, tmp_path, capsys, steps):
    """As many as ``eval_max_steps`` says, fewer or more than a row of training; also `trm eval`."""
    run = tmp_path / "r"
    trainer = Trainer(config(data, run, epochs=2, ema=False, eval_max_steps=steps))
    found = trainer.fit(show=False)["all"]
    assert (found["count"], found["steps"]) == (24, steps)
    arrays = trainer.test_data.parts[0].arrays
    identifiers = trainer.test_data.puzzle_identifiers
    solver = trm_mlx.Solver(trainer.model, max_steps=steps, halt_threshold=None)
    answers, _ = solver.predict(arrays.inputs, identifiers)
    assert found["accuracy"] == pytest.approx((answers == arrays.labels).mean())
    assert main(["eval", str(run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["all"] == pytest.approx(found)
