"""Our models against an independent PyTorch statement of them, on fresh random weights.

What counts as equal is measured: the oracle itself is run with weights perturbed by rounding noise,
and ours may stray 20 times as far (the rule of the golden traces).
"""

import mlx.core as mx
import numpy as np
import parity
import pytest

torch = pytest.importorskip("torch", reason="the oracle is written in PyTorch")
oracle = pytest.importorskip("oracle")

SIZES = {"seq_len": 9, "vocab_size": 6, "num_puzzle_identifiers": 4}
BASE = {
    "hidden_size": 16,
    "num_heads": 2,
    "expansion": 4,
    "H_cycles": 2,
    "L_cycles": 2,
    "H_layers": 1,
    "L_layers": 1,
    "pos_encodings": "rope",
    "mlp_t": False,
    "puzzle_emb_ndim": 16,
    "puzzle_emb_len": 2,
    "no_ACT_continue": True,
    "halt_max_steps": 3,
    "halt_exploration_prob": 0.0,
    "forward_dtype": "float32",
}
HYPER = {
    "lr": 1e-3,
    "lr_min_ratio": 0.1,
    "lr_warmup_steps": 2,
    "total_steps": 6,
    "beta1": 0.9,
    "beta2": 0.95,
    "weight_decay": 0.1,
    "puzzle_emb_lr": 1e-2,
    "puzzle_emb_weight_decay": 0.1,
    "ema_rate": 0.9,
}
CASES = {
    "trm": {"name": "trm"},
    "trm mlp_t": {"name": "trm", "mlp_t": True, "pos_encodings": "none"},
    "trm learned": {"name": "trm", "pos_encodings": "learned"},
    "trm no positions": {"name": "trm", "pos_encodings": "none"},
    "trm no puzzles": {"name": "trm", "puzzle_emb_ndim": 0, "puzzle_emb_len": 0},
    "trm odd puzzle width": {"name": "trm", "puzzle_emb_ndim": 21},
    "trm prefix from width": {"name": "trm", "puzzle_emb_ndim": 40, "puzzle_emb_len": 0},
    "trm continue": {"name": "trm", "no_ACT_continue": False},
    "trm one step": {"name": "trm", "halt_max_steps": 1},
    "singlez": {"name": "trm_singlez"},
    "singlez continue": {"name": "trm_singlez", "no_ACT_continue": False},
    "hier6": {"name": "trm_hier6", "L_cycles": 6},
    "hier6 four": {"name": "trm_hier6", "L_cycles": 4},
    "hrm": {"name": "hrm", "no_ACT_continue": False, "puzzle_emb_len": 0},
    "baseline": {
        "name": "transformers_baseline",
        "no_ACT_continue": False,
        "puzzle_emb_len": 0,
        "H_layers": 2,
    },
}


@pytest.fixture(params=CASES)
def case(request):
    return {**BASE, **CASES[request.param]}


def batches(count, rows=4):
    """Random batches; some labels are ignored, and one row has none."""
    rng = np.random.default_rng(3)
    made = []
    for _ in range(count):
        labels = rng.integers(0, 6, (rows, 9))
        labels[rng.random((rows, 9)) < 0.2] = -100
        made.append(
            {
                "inputs": rng.integers(0, 6, (rows, 9)).astype(np.int32),
                "labels": labels.astype(np.int32),
                "puzzle_identifiers": np.array([1, 1, *rng.integers(0, 4, rows - 2)], np.int32),
            }
        )
    made[-1]["labels"][0] = -100
    return made


def ours(case, weights):
    arch = {key: value for key, value in case.items() if key != "name"}
    if case["name"] == "transformers_baseline":
        arch["bootstrap_q_continue"] = False
    return parity.build(case["name"], arch, SIZES, weights)


def in_torch(batch):
    return {name: torch.tensor(array) for name, array in batch.items()}


def in_mlx(batch):
    return {name: mx.array(array) for name, array in batch.items()}


def oracle_evaluation(case, weights):
    reference = oracle.Oracle({**case, **SIZES}, weights)
    batch = in_torch(batches(1)[0])
    carry, steps = reference.initial_carry(batch), []
    with torch.no_grad():
        for _ in range(case["halt_max_steps"]):
            carry, outputs = reference.forward(carry, batch, training=False)
            steps.append({name: value.float().numpy() for name, value in outputs.items()})
    return steps


def our_evaluation(case, weights):
    model = ours(case, weights)
    model.eval()
    batch = in_mlx(batches(1)[0])
    carry, steps = model.initial_carry(batch), []
    for _ in range(case["halt_max_steps"]):
        carry, outputs = model(carry, batch)
        steps.append({n: np.array(value.astype(mx.float32)) for n, value in outputs.items()})
    return steps


def largest_difference(first, second):
    return max(
        np.abs(a[name] - b[name]).max() for a, b in zip(first, second, strict=True) for name in a
    )


