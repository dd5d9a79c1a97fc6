"""The traces of the published PyTorch code, followed step by step.

How far a value may be from the trace is the rule of the traces: 4 times the spread of the published
code when its initial weights are perturbed by rounding noise, and never below 1e-5.
"""

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import parity
import pytest

torch = pytest.importorskip("torch", reason="the traces' weights are PyTorch files")

import oracle  # noqa: E402

SHARED = Path(__file__).resolve().parents[2] / "shared"
SETS = ("golden", "golden_init")  # random weights, and the published initialisation
FOLDERS = (
    "trm",
    "trm_mlp_t",
    "trm_learned_pos",
    "trm_singlez",
    "trm_hier6",
    "hrm",
    "transformers_baseline",
)
BATCH = ("inputs", "labels", "puzzle_identifiers")

pytestmark = pytest.mark.skipif(
    not (SHARED / "golden").exists(), reason="the traces are not beside this checkout"
)


class Golden:
    """One folder of traces and our model with its initial weights."""

    def __init__(self, kind, folder):
        self.folder = SHARED / kind / folder
        self.config = json.loads((self.folder / "config.json").read_text())
        # Closed at once: left to the garbage collector it fails some later test, as a warning.
        with (
            np.load(self.folder / "trace.npz") as trace,
            np.load(self.folder / "spread.npz") as spread,
        ):
            self.trace, self.spread = dict(trace), dict(spread)
        name = folder.removesuffix("_mlp_t").removesuffix("_learned_pos")
        self.model = parity.build(name, self.config["config"], self.config, self.weights("initial"))

    def assert_near(self, name, ours, expected=None):
        """An array of ours is as near to the trace as the published code is to itself."""
        expected = self.trace[name] if expected is None else expected
        difference = np.abs(np.array(ours, np.float64) - expected).max()
        assert difference <= max(1e-5, 4 * float(self.spread[name].max())), name

    def weights(self, name):
        return torch.load(self.folder / f"{name}.pth", weights_only=True)

    def batch(self, index):
        return {key: mx.array(self.trace[f"batch{index}/{key}"]) for key in BATCH}


@pytest.fixture(params=[(kind, folder) for kind in SETS for folder in FOLDERS], ids="-".join)
def golden(request):
    return Golden(*request.param)


def test_evaluation_follows_the_trace(golden):
    model, batch = golden.model, golden.batch(0)
    model.eval()
    carry = model.initial_carry(batch)
    for step in range(model.config.halt_max_steps):
        carry, outputs = model(carry, batch)
        for name in ("logits", "q_halt_logits", "q_continue_logits"):
            golden.assert_near(f"eval{step}/{name}", outputs[name])
    assert carry.halted.all()


def test_first_training_step_gives_the_recorded_outputs(golden):
    model, batch = golden.model, golden.batch(0)
    model.train()
    _, outputs = model(model.initial_carry(batch), batch, mx.random.key(0))
    names = ("logits", "q_halt_logits", "q_continue_logits", "target_q_continue")
    recorded = {name for name in names if f"train0/{name}" in golden.trace}
    assert outputs.keys() == recorded
    for name in recorded:
        golden.assert_near(f"train0/{name}", outputs[name])


def test_first_gradients(golden):
    batch = golden.batch(0)
    state = parity.train_state(golden.model, golden.config, golden.config["batch_size"])
    carry = golden.model.initial_carry(batch)
    _, _, gradients, _ = state.gradients(carry, batch, mx.random.key(0))
    gradients = parity.flat(gradients)
    prefix = "train0/grad/model.inner."
    expected = {
        name.removeprefix(prefix): golden.trace[name]
        for name in golden.trace
        if name.startswith(prefix)
    }
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        golden.assert_near(prefix + name, gradient)
        assert not gradient[expected[name] == 0].any(), f"{name}: noise where the gradient is 0"


def test_a_step_leaves_weights_without_gradient_to_their_decay(golden):
    """AdamATan2 makes a whole step of any gradient, however small."""
    trace, config = golden.trace, golden.config
    before = parity.flat(golden.model.trainable_parameters())
    state = parity.train_state(golden.model, config, config["batch_size"])
    carry = golden.model.initial_carry(golden.batch(0))
    _, metrics = state.step(carry, golden.batch(0), mx.random.key(0))
    rate = np.float32(metrics["lr"].item()) * np.float32(config["weight_decay"])
    after, untouched = parity.flat(golden.model.trainable_parameters()), 0
    for name, weight in before.items():
        still = trace[f"train0/grad/model.inner.{name}"] == 0
        untouched += still.sum()
        np.testing.assert_allclose(
            after[name][still], weight[still] * (1 - rate), rtol=2e-7, atol=0, err_msg=name
        )
    assert untouched


