"""Follows small traces of the published PyTorch code, recorded by tools/record_traces.py."""

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import parity
import pytest

FILES = sorted((Path(__file__).parent / "traces").glob("*.npz"))
OUTPUTS = ("logits", "q_halt_logits", "q_continue_logits")


class Trace:
    """A run of a file, and our model with the weights it starts from."""

    def __init__(self, path, run):
        with np.load(path) as file:
            content = dict(file)
        self.config = json.loads(str(content["config"]))

        def group(prefix):
            return {k.removeprefix(prefix): v for k, v in content.items() if k.startswith(prefix)}

        weights = group("weights/") | (group("heads/") if run == "random_heads" else {})
        weights = {name: array.astype(np.float32) for name, array in weights.items()}
        name = self.config["name"]
        self.model = parity.build(name, self.config["arch"], self.config, weights)
        self.run = group(f"{run}/")
        self.batches = [
            {name: mx.array(array.astype(np.int32)) for name, array in group(f"batch{i}/").items()}
            for i in range(3)
        ]

    def check(self, key, values, steps=slice(None)):
        """Whether values, steps or arrays first, are within 4 times the spread of the trace."""
        expected, spread = self.run[key][steps], self.run[f"spread/{key}"][steps]
        values = np.array(values)
        assert values.shape == expected.shape, key
        difference = np.abs(values - expected).reshape(len(values), -1).max(axis=1)
        assert (difference <= np.maximum(1e-5, 4 * spread)).all(), (key, difference, spread)


def sample(array):
    """The values of an array that a trace holds: [64]."""
    flat = np.array(array).ravel()
    return flat[np.linspace(0, flat.size - 1, 64).astype(int)]


def sampled(arrays):
    return [sample(array) for _, array in sorted(arrays.items())]


@pytest.fixture(params=["published", "random_heads"])
def run(request):
    return request.param


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def trace(request, run):
    return Trace(request.param, run)


def test_every_variant_has_a_trace():
    names = {path.stem for path in FILES}
    assert names == {
        "trm", "trm_mlp_t", "trm_singlez", "trm_hier6", "hrm", "transformers_baseline"
    }  # fmt: skip
    assert sum(path.stat().st_size for path in FILES) < 1.5e6


def test_evaluation(trace):
    model, batch = trace.model, trace.batches[0]
    model.eval()
    carry, outputs = model.initial_carry(batch), []
    for _ in range(model.config.halt_max_steps):
        carry, output = model(carry, batch)
        outputs.append(output)
    for name in OUTPUTS:
        trace.check(f"eval/{name}", [output[name] for output in outputs])
    assert carry.halted.all()


def test_first_gradients(trace):
    """Of every array but the puzzle table, whose gradient the published code keeps by rows."""
    state = parity.train_state(trace.model, trace.config, trace.config["batch_size"])
    carry = trace.model.initial_carry(trace.batches[0])
    _, _, gradients, _ = state.gradients(carry, trace.batches[0], mx.random.key(0))
    trace.check("gradients", sampled(parity.flat(gradients)))


def test_training(trace):
    config, run = trace.config, trace.run
    state = parity.train_state(trace.model, config, config["batch_size"])
    carry, steps = trace.model.initial_carry(trace.batches[0]), []
    for step in range(config["total_steps"]):
        carry, metrics = state.step(carry, trace.batches[step % 3], mx.random.key(step))
        np.testing.assert_array_equal(np.array(carry.halted), run["train/halted"][step])
        np.testing.assert_array_equal(np.array(carry.steps), run["train/steps"][step])
        steps.append({name: float(value) for name, value in metrics.items()})
    assert [values["lr"] for values in steps] == pytest.approx(run["train/lr"], rel=1e-6)
    trace.check("train/loss", [parity.total_loss(values) for values in steps])
    assert steps[0].keys() - {"lr"} == set(run["metrics"])
    trace.check("train/metrics", [[values[name] for name in run["metrics"]] for values in steps])
    final = parity.flat(trace.model.parameters())
    trace.check("final", sampled(final))
    trace.check("final_ema", sampled(parity.flat(state.average)))
