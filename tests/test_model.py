"""The model: its parameters, gradients, carry, halting, loss and memory."""

from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from tiny import SMALL, make, make_batch

from trm_mlx.config import ModelConfig
from trm_mlx.config_io import arch_config, train_config
from trm_mlx.errors import InputError
from trm_mlx.models.act import Carry, draw_least_steps, halting_rows
from trm_mlx.models.blocks import gated_silu, gated_silu_gradients
from trm_mlx.models.layers import norm_channels, norm_positions, truncated_normal
from trm_mlx.models.model import build_model
from trm_mlx.models.variants import VARIANTS
from trm_mlx.train.losses import act_metrics, row_losses, stablemax_cross_entropy
from trm_mlx.train.optim import sign_descent
from trm_mlx.train.step import TrainState

# Parameters

MLP = {"mlp.gate_up_proj": (3072, 512), "mlp.down_proj": (512, 1536)}
ATTENTION = {"self_attn.qkv_proj": (1536, 512), "self_attn.o_proj": (512, 512), **MLP}
ODD_ATTENTION = {"self_attn.qkv_proj": (1512, 512), "self_attn.o_proj": (512, 504), **MLP}
TOKEN_MIXING = {"mlp_t.gate_up_proj": (1024, 97), "mlp_t.down_proj": (97, 512), **MLP}
EVERYWHERE = {
    "embed_tokens.embedding_weight": (11, 512),
    "lm_head.weight": (11, 512),
    "q_head.weight": (2, 512),
    "q_head.bias": (2,),
}
PUZZLES = {"puzzle_emb.weights": (1, 512)}
POSITIONS = {"embed_pos.embedding_weight": (97, 512)}


def published(levels, block, inits, extra=PUZZLES):
    """Names and shapes, of ``levels`` (name to depth), initial states and further arrays."""
    layers = {
        f"{level}.layers.{index}.{name}.weight": shape
        for level, depth in levels.items()
        for index in range(depth)
        for name, shape in block.items()
    }
    return EVERYWHERE | layers | {f"{init}_init": (512,) for init in inits} | extra


TWO = {"L_level": 2}
SIX = ("H", "L1", "L2", "L3", "L4", "L5", "L6")
# (variant, changes, arrays with their shapes, elements trained, elements in all arrays)
PUBLISHED = {
    "trm": ("trm", {}, published(TWO, ATTENTION, "HL"), 6_828_034, 6_829_570),
    "mlp_t": (
        "trm",
        {"mlp_t": True, "pos_encodings": "none"},
        published(TWO, TOKEN_MIXING, "HL"),
        5_028_866,
        5_030_402,
    ),
    "learned": (
        "trm",
        {"pos_encodings": "learned"},
        published(TWO, ATTENTION, "HL", PUZZLES | POSITIONS),
        6_877_698,
        6_879_234,
    ),
    "no puzzles": (
        "trm",
        {"puzzle_emb_ndim": 0, "puzzle_emb_len": 0},
        published(TWO, ATTENTION, "HL", {}),
        6_828_034,
        6_829_058,
    ),
    "singlez": ("trm_singlez", {}, published(TWO, ATTENTION, "L"), 6_828_034, 6_829_058),
    "hier6": ("trm_hier6", {}, published(TWO, ATTENTION, SIX), 6_828_034, 6_832_130),
    "hrm": (
        "hrm",
        {},
        published({"H_level": 4, "L_level": 4}, ATTENTION, "HL"),
        27_275_266,
        27_276_802,
    ),
    "baseline": (
        "transformers_baseline",
        {},
        published({"H_level": 8}, ODD_ATTENTION, "H"),
        27_144_194,
        27_145_218,
    ),
}


