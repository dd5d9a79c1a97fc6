"""Large batches in several passes: the plan and its memory, and that it changes nothing else."""

import dataclasses
import io
import sys

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from peaks import measured_peak

from trm_mlx import host_memory
from trm_mlx.config import ModelConfig
from trm_mlx.config_io import arch_config, load_config
from trm_mlx.errors import InputError
from trm_mlx.models import kernels_cpu
from trm_mlx.models.model import build_model
from trm_mlx.train import memory
from trm_mlx.train.step import TrainState

WORDS = ["data_paths=[none]", "global_batch_size=7", "ema=true", "compile=false"]
SMALL = {"hidden_size": 32, "num_heads": 2, "H_cycles": 2, "L_cycles": 2, "halt_max_steps": 3}


def make(name="trm", words=(), **changes):
    arch = arch_config(name, **{**SMALL, **changes})
    config = dataclasses.replace(load_config([*WORDS, *words]), arch=arch)
    sizes = {"seq_len": 9, "vocab_size": 6, "num_puzzle_identifiers": 3}
    return TrainState(build_model(ModelConfig.of(arch, **sizes)), config, total_steps=10)


def make_batch(step):
    rng = np.random.default_rng(step)
    batch = {
        "inputs": rng.integers(1, 6, (7, 9)),
        "labels": rng.integers(1, 6, (7, 9)),
        "puzzle_identifiers": rng.integers(0, 3, 7),
    }
    return {name: mx.array(array, mx.int32) for name, array in batch.items()}


def run(state, steps=4):
    """States, halting, metrics and weights after some steps."""
    carry, trace = state.model.initial_carry(make_batch(0)), []
    for step in range(steps):
        carry, metrics = state.step(carry, make_batch(step), mx.random.key(step))
        mx.eval(carry, metrics, state.arrays)
        trace.append({name: value.item() for name, value in metrics.items()})
    return carry, trace, dict(tree_flatten(state.model.parameters()))