def test_evaluation(case):
    weights = oracle.random_weights({**case, **SIZES}, seed=1)
    expected = oracle_evaluation(case, weights)
    noise = max(
        largest_difference(expected, oracle_evaluation(case, oracle.perturbed(weights, seed=seed)))
        for seed in range(3)
    )
    assert largest_difference(our_evaluation(case, weights), expected) <= parity.allowed(noise)


def rms_difference(first, second):
    differences = [
        (a[name] - b[name]).ravel() for a, b in zip(first, second, strict=True) for name in a
    ]
    return np.sqrt(np.mean(np.concatenate(differences) ** 2))


@pytest.mark.parametrize("name", ["trm", "trm mlp_t", "singlez", "hier6", "hrm", "baseline"])
def test_bfloat16_evaluation_strays_no_further_than_pytorch_does(name):
    """The unit is PyTorch's own distance between bfloat16 and float32, over several weights.

    Equally fine rounding in another order is 1 away from float32, and up to sqrt(2) from PyTorch's.
    """
    case = {**BASE, **CASES[name], "halt_max_steps": 1}
    half = {**case, "forward_dtype": "bfloat16"}
    to_exact, to_theirs = [], []
    for seed in range(6):
        weights = oracle.random_weights({**case, **SIZES}, seed=seed)
        exact, theirs = oracle_evaluation(case, weights), oracle_evaluation(half, weights)
        unit, mine = rms_difference(theirs, exact), our_evaluation(half, weights)
        to_exact.append(rms_difference(mine, exact) / unit)
        to_theirs.append(rms_difference(mine, theirs) / unit)
    assert np.mean(to_exact) <= 1.25
    assert np.mean(to_theirs) <= 1.4
    assert max(to_exact) <= 2
    assert max(to_theirs) <= 2


def oracle_training(case, weights, loss):
    reference = oracle.Oracle({**case, **SIZES}, weights)
    data = batches(4)
    carry, losses, gradients = reference.initial_carry(in_torch(data[0])), [], []
    for batch in data:
        carry, value, metrics, _, grads = reference.train_step(
            carry, in_torch(batch), {**HYPER, "loss": loss}
        )
        gradients.append(grads)
        losses.append((float(value), metrics, carry["halted"].numpy(), carry["steps"].numpy()))
    final = {name: value.detach().numpy() for name, value in reference.weights.items()}
    average = {name: value.detach().numpy() for name, value in reference.ema.items()}
    return losses, gradients, final, average


def our_gradients(state, carry, batch, key, table):
    """Gradients by name; those of the puzzle rows summed into the shape of ``table``."""
    _, _, weights, puzzles = state.gradients(carry, batch, key)
    gradients = parity.flat(weights)
    if puzzles:
        gradients["puzzle_emb.weights"] = np.zeros_like(table)
        rows, grads = np.array(puzzles["identifiers"]), np.array(puzzles["gradients"])
        np.add.at(gradients["puzzle_emb.weights"], rows, grads)
    return gradients


@pytest.mark.parametrize("loss", ["stablemax_cross_entropy", "softmax_cross_entropy"])
def test_training(case, loss):
    weights = oracle.random_weights({**case, **SIZES}, seed=2)
    expected, gradients, final, average = oracle_training(case, weights, loss)
    noisy = [oracle_training(case, oracle.perturbed(weights, seed=seed), loss) for seed in range(3)]

    model, data = ours(case, weights), batches(4)
    state = parity.train_state(model, HYPER, 4, loss)
    carry = model.initial_carry(in_mlx(data[0]))
    for step, batch in enumerate(data):
        key, table = mx.random.key(step), final.get("puzzle_emb.weights")
        grads = our_gradients(state, carry, in_mlx(batch), key, table)
        assert grads.keys() == gradients[step].keys()
        for name, array in gradients[step].items():
            noise = max(np.abs(run[1][step][name] - array).max() for run in noisy)
            assert np.abs(grads[name] - array).max() <= parity.allowed(noise), (step, name)

        carry, metrics = state.step(carry, in_mlx(batch), key)
        value, recorded, halted, steps = expected[step]
        bound = parity.allowed(max(abs(run[0][step][0] - value) for run in noisy))
        assert abs(parity.total_loss(metrics) - value) <= bound, step
        np.testing.assert_array_equal(np.array(carry.halted), halted)
        np.testing.assert_array_equal(np.array(carry.steps), steps)
        assert metrics.keys() - {"lr"} == recorded.keys()
        for name, number in recorded.items():
            difference = abs(float(metrics[name]) - number)
            assert difference <= (bound if name.endswith("loss") else 1e-6), (step, name)

    for index, theirs, mine in (
        (2, final, parity.flat(model.parameters())),
        (3, average, parity.flat(state.average)),
    ):
        for name, array in theirs.items():
            noise = max(np.abs(run[index][name] - array).max() for run in noisy)
            assert np.abs(mine[name] - array).max() <= parity.allowed(noise), name
