"""Large batches in several passes: the plan and its memory, and that it changes nothing else."""

import dataclasses
import io
import os

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from peaks import measured_peak

from trm_mlx import device
from trm_mlx.config import ModelConfig
from trm_mlx.config_io import arch_config, load_config
from trm_mlx.errors import InputError
from trm_mlx.models import act, kernels_cpu, memory
from trm_mlx.models.model import build_model
from trm_mlx.train import memory as train_memory
from trm_mlx.train.memory import plan
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
    "convolution": ("trm", {"pos_encodings": "rope2d", "board_convolution": True}),
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
    monkeypatch.setenv("MLX_SDPA_VJP_FALLBACK", "1")  # the CPU has no fused attention
    with device.assumed("metal", 8 * 2**30):
        yield


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


def bytes_of(state):
    return sum(array.nbytes for _, array in tree_flatten(state.arrays))


@pytest.mark.parametrize("kind", ["cuda", "metal"])
def test_plan_follows_the_memory(kind):
    state = make()
    model, held = state.model, bytes_of(state)
    config = dataclasses.replace(load_config(WORDS), global_batch_size=1000)

    def plan_for(rows, recompute=False, **changes):
        with device.assumed(kind, 2**40):
            size = train_memory.peak(config, model, held, 1000, rows, recompute) / memory.SHARE
        with device.assumed(kind, size + 1):
            return plan(dataclasses.replace(config, **changes), model, held)

    assert plan_for(1000)[:2] == (1000, False)
    assert plan_for(600)[:2] == (500, False)  # two equal passes
    few = plan_for(10)
    assert few.recompute
    assert plan_for(10, grad_checkpoint="false").rows == 10 < few.rows
    assert plan_for(10, recompute=True).rows >= 10
    assert plan_for(20, batch_size="250")[:2] == (250, True)
    assert plan_for(20, batch_size="250").peak > plan_for(20, batch_size="100").peak


def test_plan_where_the_carry_alone_is_too_large():
    """Then as many rows as its joining has room for: one at a time would save nothing."""
    state = make(words=["global_batch_size=10000"])
    with device.assumed("metal", 1):
        few = plan(state.config, state.model, bytes_of(state))
        least = train_memory.peak(
            state.config, state.model, bytes_of(state), 10000, 1, few.recompute
        )
    assert few.rows > 1
    assert few.peak == least


def test_plan_for_the_cpu(monkeypatch):
    """Small passes, and nothing computed twice: that would save no memory there."""
    state = make()
    model, held = state.model, bytes_of(state)
    config = dataclasses.replace(load_config(WORDS), global_batch_size=1000)
    size = train_memory.peak(config, model, held, 1000, 20, recompute=False)
    assert size == train_memory.peak(config, model, held, 1000, 20, recompute=True)
    monkeypatch.setattr(train_memory, "CPU_ROOM", size - held)
    assert plan(config, model, held)[:2] == (20, False)


def test_plan_counts_the_optimizer_and_the_puzzle_table():
    adam, muon = make(), make(words=["optimizer=muon", "ema=false"])
    assert adam.plan.peak - muon.plan.peak >= bytes_of(adam) - bytes_of(muon) > 0
    arch, size = arch_config("trm", **SMALL), {"seq_len": 9, "vocab_size": 6}
    peaks = []
    for identifiers in (1, 10**6):
        model = build_model(ModelConfig.of(arch, **size, num_puzzle_identifiers=identifiers))
        peaks.append(TrainState(model, adam.config, total_steps=10).plan.peak)
    assert peaks[1] - peaks[0] == 4 * (10**6 - 1) * model.config.puzzle_dims


def test_plan_counts_random_starts():
    plain, random = make(), make(words=["random_starts=0.5"])
    carry = 7 * memory.row_sizes(plain.model).carry
    assert random.plan.peak - plain.plan.peak == 2 * carry


@pytest.mark.parametrize(
    ("dims", "setting", "fused"),
    [
        (64, {}, True),
        (72, {}, True),
        (128, {}, True),
        (32, {}, False),
        (192, {}, False),
        (64, {"MLX_SDPA_VJP_FALLBACK": "1"}, False),
        (64, {"MLX_SDPA_VJP_FALLBACK": "0"}, True),
    ],
)
def test_scores_are_kept_where_metal_has_no_fused_gradient(monkeypatch, dims, setting, fused):
    for name, value in setting.items():
        monkeypatch.setenv(name, value)
    arch = arch_config("trm", **{**SMALL, "hidden_size": 2 * dims, "puzzle_emb_ndim": 0})
    sizes = {"vocab_size": 6, "num_puzzle_identifiers": 1}
    long, longer = (
        build_model(ModelConfig.of(arch, seq_len=length, **sizes)) for length in (512, 1024)
    )
    with device.assumed("metal", 2**40):
        growth = memory.row_sizes(longer).kept / memory.row_sizes(long).kept
    assert (growth < 2.01) == fused