def test_training_follows_the_trace(golden):
    trace, config = golden.trace, golden.config
    state = parity.train_state(golden.model, config, config["batch_size"])
    carry = golden.model.initial_carry(golden.batch(0))
    for step in range(config["total_steps"]):
        carry, metrics = state.step(carry, golden.batch(step), mx.random.key(step))
        golden.assert_near(f"train{step}/loss", parity.total_loss(metrics))
        np.testing.assert_array_equal(np.array(carry.halted), trace[f"train{step}/halted"])
        np.testing.assert_array_equal(np.array(carry.steps), trace[f"train{step}/steps"])
        assert float(metrics["lr"]) == pytest.approx(float(trace[f"train{step}/lr"]), rel=1e-6)
        recorded = [n for n in trace if n.startswith(f"train{step}/metrics/")]
        assert {n.rsplit("/", 1)[1] for n in recorded} == metrics.keys() - {"lr"}
        for name in recorded:
            if name.endswith("loss"):
                golden.assert_near(name, metrics[name.rsplit("/", 1)[1]])
            else:  # counts and accuracies
                difference = abs(float(metrics[name.rsplit("/", 1)[1]]) - float(trace[name]))
                assert difference <= 1e-6, name

    for name, ours in (("final", {}), ("final_ema", parity.flat(state.average))):
        ours = {**parity.flat(golden.model.parameters()), **ours}
        theirs = golden.weights(name)
        assert ours.keys() == {key.rpartition("inner.")[2] for key in theirs}
        for key, value in theirs.items():
            golden.assert_near(
                f"{name}/{key}", ours[key.rpartition("inner.")[2]], value.float().numpy()
            )


@pytest.mark.parametrize("folder", FOLDERS)
def test_twenty_steps_beside_the_oracle(folder):
    """Twice as far as the traces go, from the published initialisation."""
    golden, runs = Golden("golden_init", folder), []
    arch = {"name": golden.model.config.name, **golden.config["config"]}
    for key in ("puzzle_emb_len", "no_ACT_continue"):
        arch[key] = getattr(golden.model.config, key)
    sizes = {name: golden.config[name] for name in parity.SIZES}
    hyper = {**golden.config, "total_steps": 20}
    batches = [golden.batch(step % golden.config["total_steps"]) for step in range(20)]
    weights = {k.rpartition("inner.")[2]: v.float() for k, v in golden.weights("initial").items()}
    for seed in (None, 0, 1, 2, 3):
        # Noise in q_head would end what this is about: a gradient that is exactly 0.
        noisy = {} if seed is None else oracle.perturbed(weights, seed=seed)
        noisy = {name: array for name, array in noisy.items() if not name.startswith("q_head")}
        reference, run = oracle.Oracle({**arch, **sizes}, {**weights, **noisy}), []
        torch_batches = [
            {name: torch.tensor(np.array(array)) for name, array in batch.items()}
            for batch in batches
        ]
        carry = reference.initial_carry(torch_batches[0])
        for batch in torch_batches:
            carry, loss, *_ = reference.train_step(carry, batch, hyper)
            run.append((float(loss), carry["halted"].tolist(), carry["steps"].tolist()))
        runs.append(run)

    state = parity.train_state(golden.model, hyper, golden.config["batch_size"])
    carry = golden.model.initial_carry(batches[0])
    spread = 0.0  # so far: of one step alone it may be next to nothing by chance
    for step, (batch, (loss, halted, steps)) in enumerate(zip(batches, runs[0], strict=True)):
        carry, metrics = state.step(carry, batch, mx.random.key(step))
        spread = max(spread, *(abs(run[step][0] - loss) for run in runs[1:]))
        assert abs(parity.total_loss(metrics) - loss) <= max(1e-5, 4 * spread), step
        assert (carry.halted.tolist(), carry.steps.tolist()) == (halted, steps), step