@pytest.mark.parametrize("case", PUBLISHED)
def test_published_models_at_full_width(case):
    """Names, shapes and counts of the published state dicts; nothing is evaluated."""
    name, changes, shapes, trained, everything = PUBLISHED[case]
    arch = arch_config(name, **changes)
    sizes = {"seq_len": 81, "vocab_size": 11, "num_puzzle_identifiers": 1}
    model = build_model(ModelConfig.of(arch, **sizes))
    arrays = dict(tree_flatten(model.parameters()))
    assert {key: array.shape for key, array in arrays.items()} == shapes
    assert sum(array.size for _, array in tree_flatten(model.trainable_parameters())) == trained
    assert sum(array.size for array in arrays.values()) == everything


def test_baseline_keeps_the_published_odd_head_size():
    model = make("transformers_baseline", hidden_size=32, num_heads=3, H_layers=1, L_layers=0)
    shapes = {name: a.shape for name, a in tree_flatten(model.parameters())}
    assert shapes["H_level.layers.0.self_attn.o_proj.weight"] == (32, 30)


def test_buffers_stay_frozen_after_unfreeze():
    model = make("trm_hier6")
    model.freeze()
    model.unfreeze()
    trained = {name for name, _ in tree_flatten(model.trainable_parameters())}
    assert trained
    assert not any(name.endswith("_init") or name.startswith("puzzle_emb") for name in trained)


def test_initialisation():
    sample = np.array(truncated_normal((200_000,), std=0.5))
    assert sample.std() == pytest.approx(0.5, rel=0.01)
    assert np.abs(sample).max() <= 0.5 * 2 / 0.8796 + 1e-3
    model = make()
    assert mx.array_equal(model.q_head.bias, mx.array([-5.0, -5.0]))
    assert not mx.any(model.q_head.weight)
    assert not mx.any(model.puzzle_emb.weights)


def test_seed_decides_the_weights():
    first, again, other = (
        np.array(build_model(make().config, seed).lm_head.weight) for seed in (1, 1, 2)
    )
    assert (first == again).all()
    assert (first != other).any()


@pytest.mark.parametrize("norm", [norm_channels, norm_positions])
def test_norms_of_bfloat16_are_computed_in_float32(norm):
    """Too small a difference to show in a model's outputs, but not in the norm's own."""
    x = mx.random.normal((64, 16), key=mx.random.key(0)).astype(mx.bfloat16)
    expected = norm(x.astype(mx.float32)).astype(mx.bfloat16)
    assert norm(x).dtype == mx.bfloat16
    assert mx.mean(norm(x) == expected).item() > 0.95  # computed in bfloat16: 0.6


# Gradients


@pytest.mark.parametrize("name", VARIANTS)
def test_no_gradient_through_the_free_updates(name):
    """Gradients are those of the in_grad updates alone, from constant states."""
    model, batch = make(name, H_layers=1), make_batch()
    model.eval()
    carry = model.reset_halted(model.initial_carry(batch), batch)
    puzzles = model.puzzle_rows(carry.batch)
    constant = model.no_grad_updates(carry.states, carry.batch, puzzles)
    mx.eval(constant)

    def whole(weights):
        model.update(weights)
        _, outputs = model(model.initial_carry(batch), batch)
        return (outputs["logits"] ** 2).sum()

    def in_grad_only(weights):
        model.update(weights)
        _, outputs = model.grad_updates_and_heads(constant, carry.batch, puzzles)
        return (outputs["logits"] ** 2).sum()

    weights = model.trainable_parameters()
    first, second = (dict(tree_flatten(mx.grad(f)(weights))) for f in (whole, in_grad_only))
    for name, gradient in first.items():
        scale = np.abs(np.array(second[name])).max()
        np.testing.assert_allclose(
            np.array(gradient), np.array(second[name]), rtol=0, atol=1e-5 * scale, err_msg=name
        )


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("cycles", [1, 2])
def test_initial_states_get_no_gradient(name, cycles):
    """Not even with one cycle, where no free update stands between them and the gradient."""
    model, batch = make(name, H_layers=1, H_cycles=cycles), make_batch()
    model.eval()
    inits = {key: value for key, value in model.parameters().items() if key.endswith("_init")}
    assert inits

    def readout(values):
        model.update(values)
        _, outputs = model(model.initial_carry(batch), batch)
        return (outputs["logits"] ** 2).sum()

    gradients = mx.grad(readout)(inits)
    assert all(not mx.any(gradient) for gradient in gradients.values())
    assert readout(inits) != readout({key: value + 1 for key, value in inits.items()})