def test_the_fused_gradient_makes_scores_of_a_block(monkeypatch):
    arch = arch_config("trm", **{**SMALL, "hidden_size": 128, "puzzle_emb_ndim": 0})
    sizes = {"seq_len": 900, "vocab_size": 6, "num_puzzle_identifiers": 1}
    model = build_model(ModelConfig.of(arch, **sizes))
    with device.assumed("metal", 2**40):
        whole = memory.row_sizes(model)
        monkeypatch.setenv("MLX_SDPA_VJP_BLOCK", "256")
        blocks = memory.row_sizes(model)
    assert blocks.gradient < whole.gradient
    assert blocks.kept == whole.kept


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
    monkeypatch.setattr(device, "GROUPS", tmp_path)
    monkeypatch.setattr(device, "MEMBERSHIPS", tmp_path / "cgroup")
    monkeypatch.setattr(device, "machine_memory", lambda: HOST)
    monkeypatch.setattr(memory, "device_kind", lambda: "cpu")
    assert memory.memory_size() == expected


def test_plan_follows_the_limit_of_a_container(monkeypatch, tmp_path):
    state = make()
    model, held = state.model, bytes_of(state)
    config = dataclasses.replace(load_config(WORDS), global_batch_size=1000)
    limit = (
        int(train_memory.peak(config, model, held, 1000, 20, recompute=False) / memory.SHARE) + 1
    )
    monkeypatch.setattr(device, "GROUPS", tmp_path)
    (tmp_path / "memory.max").write_text(f"{limit}\n")
    assert plan(config, model, held).rows == 20
    (tmp_path / "memory.max").write_text("2000000\n")
    assert 1 < memory.evaluation_rows(model, 1000) < 128


