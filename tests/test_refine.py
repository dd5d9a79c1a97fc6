"""Watching a batch step by step: the same answers as evaluation, and when a model would stop."""

import mlx.core as mx
import numpy as np
import pytest

import trm_mlx
from trm_mlx import InputError
from trm_mlx.config import ModelConfig
from trm_mlx.config_io import arch_config
from trm_mlx.models.model import build_model


@pytest.fixture(params=["trm", "hrm"])
def model(request):
    arch = arch_config(
        request.param, hidden_size=16, num_heads=2, H_layers=1, L_layers=1, halt_max_steps=4
    )
    sizes = {"seq_len": 9, "vocab_size": 6, "num_puzzle_identifiers": 3}
    return build_model(ModelConfig.of(arch, **sizes))


INPUTS = np.random.default_rng(0).integers(0, 6, (5, 9))


def test_last_step_is_the_published_evaluation(model):
    steps = list(trm_mlx.refine(model, INPUTS, puzzle_identifiers=[0, 1, 2, 1, 0]))
    assert [refinement.step for refinement in steps] == [1, 2, 3, 4]
    batch = {
        "inputs": mx.array(INPUTS.astype(np.int32)),
        "puzzle_identifiers": mx.array([0, 1, 2, 1, 0]),
    }
    carry = model.initial_carry(batch)
    for refinement in steps:
        carry, outputs = model(carry, batch)
        answers = np.array(mx.argmax(outputs["logits"], axis=-1))
        np.testing.assert_array_equal(refinement.answers, answers)
    assert carry.halted.all()


def test_more_steps_than_trained_go_on_from_the_same_states(model):
    few, many = (list(trm_mlx.refine(model, INPUTS, max_steps=count)) for count in (4, 7))
    assert len(many) == 7
    for first, second in zip(few, many, strict=False):
        np.testing.assert_array_equal(first.answers, second.answers)
    states = [refinement.confidence for refinement in many]
    assert not np.array_equal(states[0], states[4])  # step 5 is no fresh start


def test_halting_follows_the_q_values(model):
    model.q_head.bias = mx.array([5.0, 0.0])
    first, *_, last = trm_mlx.refine(model, INPUTS)
    assert first.halts.all()
    np.testing.assert_allclose(first.halt_probability, 1 / (1 + np.exp(-5.0)), rtol=1e-5)
    model.q_head.bias = mx.array([4.0, 0.0])  # 98 %, which is not enough
    first, *_, last = trm_mlx.refine(model, INPUTS)
    assert not first.halts.any()
    assert last.halts.all()  # there is no next step


def test_confidence_is_the_probability_of_the_answer(model):
    *_, last = trm_mlx.refine(model, INPUTS)
    assert last.confidence.shape == last.answers.shape == (5, 9)
    assert (last.confidence >= 1 / 6).all()
    assert (last.confidence <= 1).all()


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (np.zeros((2, 8)), r"shape \(2, 8\).*9 positions"),
        (np.zeros(9), r"shape \(9,\)"),
        (np.full((1, 9), 6), r"outside the model's vocabulary 0\.\.5"),
        (np.full((1, 9), -1), r"outside the model's vocabulary"),
    ],
)
def test_inputs_that_do_not_fit(model, inputs, message):
    with pytest.raises(InputError, match=message):
        next(trm_mlx.refine(model, inputs))
