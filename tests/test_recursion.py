"""The recursion core against the published loops, written out literally, with toy nets."""

import mlx.core as mx
import numpy as np
import pytest

from trm_mlx.config import ModelConfig
from trm_mlx.config_io import arch_config, train_config
from trm_mlx.errors import InputError
from trm_mlx.models import variants
from trm_mlx.models.model import build_model
from trm_mlx.models.recursion import INPUT, Recursion, Update, recurse
from trm_mlx.train.step import TrainState

H, L = 3, 4
RUN = {
    "arch": {"name": "trm"},  # not looked at by a step
    "data_paths": ["none"],
    "epochs": 1,
    "eval_interval": None,
    "global_batch_size": 2,
    "lr_warmup_steps": 0,
    "compile": "false",
}


def nets():
    """Two different non-linear maps, so that the order of every update shows."""
    return {
        "L_level": lambda h: mx.tanh(h * 0.7 + 0.1),
        "H_level": lambda h: mx.tanh(h * 0.9 - 0.2),
    }


def literal_trm(net, z, x, f):
    for _ in range(H):
        for _ in range(L):
            z["z_L"] = f["L_level"](z["z_L"] + (z["z_H"] + x))
        z["z_H"] = f[net](z["z_H"] + z["z_L"])


def literal_singlez(z, x, f):
    for _ in range(H):
        for _ in range(L):
            z["z_L"] = f["L_level"](z["z_L"] + x)
        z["z_L"] = f["L_level"](z["z_L"])


def literal_hier6(z, x, f):
    def total():
        return z["z_L1"] + z["z_L2"] + z["z_L3"] + z["z_L4"] + z["z_L5"] + z["z_L6"]

    for _ in range(H):
        for i in range(L):
            z[f"z_L{i + 1}"] = f["L_level"](total() + (z["z_H"] + x))
        z["z_H"] = f["L_level"](z["z_H"] + total())


def literal_baseline(z, x, f):
    z["z_H"] = f["H_level"](z["z_H"] + x)


LITERAL = {
    "trm": lambda z, x, f: literal_trm("L_level", z, x, f),
    "trm_singlez": literal_singlez,
    "trm_hier6": literal_hier6,
    "hrm": lambda z, x, f: literal_trm("H_level", z, x, f),
    "transformers_baseline": literal_baseline,
}


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
@pytest.mark.parametrize("name", LITERAL)
def test_recurse_is_the_literal_loops_bit_for_bit(name, dtype):
    recursion = variants.VARIANTS[name](arch_config(name, H_cycles=H, L_cycles=L))
    key = mx.random.key(0)
    x = mx.random.normal((2, 3), key=key).astype(dtype)
    states = {
        state: mx.random.normal((2, 3), key=mx.random.key(i + 1)).astype(dtype)
        for i, state in enumerate(recursion.states)
    }
    after = recurse(recursion.free_updates, nets(), states, x)
    after = recurse(recursion.in_grad_updates, nets(), after, x)
    expected = dict(states)
    LITERAL[name](expected, x, nets())
    assert after.keys() == expected.keys()
    for state, value in expected.items():
        assert mx.array_equal(after[state], value), state


@pytest.mark.parametrize(
    ("name", "free", "in_grad", "readout"),
    [
        ("trm", 2 * (L + 1), L + 1, "z_H"),
        ("trm_singlez", 2 * (L + 1), L + 1, "z_L"),
        ("trm_hier6", 2 * (L + 1), L + 1, "z_H"),
        ("hrm", 3 * (L + 1) - 2, 2, "z_H"),
        ("transformers_baseline", 0, 1, "z_H"),
    ],
)
def test_where_the_gradient_begins(name, free, in_grad, readout):
    recursion = variants.VARIANTS[name](arch_config(name, H_cycles=H, L_cycles=L))
    assert len(recursion.free_updates) == free
    assert len(recursion.in_grad_updates) == in_grad
    assert recursion.readout == readout


def test_recurse_leaves_its_arguments_alone():
    states = {"z": mx.zeros(2)}
    recurse([Update("z", ("z",), (INPUT,))], nets(), states, mx.ones(2))
    assert mx.array_equal(states["z"], mx.zeros(2))


def test_hier6_has_six_reasoning_states():
    with pytest.raises(InputError, match=r"L_cycles=7.*at most 6"):
        variants.trm_hier6(arch_config("trm_hier6", L_cycles=7))


def test_a_sixth_variant_is_one_function(monkeypatch):
    """Answer first, then reason: it evaluates and trains, and no other file knows of it."""

    def backwards(arch):
        answer, think = Update("z_H", ("z_H",), ("z_L",)), Update("z_L", ("z_L",), (INPUT,))
        return Recursion((answer, think), arch.H_cycles, grad_updates=2, readout="z_H")

    monkeypatch.setitem(variants.VARIANTS, "backwards", backwards)
    arch = arch_config("trm", hidden_size=8, num_heads=1, L_layers=1, halt_max_steps=2)
    values = {**vars(arch), "name": "backwards"}
    config = ModelConfig(**values, seq_len=4, vocab_size=5, num_puzzle_identifiers=1)
    model = build_model(config)
    model.eval()
    tokens = mx.ones((2, 4), mx.int32)
    batch = {"inputs": tokens, "labels": tokens, "puzzle_identifiers": mx.zeros(2, mx.int32)}
    carry, outputs = model(model.initial_carry(batch), batch)
    assert outputs["logits"].shape == (2, 4, 5)
    assert np.isfinite(np.array(carry.states["z_L"])).all()

    state = TrainState(model, train_config(RUN), 5)
    before = np.array(model.L_level.layers[0].mlp.down_proj.weight)
    carry, metrics = state.step(model.initial_carry(batch), batch, mx.random.key(0))
    assert carry.steps.tolist() == [1, 1]
    assert np.isfinite(float(metrics["lm_loss"]))
    assert (np.array(model.L_level.layers[0].mlp.down_proj.weight) != before).mean() > 0.9