def test_a_gpu_evaluates_as_many_positions_at_once_on_every_canvas():
    """Of 900 cells 1,024 rows of arc-agi-1 were planned 61 GiB."""
    with device.assumed("cuda", HOST):
        model = make().model
        rows = {length: memory.evaluation_rows(model, 5000, length) for length in (81, 341, 916)}
    assert rows == {81: 1024, 341: 2**18 // 341, 916: 2**18 // 916}


def test_passes_are_planned_with_twice_the_work_ahead_but_not_allowed_it(monkeypatch):
    """On an H200 they went beyond the limit by nearly that, and more room made none faster."""

    def planned(words):
        with device.assumed("cuda", HOST):
            state = make(words=words)
            return state.plan.peak, state.room, memory.row_sizes(state.model).ahead

    (whole, room, ahead), (cut, cut_room, _) = planned([]), planned(["batch_size=4"])
    monkeypatch.setattr(memory, "RUN_AHEAD", 0)
    (still, still_room, _), (cut_still, cut_still_room, _) = planned([]), planned(["batch_size=4"])
    assert (whole - still, room - still_room) == (7 * ahead, 7 * ahead)
    assert (cut - cut_still, cut_room - cut_still_room) == (4 * 2 * ahead, 4 * ahead)


@pytest.mark.parametrize("value", ["0", "-3", "many", "1.5"])
def test_batch_sizes_that_cannot_be(value):
    with pytest.raises(InputError, match=r"batch_size=.*whole number above 0, or auto"):
        load_config([*WORDS, f"batch_size={value}"])


VARIANTS = {
    "trm": {},
    "trm, tokens": {"mlp_t": True, "pos_encodings": "none"},
    "trm_singlez": {},
    "trm, convolution": {"pos_encodings": "rope2d", "board_convolution": True},
    "trm_hier6": {},
    "hrm": {"L_layers": 1},
    "transformers_baseline": {},
}
# All of them, TRM_ALL_SIZES=1, take long, and gigabytes.
CELLS = [(rows, length) for length in (16, 256) for rows in (8, 64, 256, 1024)]
SIZES = CELLS if "TRM_ALL_SIZES" in os.environ else CELLS[:2]


@pytest.mark.parametrize(("rows", "length"), SIZES)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("kind", ["cpu", "metal"])
def test_plan_and_measured_peak(kind, variant, rows, length, request):
    """The peak is never above the plan, and the plan not so large that memory lies idle."""
    if kind == "metal":
        request.getfixturevalue("as_metal")
    changes = {"hidden_size": 16, "num_heads": 1, "H_cycles": 1, "L_cycles": 1, "H_layers": 1}
    arch = arch_config(variant.partition(",")[0], **{**changes, **VARIANTS[variant]})
    arch = dataclasses.replace(arch, forward_dtype="float32")
    config = dataclasses.replace(load_config([*WORDS, f"global_batch_size={rows}"]), arch=arch)
    peak, plan = measured_peak(config, length, vocab_size=11)
    assert 0.6 * plan.peak <= peak <= plan.peak, (peak / plan.peak, plan)


def _measure(words=(), length=32, rows=8, **changes):
    """The peak of a step of a small model of hidden size 64, and its plan."""
    base = {"hidden_size": 64, "num_heads": 2, "H_cycles": 2, "L_cycles": 2, "H_layers": 1}
    arch = arch_config(**{"name": "trm", "forward_dtype": "float32", **base, **changes})
    config = dataclasses.replace(
        load_config([*WORDS, f"global_batch_size={rows}", *words]), arch=arch
    )
    return measured_peak(config, length, vocab_size=11)


TOKENS = {"mlp_t": True, "pos_encodings": "none"}
DEEP = {
    "attention": {"L_cycles": 6},
    "tokens": {"L_cycles": 6, **TOKENS},
    "tokens, one row": {"L_cycles": 6, "rows": 1, **TOKENS},
    "dropout": {"dropout": 0.1},
    "dropout, tokens": {"dropout": 0.1, **TOKENS},
    "odd heads, which no loop attends": {"num_heads": 4, "hidden_size": 36, "length": 128}
    | {"pos_encodings": "none"},
    "a step ahead": {"name": "hrm"},
    "a step ahead, tokens": {"name": "hrm", **TOKENS},
    "six states": {"name": "trm_hier6", "L_cycles": 6},
    "random starts, in passes": {"words": ["random_starts=0.5", "batch_size=4"]},
    "bfloat16, without loops": {"forward_dtype": "bfloat16", "length": 128, "num_heads": 8}
    | {"hidden_size": 32, "L_layers": 1, "H_cycles": 1},
}


@pytest.mark.parametrize("case", DEEP.values(), ids=DEEP)
def test_peak_of_deep_recursions_on_the_cpu(case):
    peak, plan = _measure(**case)
    assert 0.6 * plan.peak <= peak <= plan.peak, (peak / plan.peak, plan)


@pytest.mark.parametrize("case", ["attention", "tokens", "odd heads, which no loop attends"])
def test_what_the_trace_of_the_cpu_keeps_of_a_block_is_counted(case):
    """By growth: a block more, for some rows more."""
    case, grown, counted = {**DEEP[case], "H_cycles": 1, "L_cycles": 3}, [], []
    for layers in (1, 2):
        few, more = (_measure(**{**case, "L_layers": layers, "rows": rows}) for rows in (2, 6))
        grown.append(more[0] - few[0])
        counted.append(more[1].peak - few[1].peak)
    assert grown[1] - grown[0] == pytest.approx(counted[1] - counted[0], rel=0.03)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("compiled", ["false", "true"])
def test_peak_of_few_rows(as_metal, compiled, dtype):
    """It is that of the weights: their copies in half precision, and gradients of every update."""
    wide = {"hidden_size": 128, "expansion": 2.0, "L_layers": 1, "puzzle_emb_ndim": 0}
    wide |= {"H_cycles": 1, "L_cycles": 12, "forward_dtype": dtype}
    peak, plan = _measure([f"compile={compiled}"], length=4, rows=2, **wide)
    assert 0.6 * plan.peak <= peak <= plan.peak, (peak / plan.peak, plan)


def test_peak_in_passes(as_metal):
    """The gradients so far, and the states of every pass until they are joined."""
    words = [*WORDS, "global_batch_size=16", "batch_size=4"]
    arch = arch_config("trm", **SMALL | {"H_cycles": 1, "L_cycles": 1, "L_layers": 1})
    config = dataclasses.replace(load_config(words), arch=arch)
    peak, plan = measured_peak(config, 100, vocab_size=11)
    assert plan.rows == 4
    assert 0.6 * plan.peak <= peak <= plan.peak


def test_the_limit_is_the_plans(as_metal):
    before = mx.get_memory_limit()
    with memory.bounded(10**6):
        assert mx.get_memory_limit() == pytest.approx(mx.get_active_memory() + 10**6, abs=10**6)
    assert mx.get_memory_limit() == before


def test_unrolled_steps_run_one_ahead(monkeypatch):
    """While a step is dispatched at most one other is under way."""
    waiting, most = [], []
    monkeypatch.setattr(mx, "async_eval", lambda carry, _results: waiting.append(carry))
    monkeypatch.setattr(mx, "eval", lambda carry: waiting.remove(carry) if waiting[1:] else None)
    for _ in act.unroll(
        lambda carry, _batch: (carry._replace(steps=carry.steps + 1), 0),
        act.Carry({}, mx.zeros(1), mx.zeros(1), {}),
        {},
        6,
    ):
        most.append(len(waiting))
    assert max(most) == 1