CASES = {
    "attention": ("trm", {}),
    "tokens": ("trm", {"mlp_t": True, "pos_encodings": "none"}),
    "no puzzle embedding": ("trm", {"puzzle_emb_ndim": 0}),
    "q_continue": ("hrm", {"H_layers": 1, "L_layers": 1, "no_ACT_continue": False}),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("words", [["batch_size=3"], ["batch_size=1"]], ids=" ".join)
def test_passes_add_up_to_the_large_batch(case, words):
    name, changes = case
    whole, cut = make(name, **changes), make(name, words, **changes)
    assert (whole.plan.rows, cut.plan.rows) == (7, int(words[0][-1]))
    (carry, trace, weights), (cut_carry, cut_trace, cut_weights) = run(whole), run(cut)
    assert mx.array_equal(carry.steps, cut_carry.steps)
    assert mx.array_equal(carry.halted, cut_carry.halted)
    for sums, cut_sums in zip(trace, cut_trace, strict=True):
        assert sums == pytest.approx(cut_sums, rel=1e-5)
    for name, weight in weights.items():
        np.testing.assert_allclose(np.array(weight), cut_weights[name], rtol=1e-4, atol=2e-6)


def test_passes_when_compiled():
    trace = run(make(words=["batch_size=4"]))[1]
    compiled = run(make(words=["batch_size=4", "compile=true"]))[1]
    for sums, other in zip(trace, compiled, strict=True):
        assert sums == pytest.approx(other, rel=1e-5)


@pytest.fixture
def as_metal(monkeypatch):
    """What Metal would run, on the CPU: no loops of the CPU's own, and compiled."""
    for name, module in list(sys.modules.items()):
        if name.startswith("trm_mlx") and hasattr(module, "device_kind"):
            monkeypatch.setattr(module, "device_kind", lambda: "metal")
    monkeypatch.setattr(memory, "memory_size", lambda: 8 * 2**30)


def test_the_graph_does_not_grow_with_the_passes(as_metal, monkeypatch):
    """One pass is compiled, not the batch: it is traced once, and every graph has one pass."""
    rows, traces, graphs = 96, [], {}

    def compile_counted(function, **captured):
        def traced(*inputs):
            results = function(*inputs)
            text = io.StringIO()
            mx.export_to_dot(text, *(array for _, array in tree_flatten(results)))
            traces.append(text.getvalue().count("shape=rectangle"))
            return results

        return mx_compile(traced, **captured)

    mx_compile = mx.compile
    monkeypatch.setattr(mx, "compile", compile_counted)
    monkeypatch.setattr(mx, "eval", lambda *_: None)  # graphs are built, kernels are not
    batch = {name: mx.zeros((rows, 9), mx.int32) + 1 for name in ("inputs", "labels")}
    batch["puzzle_identifiers"] = mx.zeros((rows,), mx.int32)
    for passes in (1, 8, 48):
        traces.clear()
        words = [f"global_batch_size={rows}", f"batch_size={rows // passes}", "compile=true"]
        state = make(words=words)
        carry = state.model.initial_carry(batch)
        for step in range(2):
            carry, _ = state.step(carry, batch, mx.random.key(step))
        graphs[passes] = list(traces)
    assert [len(found) for found in graphs.values()] == [2, 2, 2]  # a pass and an update
    assert graphs[8] == graphs[48]
    # Of one pass nothing is added up.
    weights = len(tree_flatten(state.model.trainable_parameters()))
    assert graphs[1] == [graphs[8][0] - weights, graphs[8][1]]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_recomputing_changes_no_number(case):
    name, changes = case
    kept, again = make(name, **changes), make(name, ["grad_checkpoint=true"], **changes)
    assert (kept.plan.recompute, again.plan.recompute) == (False, True)
    (_, trace, weights), (_, other_trace, other) = run(kept), run(again)
    assert trace == other_trace
    assert all(mx.array_equal(weight, other[name]) for name, weight in weights.items())


def test_recomputing_keeps_less():
    """With the plain functions; the CPU's loops hold on to every intermediate array."""

    def peak(words):
        state = make(words=words, hidden_size=64, L_cycles=6)
        batch = make_batch(0)
        carry = state.model.initial_carry(batch)
        mx.eval(carry, state.arrays)
        mx.reset_peak_memory()
        with kernels_cpu.disabled():
            _, _, gradients, _ = state.gradients(carry, batch, mx.random.key(0))
        mx.eval(gradients)
        return mx.get_peak_memory()

    assert peak(["grad_checkpoint=true"]) < 0.9 * peak([])


def test_plan_follows_the_memory(monkeypatch):
    model = make().model
    monkeypatch.setattr(memory, "device_kind", lambda: "cuda")
    config = dataclasses.replace(load_config(WORDS), global_batch_size=1000)
    whole, twice = memory.row_bytes(model, recompute=False), memory.row_bytes(model, recompute=True)
    assert twice < whole

    def plan_with(room, **changes):
        size = (memory.fixed_bytes(model) + room) / memory.SHARE
        monkeypatch.setattr(memory, "memory_size", lambda: size)
        return memory.plan(dataclasses.replace(config, **changes), model)

    assert plan_with(1001 * whole) == (1000, False)
    assert plan_with(600 * whole) == (500, False)  # two equal passes
    assert plan_with(10 * whole, grad_checkpoint="false").rows == 10
    few = plan_with(10 * whole)
    assert few.recompute
    assert few.rows > 10
    assert plan_with(0).rows == 1
    assert plan_with(0, batch_size="250") == (250, True)


def test_plan_for_the_cpu(monkeypatch):
    """Small passes, and nothing computed twice: that would save no memory there."""
    model = make().model
    config = dataclasses.replace(load_config(WORDS), global_batch_size=10**6)
    row = memory.row_bytes(model, recompute=False)
    assert row == memory.row_bytes(model, recompute=True)
    monkeypatch.setattr(memory, "CPU_ROOM", 20 * row)
    assert memory.plan(config, model) == (20, False)


HOST = 64 * 2**30
UNLIMITED = 9223372036854771712  # what version 1 writes where there is no limit
# Files of control groups by path, the groups that the process is in, and what it then may take.
GROUPS = {
    "none": ({}, "", HOST),
    "docker, version 2": ({"memory.max": 8 * 2**30}, "0::/", 8 * 2**30),
    "docker, version 1": (
        {"memory/memory.limit_in_bytes": 8 * 2**30},
        "9:cpu:/docker/a1\n4:memory:/docker/a1\n0::/",
        8 * 2**30,
    ),
    "no limit, version 2": ({"memory.max": "max"}, "0::/", HOST),
    "no limit, version 1": ({"memory/memory.limit_in_bytes": UNLIMITED}, "4:memory:/", HOST),
    "more than there is": ({"memory.max": 2 * HOST}, "0::/", HOST),
    "both versions": (
        {"memory.max": 6 * 2**30, "memory/memory.limit_in_bytes": 5 * 2**30},
        "4:memory:/\n0::/",
        5 * 2**30,
    ),
    "a job inside a limited user": (
        {"user/memory.max": 4 * 2**30, "user/job/memory.max": "max"},
        "0::/user/job",
        4 * 2**30,
    ),
    "a job of version 1": (
        {"memory/slurm/job/memory.limit_in_bytes": 3 * 2**30},
        "5:cpuset:/other\n4:cpu,memory:/slurm/job\n0::/",
        3 * 2**30,
    ),
    "somebody else's": (
        {"other/memory.max": 2**30, "memory/other/memory.limit_in_bytes": 2**30},
        "7:pids:/other\n4:memory:/\n0::/user:1/job",
        HOST,
    ),
}


@pytest.mark.parametrize(("files", "memberships", "expected"), GROUPS.values(), ids=GROUPS)
def test_memory_of_a_container(monkeypatch, tmp_path, files, memberships, expected):
    for name, limit in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{limit}\n")
    (tmp_path / "cgroup").write_text(memberships)
    monkeypatch.setattr(host_memory, "GROUPS", tmp_path)
    monkeypatch.setattr(host_memory, "MEMBERSHIPS", tmp_path / "cgroup")
    monkeypatch.setattr(host_memory, "machine_memory", lambda: HOST)
    monkeypatch.setattr(memory, "device_kind", lambda: "cpu")
    assert memory.memory_size() == expected


def test_plan_follows_the_limit_of_a_container(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "device_kind", lambda: "cpu")
    model = make().model
    config = dataclasses.replace(load_config(WORDS), global_batch_size=10**6)
    room = 20 * memory.row_bytes(model, recompute=False)
    limit = int((memory.fixed_bytes(model) + room) / memory.SHARE) + 1
    monkeypatch.setattr(host_memory, "GROUPS", tmp_path)
    (tmp_path / "memory.max").write_text(f"{limit}\n")
    assert memory.plan(config, model).rows == 20
    assert memory.evaluation_rows(model, 1000) == 20


@pytest.mark.parametrize("value", ["0", "-3", "many", "1.5"])
def test_batch_sizes_that_cannot_be(value):
    with pytest.raises(InputError, match=r"batch_size=.*whole number above 0, or auto"):
        load_config([*WORDS, f"batch_size={value}"])


@pytest.mark.parametrize("rows", [16, 64])
@pytest.mark.parametrize(
    ("seq_len", "changes"),
    [
        (36, {"hidden_size": 64}),
        (81, {"hidden_size": 64}),
        (81, {"hidden_size": 128, "mlp_t": True, "pos_encodings": "none"}),
    ],
    ids=["attention, 36", "attention, 81", "tokens, 81"],
)
def test_plan_is_no_smaller_than_the_measured_peak(seq_len, changes, rows):
    """And not so much larger that most of the memory would lie idle."""
    arch = arch_config("trm", **{**SMALL, **changes})
    words = [*WORDS, f"global_batch_size={rows}"]
    config = dataclasses.replace(load_config(words), arch=arch)
    peak, plan = measured_peak(config, seq_len, vocab_size=11)
    sizes = {"seq_len": seq_len, "vocab_size": 11, "num_puzzle_identifiers": 1}
    model = build_model(ModelConfig.of(arch, **sizes))
    planned = memory.fixed_bytes(model) + plan.rows * memory.row_bytes(model, plan.recompute)
    assert 0.8 * peak <= planned <= 6 * peak, (peak / 1e6, planned / 1e6, plan)
