"""The parts of the fast recipe, each by itself: Muon, rates, smoothing, random starts, ladder."""

import math

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten

from trm_mlx import InputError, tasks
from trm_mlx.config import ModelConfig
from trm_mlx.config_io import arch_config, train_config
from trm_mlx.models.act import draw_starts
from trm_mlx.models.model import build_model
from trm_mlx.train.augment import Augmentation
from trm_mlx.train.losses import LOSSES, row_losses, total_loss
from trm_mlx.train.optim import Muon, build_optimizer, warmup_cosine


def config(**changes):
    return train_config({"arch": {"name": "trm"}, "data_paths": ["data/none"], **changes})


def test_muon_moves_along_every_direction_alike():
    """A gradient of singular values 1 to 100 becomes an update of singular values near 1."""
    rng = np.random.default_rng(0)
    left, _ = np.linalg.qr(rng.normal(size=(24, 8)))
    right, _ = np.linalg.qr(rng.normal(size=(8, 8)))
    gradient = mx.array((left * np.geomspace(1, 100, 8)) @ right, mx.float32)
    optimizer = Muon(0.1, weight_decay=0.0)
    start = mx.array(rng.normal(size=(24, 8)), mx.float32)
    optimizer.init({"w": start})
    moved = optimizer.apply_gradients({"w": gradient}, {"w": start})["w"]
    values = np.linalg.svd(np.array(start - moved), compute_uv=False)
    assert values.min() > 0.5 * 0.1 * math.sqrt(3)
    assert values.max() < 1.4 * 0.1 * math.sqrt(3)


def test_muon_decays_apart_from_the_gradient():
    gradient, start = mx.random.normal((4, 4)), mx.random.normal((4, 4))
    results = []
    for decay in (0.0, 0.5):
        optimizer = Muon(0.1, weight_decay=decay)
        optimizer.init({"w": start})
        results.append(optimizer.apply_gradients({"w": gradient}, {"w": start})["w"])
    np.testing.assert_allclose(results[0] - results[1], 0.05 * start, atol=1e-6)


def test_muon_is_for_the_matrices_of_blocks_alone():
    """Everything else moves as AdamW moves it, whose first step is the rate times a sign."""
    weights = {
        "L_level": {"layers": [{"mlp": {"weight": mx.ones((4, 4))}, "bias": mx.ones(4)}]},
        "lm_head": {"weight": mx.ones((4, 4))},
    }
    optimizer = build_optimizer(
        config(optimizer="muon", lr=1e-3, muon_lr=0.5, weight_decay=0.0, lr_warmup_steps=0), 10
    )
    optimizer.init(weights)
    gradients = mx.random.normal((4, 4))
    grads = {
        "L_level": {"layers": [{"mlp": {"weight": gradients}, "bias": gradients[0]}]},
        "lm_head": {"weight": gradients},
    }
    moved = dict(tree_flatten(optimizer.apply_gradients(grads, weights)))
    for name in ("L_level.layers.0.bias", "lm_head.weight"):
        np.testing.assert_allclose(mx.abs(1 - moved[name]), 1e-3, rtol=1e-3)
    assert mx.abs(1 - moved["L_level.layers.0.mlp.weight"]).max().item() > 0.05
    assert optimizer.step.item() == 1
    assert optimizer.learning_rate.item() == pytest.approx(0.5)


def test_rates_are_constant_until_the_last_share():
    rate = warmup_cosine(
        2.0, config(lr_warmup_steps=10, lr_decay_share=0.25, lr_min_ratio=0.1), 110
    )
    values = [rate(mx.array(step)).item() for step in range(110)]
    assert values[4] == pytest.approx(1.0)
    assert values[9:84] == pytest.approx([2.0] * 75)
    assert values[85] < 2.0
    assert values[96] == pytest.approx(0.2 + 0.9 * (1 + math.cos(math.pi * 0.48)), rel=1e-3)
    assert values[109] == pytest.approx(0.2)


