"""Two processes make the run of one: training, evaluation, resuming, and how they are stopped."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import mlx.core as mx
import numpy as np
import pytest
from processes import BACKEND, PLACES, alone, launched, launching, started
from runs import config, make_data
from tiny import TINY

from trm_mlx.cli import main
from trm_mlx.config_io import arch_config, train_config
from trm_mlx.distributed import World, connect
from trm_mlx.errors import InputError
from trm_mlx.models.act import draw_least_steps
from trm_mlx.models.checkpoint_files import find_checkpoint
from trm_mlx.run import synced_stop
from trm_mlx.run.checkpoint import read_state
from trm_mlx.run.trainer import Trainer
from trm_mlx.train.batches import open_test, open_train, train_stream

pytestmark = pytest.mark.slow
HANGS_AFTER = 300  # seconds; far more than a machine busy with other work needs


@pytest.fixture(scope="module")
def folder(tmp_path_factory, dataset):
    folder = tmp_path_factory.mktemp("processes")
    make_data(folder / "random")
    (folder / "arc").symlink_to(dataset)
    return folder


@pytest.fixture(scope="module")
def two(folder):
    """What each of two processes has found."""
    launched(2, folder, "two")
    return [dict(np.load(folder / f"two{rank}.npz")) for rank in range(2)]


def test_two_processes_are_one(folder, two):
    leading, other = two
    processes = [alone(folder, "whole"), alone(folder, "halves", "batch_size=4")]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    assert leading["carry.9.batch.inputs"].shape[0] == 8
    assert (leading["train.count"][:2] > 0).any(), "no row halted early, so none has explored"
    # One process that takes the batch in two passes adds the same numbers in the same order, but
    # for what is reported.
    for name, array in np.load(folder / "halves0.npz").items():
        if name.startswith("train"):
            np.testing.assert_allclose(leading[name], array, rtol=1e-6, err_msg=name)
        elif not name.startswith("message"):
            np.testing.assert_array_equal(leading[name], array, err_msg=name)
    assert {"weights.puzzle_emb.weights", "optimizer.step", "means.all.lm_loss"} < other.keys()
    for name, array in other.items():
        if not name.startswith("message"):
            np.testing.assert_array_equal(leading[name], array, err_msg=name)
    for name, array in np.load(folder / "whole0.npz").items():
        if name.startswith(("weights", "average", "means")):
            np.testing.assert_allclose(leading[name], array, rtol=0, atol=1e-5, err_msg=name)


@pytest.mark.skipif(BACKEND == "nccl", reason="its messages are work like any other")
def test_two_processes_that_compile_are_one_that_does_not(folder, tmp_path):
    """As a cluster of Macs: compiled passes, then the messages, then the compiled update."""
    options = [*TINY, f"data_paths=[{folder / 'random'}]", "epochs=1", "ema=true"]
    plain, compiled = tmp_path / "plain", tmp_path / "compiled"
    assert main(["train", *options, f"checkpoint_path={plain}"]) == 0
    options += ["compile=true", "batch_size=2"]
    launched(2, "trm", "train", *options, f"checkpoint_path={compiled}")
    found, expected = checkpoint_arrays(compiled), checkpoint_arrays(plain)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=0, atol=1e-4, err_msg=name)


def test_messages(two):
    for name in ("bool", "uint64", "float32", "uint8"):
        first, second = (found[f"message.{name}"] for found in two)
        assert first.tobytes() != second.tobytes()
        for found in two:
            gathered, leading = (found[f"message.{kind}.{name}"] for kind in ("gather", "leaders"))
            assert gathered.dtype == leading.dtype == first.dtype
            assert gathered.tobytes() == first.tobytes() + second.tobytes()
            assert leading.tobytes() == first.tobytes()
            np.testing.assert_array_equal(
                found["message.sum"], two[0]["message.float32"] + two[1]["message.float32"]
            )
            assert str(found["message.complaint"]) == (
                "the processes differ in colour [[1, 0], [1, 1]]: paint them"
            )


@pytest.mark.skipif(BACKEND == "nccl", reason="its messages are work like any other")
def test_a_message_is_waited_for_before_the_next(folder, tmp_path, monkeypatch):
    # Behind one that has failed MLX computes on, and its ring may wait forever for another.
    events, evaluate = [], mx.eval

    def send(message):
        events.append(message)
        return message

    def wait(*arrays):
        events.append(arrays)
        evaluate(*arrays)

    run = config("", tmp_path / "run", data_paths=[str(folder / "random")])
    monkeypatch.setattr(mx.distributed, "all_sum", send)
    monkeypatch.setattr(mx.distributed, "all_gather", lambda rows: send(mx.repeat(rows, 2, axis=0)))
    trainer = Trainer(run, world=World(0, 2))
    batch, _ = next(iter(trainer.stream))
    monkeypatch.setattr(mx, "eval", wait)
    events.clear()
    trainer.train_step(batch)
    sent = [number for number, event in enumerate(events) if isinstance(event, mx.array)]
    assert len(sent) == 2
    for number in sent:
        (waited_for,) = events[number + 1]
        assert waited_for is events[number]


@pytest.mark.parametrize("arch", ["trm", "hrm"])
@pytest.mark.parametrize("parts", [2, 4])
def test_rows_explore_as_in_the_whole_batch(arch, parts):
    config = arch_config(arch, halt_exploration_prob=0.5)
    key, another = mx.random.split(mx.random.key(2))
    whole = draw_least_steps(config, 64, key).tolist()
    assert whole != draw_least_steps(config, 64, another).tolist()
    found = []
    for rank in range(parts):
        found += draw_least_steps(config, 64 // parts, key, shard=(rank, parts)).tolist()
    assert found == whole


@pytest.mark.parametrize(
    ("source", "augment"), [("folder", False), ("folder", True), ("generate:sudoku4x4", False)]
)
def test_rows_are_those_of_the_global_batch(tmp_path, source, augment):
    if source == "folder":
        source = str(tmp_path / "data")
        words = ["build", "sudoku", "--generate", "4", "--num-train", "30", "--num-test", "5"]
        assert main([*words, "--output-dir", source]) == 0
    run = train_config(
        {
            "data_paths": [source], "augment": augment, "epochs": 2, "global_batch_size": 6,
            "puzzles_per_epoch": 30, "test_puzzles": 5,
        }
    )  # fmt: skip

    def batches(world):
        stream = train_stream(open_train(run), open_test(run), run, None, world)
        return [pair for pair, _ in zip(stream, range(6), strict=False)]

    ranks = [batches(World(rank, 3)) for rank in range(3)]
    for number, (batch, position) in enumerate(batches(World())):
        shares = [rank[number] for rank in ranks]
        assert all(place == position for _, place in shares)
        for name, array in batch.items():
            together = np.concatenate([share[name] for share, _ in shares])
            np.testing.assert_array_equal(together, array)


@pytest.mark.parametrize("source", ["folder", "generate:sudoku4x4"])
def test_a_batch_that_does_not_divide(folder, tmp_path, source):
    paths = [str(folder / "random") if source == "folder" else source]
    with pytest.raises(InputError, match=r"batch_size 8 cannot be split over 3 .*multiple of 3"):
        Trainer(config("", tmp_path / "run", data_paths=paths), world=World(1, 3))
    assert not (tmp_path / "run").exists()


def test_one_process_is_no_group(monkeypatch):
    monkeypatch.delenv("MLX_RANK", raising=False)
    monkeypatch.setattr(mx.distributed, "init", None)
    assert connect() == World(0, 1)


def test_processes_that_cannot_be_reached(tmp_path, monkeypatch):
    monkeypatch.setenv("MLX_RANK", "0")
    monkeypatch.setenv("MLX_HOSTFILE", str(tmp_path / "none.json"))
    with pytest.raises(InputError, match=r"cannot join the other processes .*mlx\.launch"):
        connect()


def checkpoint_arrays(run):
    return {
        f"{path.name} {name}": np.array(array)
        for path in find_checkpoint(run).glob("*.safetensors")
        for name, array in mx.load(str(path)).items()
    }


def test_resuming_with_another_number_of_processes(folder, tmp_path):
    run, whole = tmp_path / "run", tmp_path / "whole"
    options = [*TINY, f"data_paths=[{folder / 'random'}]", "ema=true"]
    assert main(["train", *options, f"checkpoint_path={whole}", "epochs=3"]) == 0
    said = launched(2, "trm", "train", *options, f"checkpoint_path={run}", "epochs=1")
    assert said.count("3 steps of 8 rows on 2 processes") == 1
    assert main(["train", f"resume={run}", "epochs=2"]) == 0
    launched(2, "trm", "train", f"resume={run}", "epochs=3")
    found, expected = checkpoint_arrays(run), checkpoint_arrays(whole)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(found[name], array, rtol=0, atol=1e-5, err_msg=name)
    assert {path.name for path in run.iterdir()} == {path.name for path in whole.iterdir()}
    logs = [(path / "metrics.jsonl").read_text().splitlines() for path in (run, whole)]
    first, second = ([json.loads(line)["step"] for line in log] for log in logs)
    assert first == second
    names = ["--save", "preds", "q_halt_logits", "inputs", "--batch-size", "8", "--output"]
    launched(2, "trm", "eval", run, *names, tmp_path / "two.npz")
    assert main(["eval", str(run), *names, str(tmp_path / "one.npz")]) == 0
    together, one = np.load(tmp_path / "two.npz"), np.load(tmp_path / "one.npz")
    assert together.keys() == one.keys()
    for name in one:
        np.testing.assert_allclose(together[name], one[name], rtol=0, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("number", range(int(os.environ.get("TRM_TEST_KILLS", "2"))))
def test_the_others_end_with_one_that_is_killed(folder, tmp_path, number):
    run = tmp_path / "run"
    options = [*TINY, f"data_paths=[{folder / 'random'}]", f"checkpoint_path={run}", "epochs=10000"]
    options.append("global_batch_size=12")
    count = 2 + number % 2  # of three, two have a neighbour that lives as well as one that does not
    *others, killed = processes = started(count, tmp_path, "trm", "train", *options)
    try:
        until = time.monotonic() + HANGS_AFTER
        while not list(run.glob("step_*")) and time.monotonic() < until:
            time.sleep(0.05)
        time.sleep(np.random.default_rng(number).random() / 2)
        killed.send_signal(signal.SIGKILL)
        said = [process.communicate(timeout=HANGS_AFTER) for process in others]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    for process, (out, err) in zip(others, said, strict=True):
        assert process.returncode == 2, err
        assert out == ""
        # MLX's threads may still have something to say after the last line of ours.
        (line,) = [line for line in err.splitlines() if "another process of the run has" in line]
        assert f"resume={run}" in line
        assert "Traceback" not in err
    _, progress, _ = read_state(run)
    assert main(["train", f"resume={run}", f"epochs={progress.interval + 1}"]) == 0
    assert read_state(run)[1].interval == progress.interval + 1


# Stopping


def is_running(process):
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(process)], stdout=subprocess.PIPE)
    return state.stdout[:1] not in (b"", b"Z")


def wait_until(condition):
    until = time.monotonic() + HANGS_AFTER
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.fixture
def launcher(folder, tmp_path):
    """A launcher of two processes that train until they are stopped, and save for seconds."""
    options = [*TINY, f"data_paths=[{folder / 'random'}]", f"checkpoint_path={tmp_path / 'run'}"]
    program = launching(2, "slow", "train", *options, "epochs=1000000", "eval_interval=1000000")
    with (tmp_path / "said").open("w") as said:
        # Its own group, as of a terminal. In the background of a script SIGINT would be ignored.
        launcher = subprocess.Popen(
            **program,
            stderr=said,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
    try:
        yield launcher
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(launcher.pid, signal.SIGKILL)
        launcher.wait()


def processes_of(launcher):
    found = subprocess.run(["pgrep", "-P", str(launcher.pid)], check=True, stdout=subprocess.PIPE)
    return [int(number) for number in found.stdout.split()]


@pytest.mark.parametrize(
    ("number", "target"),
    [
        (signal.SIGTERM, "each"),
        (signal.SIGTERM, "each twice"),
        (signal.SIGTERM, "each, then the terminal is closed"),
        (signal.SIGTERM, "one"),
        (signal.SIGINT, "one"),
        (signal.SIGTERM, "group"),
        (signal.SIGINT, "group"),  # Ctrl-C at a terminal
        (signal.SIGHUP, "group"),  # that is closed
        (signal.SIGTERM, "launcher"),
    ],
)
def test_a_signal_ends_in_one_checkpoint(launcher, tmp_path, number, target):
    run, log = tmp_path / "run", tmp_path / "run" / "metrics.jsonl"
    wait_until(lambda: log.exists() and log.read_text().count("\n") > 3)
    processes = processes_of(launcher)
    assert len(processes) == 2
    if target == "group":
        os.killpg(launcher.pid, number)
    elif target == "launcher":
        launcher.send_signal(number)
    else:
        for process in processes[: 1 if target == "one" else 2]:
            os.kill(process, number)
    if target == "each twice":  # as a launcher that passes on what they have had already
        time.sleep(0.3)
        for process in processes:
            with contextlib.suppress(ProcessLookupError):  # it has nothing to save
                os.kill(process, number)
    if target.endswith("closed"):  # while the first one saves
        time.sleep(1.5)
        os.killpg(launcher.pid, signal.SIGHUP)
    wait_until(lambda: not any(map(is_running, processes)))
    (saved,) = run.glob("step_*")
    assert read_state(run)[1].step == int(saved.name.removeprefix("step_")) > 0
    said = (tmp_path / "said").read_text()
    assert "Traceback" not in said or number == signal.SIGINT  # the launcher's own
    if target in ("each", "each twice", "one"):  # the launcher lives on
        assert launcher.wait(HANGS_AFTER) == 0
        assert said.count("; to go on: ") == 1


def test_processes_ask_each_other_rarely_but_in_time(monkeypatch):
    now, sent, wish = [0.0], [], []
    monkeypatch.setattr(synced_stop.time, "monotonic", lambda: now[0])

    def send(message):
        sent.append(call)
        return message

    monkeypatch.setattr(mx.distributed, "all_sum", send)
    with synced_stop.synced_stop(lambda: bool(wish), World(0, 2)) as should_stop:
        for call in range(200):
            now[0] += 0.01 if call < 100 else 1.0
            assert not should_stop()
        fast, slow = ([each for each in sent if begin <= each < 200] for begin in (40, 140))
        assert fast[1] - fast[0] == 16
        assert slow[1] - slow[0] == 2
        wish.append("now")
        assert should_stop() or should_stop()


LOST = """
import os, signal, time
from trm_mlx.distributed import World
from trm_mlx.run import synced_stop
from trm_mlx.run.signals import stop_signal