def test_states_in_the_carry_are_detached():
    model, batch = make(), make_batch()
    model.eval()

    def through_the_carry(weights):
        model.update(weights)
        carry, _ = model(model.initial_carry(batch), batch)
        return sum(state.sum() for state in carry.states.values())

    gradients = mx.grad(through_the_carry)(model.trainable_parameters())
    assert all(not mx.any(gradient) for _, gradient in tree_flatten(gradients))


def test_memory_of_a_training_step_does_not_grow_with_the_cycles():
    def peak(cycles):
        model = make(H_cycles=cycles, hidden_size=64, seq_len=64)
        config = train_config(
            {
                "arch": {**vars(arch_config("trm", **SMALL)), "name": "trm"},
                "data_paths": ["none"],
                "epochs": 1,
                "eval_interval": None,
                "global_batch_size": 64,
            }
        )
        rows = mx.ones((64, 64), mx.int32)
        batch = {"inputs": rows, "labels": rows, "puzzle_identifiers": mx.zeros(64, mx.int32)}
        state = TrainState(model, config, 10)
        carry = model.initial_carry(batch)
        mx.eval(state.arrays, carry)
        mx.clear_cache()
        mx.reset_peak_memory()
        before = mx.get_active_memory()
        mx.eval(state.step(carry, batch, mx.random.key(0)), state.arrays)
        return mx.get_peak_memory() - before

    assert peak(6) < 1.1 * peak(2)


# Carry and halting


def test_halted_rows_take_the_new_puzzle_and_the_others_keep_theirs():
    model, first, second = make(), make_batch(seed=1), make_batch(seed=2)
    model.eval()
    carry, _ = model(model.initial_carry(first), first)
    halted = mx.array([True, False, False, True])
    carry, _ = model(carry._replace(halted=halted), second)
    np.testing.assert_array_equal(np.array(carry.steps), [1, 2, 2, 1])
    for name in first:
        expected = np.where(
            np.array(halted).reshape(-1, *[1] * (first[name].ndim - 1)),
            np.array(second[name]),
            np.array(first[name]),
        )
        np.testing.assert_array_equal(np.array(carry.batch[name]), expected)


def test_a_replaced_row_starts_from_scratch():
    model, first, second = make(), make_batch(seed=1), make_batch(seed=2)
    model.eval()
    carry, _ = model(model.initial_carry(first), first)
    carry, outputs = model(carry._replace(halted=mx.ones(4, mx.bool_)), second)
    _, fresh = model(model.initial_carry(second), second)
    assert mx.array_equal(outputs["logits"], fresh["logits"])


def test_evaluation_runs_every_row_to_the_end():
    model, batch = make(), make_batch()
    model.eval()
    model.q_head.bias = mx.array([9.0, -9.0])
    carry = model.initial_carry(batch)
    for step in range(3):
        carry, _ = model(carry, batch)
        assert bool(carry.halted.all()) == (step == 2)


def halts(steps, q_halt, key=0, **arch):
    arch = arch_config("trm", **{"halt_max_steps": 8, "halt_exploration_prob": 0.0, **arch})
    steps, q_halt = mx.array(steps), mx.array(q_halt)
    q_continue = mx.zeros_like(q_halt)
    least_steps = draw_least_steps(arch, len(steps), mx.random.key(key))
    return halting_rows(arch, steps, q_halt, q_continue, True, least_steps).tolist()


def test_training_halts_on_the_sign_of_q_halt_and_at_the_last_step():
    assert halts([1, 1, 8], [0.1, -0.1, -0.1]) == [True, False, True]