@pytest.mark.parametrize("loss", LOSSES)
def test_label_smoothing_is_the_mean_over_all_labels(loss):
    logits, labels = mx.random.normal((3, 5)), mx.array([0, 2, 4])
    each = mx.stack([LOSSES[loss](logits, mx.full((3,), label)) for label in range(5)])
    expected = 0.7 * LOSSES[loss](logits, labels) + 0.3 * each.mean(axis=0)
    np.testing.assert_allclose(LOSSES[loss](logits, labels, 0.3), expected, rtol=1e-5)


def test_weight_of_the_halting_loss():
    outputs = {"logits": mx.random.normal((2, 3, 5)), "q_halt_logits": mx.array([0.3, -2.0])}
    losses = row_losses(outputs, mx.array([[1, 2, 3], [4, 0, 1]]), "softmax_cross_entropy")
    parts = [losses[name].sum().item() for name in ("lm_loss", "q_halt_loss")]
    assert total_loss(losses, q_weight=0.05).item() == pytest.approx(parts[0] + 0.05 * parts[1])


def test_random_starts_are_for_a_share_of_new_puzzles():
    rows, sizes = 400, {"vocab_size": 6, "seq_len": 4, "num_puzzle_identifiers": 1}
    arch = arch_config("trm", hidden_size=4, num_heads=1, puzzle_emb_len=1)
    model = build_model(ModelConfig.of(arch, **sizes))
    batch = {"inputs": mx.zeros((rows, 4), mx.int32)}
    carry = model.initial_carry(batch)._replace(halted=mx.arange(rows) < 300)
    starts = draw_starts(carry.states, 0.5, mx.random.key(0))
    learned = model.reset_halted(carry, batch).states
    drawn = model.reset_halted(carry, batch, starts).states
    random = [np.array((drawn[name] != learned[name]).any(axis=(1, 2))) for name in drawn]
    np.testing.assert_array_equal(*random)
    assert not random[0][300:].any()
    assert 105 < random[0].sum() < 195  # five standard deviations
    values = np.array(drawn["z_H"])[random[0]]
    assert abs(values.mean()) < 0.1
    assert abs(values.std() - 1) < 0.1
    assert (drawn["z_H"] != drawn["z_L"]).any()


def test_the_ladder_shows_more_of_the_answer():
    task = tasks.get("sudoku4x4")
    rng = np.random.default_rng(0)
    questions, answers, _ = task.generate(500, rng)
    batch = {
        "inputs": task.encode(questions).astype(np.int32),
        "labels": task.encode(answers).astype(np.int32),
    }
    shown = Augmentation(task, frozenset(), reveal=3)(batch, rng)
    inputs, labels = task.decode(shown["inputs"]), task.decode(shown["labels"])
    assert task.check(inputs, labels).all()
    revealed = (inputs != 0).sum(axis=1) - (questions != 0).sum(axis=1)
    assert set(revealed) == {0, 1, 2, 3}
    assert np.bincount(revealed).min() > 70  # of 125, five standard deviations


def test_the_ladder_ends_where_nothing_is_unknown():
    task = tasks.get("sudoku4x4")
    _, answers, _ = task.generate(20, np.random.default_rng(0))
    solved = task.encode(answers).astype(np.int32)
    batch = {"inputs": solved, "labels": solved}
    shown = Augmentation(task, frozenset(), reveal=3)(batch, np.random.default_rng(1))
    np.testing.assert_array_equal(shown["inputs"], shown["labels"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reveal_cells": 2}, "reveal_cells=2 is done while training: set augment=true too"),
        ({"lr_decay_share": 0.0}, "lr_decay_share=0.0: must be greater than 0, and at most 1"),
        ({"label_smoothing": 1.5}, "label_smoothing=1.5: must be from 0 to 1"),
        ({"random_starts": -0.1}, "random_starts=-0.1: must be from 0 to 1"),
        ({"muon_lr": -1.0}, "muon_lr=-1.0: must be at least 0"),
        ({"optimizer": "sgd"}, "optimizer=sgd: choose one of adam_atan2, adamw, muon"),
    ],
)
def test_bad_values(changes, message):
    with pytest.raises(InputError, match=message):
        config(**changes)