class Silent(World):
    def sum(self, tree):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)

synced_stop._LOST = 0.1
with (
    stop_signal() as stop,
    synced_stop.synced_stop(stop.should_stop, Silent(0, 2)) as should_stop,
):
    should_stop()
"""


def test_one_that_waits_for_a_dead_one_ends_by_sigterm():
    done = subprocess.run(
        [sys.executable, "-c", LOST],
        check=False,
        env=os.environ | PLACES,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 2
    assert done.stderr.endswith("error: another process of the run does not answer; unsaved\n")


UNREAD = """
import signal, sys
from trm_mlx.run.signals import stop_signal
from trm_mlx.run.synced_stop import outlive_launcher

with stop_signal() as stop:
    outlive_launcher(stop)
    if sys.stdin.read() == "SIGTERM":
        signal.raise_signal(signal.SIGTERM)
    print("nobody reads this", file=sys.stderr)
    print("nor this", file=sys.stderr)
sys.exit(100 + stop.signal)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("connect", [os.pipe, os.openpty])
def test_what_a_launcher_no_longer_reads_is_a_wish_to_stop(connect, number):
    """The line about the signal, or another one."""
    reading, writing = connect()
    process = subprocess.Popen(
        [sys.executable, "-c", UNREAD],
        env=os.environ | PLACES,
        stdin=subprocess.PIPE,
        stderr=writing,
        text=True,
    )
    os.close(writing)
    os.close(reading)
    process.communicate(number.name, timeout=30)
    assert process.returncode == 100 + number