def test_exploration_makes_every_row_wait():
    assert halts([1] * 50, [1.0] * 50, halt_exploration_prob=1.0) == [False] * 50
    assert halts([8] * 50, [1.0] * 50, halt_exploration_prob=1.0) == [True] * 50
    waiting = [sum(halts([4] * 99, [1.0] * 99, k, halt_exploration_prob=1.0)) for k in (0, 0, 1)]
    assert 0 < waiting[0] < 99
    assert waiting[0] == waiting[1]


def test_exploring_rows_run_at_least_two_steps_and_the_key_decides():
    model, batch = make(halt_exploration_prob=1.0, halt_max_steps=8), make_batch(rows=32)
    model.q_head.bias = mx.array([9.0, -9.0])  # every row wants to halt at once

    def halted_at(seed):
        carry, found = model.initial_carry(batch), np.zeros(32, int)
        for step in range(1, 9):
            carry, _ = model(carry, batch, mx.random.key(100 * seed + step))
            found = np.where((found == 0) & np.array(carry.halted), step, found)
        return found

    first, again, other = halted_at(0), halted_at(0), halted_at(1)
    assert first.min() >= 2
    assert len(set(first)) > 1
    assert (first == again).all()
    assert (first != other).any()


def test_without_exploration_rows_that_want_to_halt_do():
    model, batch = make(halt_exploration_prob=0.0, halt_max_steps=8), make_batch()
    model.q_head.bias = mx.array([9.0, -9.0])
    carry, _ = model(model.initial_carry(batch), batch)
    assert carry.halted.all()


def test_training_without_a_key_says_so():
    model, batch = make(), make_batch()
    with pytest.raises(InputError, match=r"pass key=.*model\.eval"):
        model(model.initial_carry(batch), batch)


# Loss


def test_stablemax_against_float64():
    rng = np.random.default_rng(0)
    logits = rng.uniform(-50, 50, (200, 7)).astype(np.float32)
    labels = rng.integers(0, 7, 200)
    wide = logits.astype(np.float64)
    scores = np.where(wide < 0, 1 / np.where(wide < 0, 1 - wide, 1), wide + 1)
    expected = -np.log(scores[np.arange(200), labels] / scores.sum(-1))
    loss = stablemax_cross_entropy(mx.array(logits), mx.array(labels))
    np.testing.assert_allclose(np.array(loss), expected, rtol=1e-5)


def test_stablemax_gradient_is_finite_at_one():
    logits = mx.array([[1.0, 0.0, -1.0, 2.0]])
    gradient = mx.grad(lambda x: stablemax_cross_entropy(x, mx.array([0])).sum())(logits)
    scores = np.array([2.0, 1.0, 0.5, 3.0])
    slopes = np.array([1.0, 1.0, 0.25, 1.0])
    expected = slopes / scores.sum() - np.array([slopes[0] / scores[0], 0, 0, 0])
    np.testing.assert_allclose(np.array(gradient[0]), expected, rtol=1e-5)


def test_stablemax_gradient_against_float64():
    rng = np.random.default_rng(0)
    logits = rng.uniform(-50, 50, (200, 7)).astype(np.float32)
    logits[::3, rng.integers(7)] = 1.0
    logits[1::3, rng.integers(7)] = 0.0
    labels, rows = rng.integers(0, 7, 200), np.arange(200)
    wide = logits.astype(np.float64)
    scores = np.where(wide < 0, 1 / (1 - np.minimum(wide, 0)), wide + 1)
    slopes = np.where(wide < 0, scores**2, 1)
    expected = slopes / scores.sum(-1, keepdims=True)
    expected[rows, labels] -= (slopes / scores)[rows, labels]
    gradient = mx.grad(lambda x: stablemax_cross_entropy(x, mx.array(labels)).sum())(
        mx.array(logits)
    )
    np.testing.assert_allclose(np.array(gradient), expected, rtol=5e-6, atol=1e-7)


def test_gated_silu_against_float64():
    rng = np.random.default_rng(0)
    gate = np.concatenate([rng.uniform(-100, 100, 2000), [0.0, 88.0, -88.0]]).astype(np.float32)
    up = rng.normal(size=gate.shape).astype(np.float32)
    wide = gate.astype(np.float64)
    share = 1 / (1 + np.exp(-wide))
    product = mx.array(np.stack([gate, up]))
    value = gated_silu(product)[0]
    np.testing.assert_allclose(np.array(value), wide * share * up, rtol=1e-6, atol=1e-30)
    slopes, again = gated_silu_gradients(product, mx.ones((1, len(gate))))
    assert mx.array_equal(again[0], value)
    # Relative to the two terms of the slope, whose sum is zero near -1.28. Measured 1.03e-6 at
    # worst, near a gate of 17, where 1 - share has few digits left in float32.
    curve = wide * share * (1 - share)
    error = np.abs(np.array(slopes[0]) - up * (share + curve))
    assert (error <= 1.5e-6 * np.abs(up) * (share + np.abs(curve)) + 1e-30).all()
    np.testing.assert_allclose(np.array(slopes[1]), wide * share, rtol=1e-6, atol=1e-30)


def test_rows_without_labels_add_nothing_in_evaluation():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 6, (4, 9)).astype(np.int32)
    logits = rng.normal(size=(4, 9, 6)).astype(np.float32)
    q = rng.normal(size=4).astype(np.float32)

    def metrics(rows, padding):
        shown = labels.copy()
        shown[padding] = -100
        pick = list(rows)
        carry = Carry({}, mx.full(len(pick), 3), mx.ones(len(pick), mx.bool_), {})
        carry = carry._replace(batch={"labels": mx.array(shown[pick])})
        outputs = {
            "logits": mx.array(logits[pick]),
            "q_halt_logits": mx.array(q[pick]),
            "q_continue_logits": mx.array(q[pick]),
        }
        losses = row_losses(outputs, carry.batch["labels"], "stablemax_cross_entropy")
        sums = act_metrics(carry, outputs, losses, skip_unlabelled=True)
        loss = sums["lm_loss"] + 0.5 * sums["q_halt_loss"]
        return {"loss": loss.item(), **{name: value.item() for name, value in sums.items()}}

    assert metrics(range(4), padding=[2, 3]) == pytest.approx(metrics(range(2), padding=[]))


# Puzzle embeddings


def test_sign_descent_sums_equal_identifiers_first():
    table = mx.array(np.arange(8, dtype=np.float32).reshape(4, 2))
    gradients = mx.array([[1.0, -3.0], [-2.0, 1.0], [0.5, 0.0]])
    after = sign_descent(table, mx.array([1, 1, 3]), gradients, mx.array(0.1), 0.5)
    before = np.arange(8, dtype=np.float32).reshape(4, 2)
    expected = before.copy()
    expected[1] = before[1] * 0.95 - 0.1 * np.sign([-1.0, -2.0])
    expected[3] = before[3] * 0.95 - 0.1 * np.sign([0.5, 0.0])
    np.testing.assert_allclose(np.array(after), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_heads": 16, "hidden_size": 48}, r"num_heads=16.*even"),
        ({"puzzle_emb_ndim": 100, "puzzle_emb_len": 2}, r"puzzle_emb_ndim=100.*at least 7"),
        ({"L_layers": 0}, r"L_layers=0"),
        ({"hidden_size": 0}, r"hidden_size=0"),
        ({"num_heads": 32}, r"num_heads=32"),
        ({"pos_encodings": "sine"}, r"pos_encodings=sine.*rope"),
        ({"name": "trm_hier6", "L_cycles": 7}, r"L_cycles=7.*at most 6"),
    ],
)
def test_impossible_models_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        make(**changes)


def test_an_unknown_variant_is_refused_with_the_known_ones():
    config = replace(make().config, name="trm_sevenz")
    with pytest.raises(InputError, match=r"arch\.name=trm_sevenz.*trm_hier6"):
        build_model(config)
