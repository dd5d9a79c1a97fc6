"""A run that is killed, stopped, refused by the disk or given nonsense: nothing is lost."""

import errno
import itertools
import json
import os
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from safetensors.numpy import load_file
from tiny import ARCH

from trm_mlx import InputError, device, files
from trm_mlx.cli import main
from trm_mlx.config_io import load_config
from trm_mlx.evaluate import evaluate
from trm_mlx.run import checkpoint, signals, trainer
from trm_mlx.run.checkpoint import save_checkpoint
from trm_mlx.run.folder import RunFolder
from trm_mlx.run.trainer import Trainer

pytestmark = pytest.mark.slow
CHECKOUT = Path(__file__).resolve().parents[1]
WORDS = [
    "data_paths=[generate:sudoku4x4]",
    "puzzles_per_epoch=32",
    "test_puzzles=16",
    "global_batch_size=8",
    "epochs=3",
    "eval_interval=1",
    "lr=1e-3",
    "lr_warmup_steps=2",
    "ema=true",
    *ARCH,
    "arch.halt_max_steps=3",
]


def train(run, *words):
    return main(["train", *WORDS, f"checkpoint_path={run}", *words])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing happened to; tests only read it."""
    run = tmp_path_factory.mktemp("crash") / "whole"
    assert train(run) == 0
    return run


def steps_of(run):
    return sorted(path.name for path in run.glob("step_*"))


def checkpoint_of(folder):
    """Contents of a checkpoint; of its state, what does not depend on the folder."""
    arrays = {
        (path.name, name): (array.dtype, array.shape, array.tobytes())
        for path in folder.glob("*.safetensors")
        for name, array in load_file(path).items()
    }
    state = json.loads((folder / "state.json").read_text())
    del state["train_config"]
    return arrays, state


def assert_same_end(run, whole):
    last = steps_of(whole)[-1]
    assert steps_of(run)[-1] == last
    assert checkpoint_of(run / last) == checkpoint_of(whole / last)
    assert (run / "metrics.jsonl").read_text() == (whole / "metrics.jsonl").read_text()


def last_logged(run, step):
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [line for line in lines if json.loads(line)["step"] == step][-1]


def last_line(capsys):
    return capsys.readouterr().err.replace("\r", "\n").strip().splitlines()[-1]


# Killed


def test_same_command_same_run(whole, tmp_path):
    assert train(tmp_path / "again") == 0
    assert_same_end(tmp_path / "again", whole)


@contextmanager
def kills(run, places, monkeypatch):
    """What would be on the disk after a kill before each flush and rename, amid each deletion."""
    snapshots, rmtree = [], shutil.rmtree

    def snapshot():
        if run.is_dir():
            place = places / f"killed{len(snapshots)}"
            shutil.copytree(run, place)
            snapshots.append(place)

    def before(function):
        def snapshot_first(*arguments):
            snapshot()
            return function(*arguments)

        return snapshot_first

    def halfway(folder, **options):
        for path in list(Path(folder).rglob("*.json"))[:1]:
            path.unlink()
        snapshot()
        rmtree(folder, **options)

    with monkeypatch.context() as patched:
        patched.setattr(files, "_sync", before(files._sync))
        patched.setattr(Path, "rename", before(Path.rename))
        patched.setattr(shutil, "rmtree", halfway)
        yield snapshots


def test_a_kill_between_any_two_steps_of_writing(whole, tmp_path, monkeypatch):
    run = tmp_path / "run"
    with kills(run, tmp_path, monkeypatch) as snapshots:
        assert train(run, "keep_checkpoints=1", "keep_best=all/lm_loss") == 0
    assert len(snapshots) > 30
    for place in snapshots:
        for name in steps_of(place):
            assert checkpoint_of(place / name) == checkpoint_of(whole / name)
    begun = [place for place in snapshots if steps_of(place)]
    assert begun == snapshots[-len(begun) :], "a checkpoint went before the next was there"
    assert any(list(place.glob(".step_*")) for place in begun)
    for place in begun[:: len(begun) // 6]:
        if steps_of(place)[-1] != steps_of(whole)[-1]:
            assert main(["train", f"resume={place}"]) == 0
            assert_same_end(place, whole)
            assert not list(place.glob(".*.partial-*"))


def test_kills_of_real_processes():
    command = [sys.executable, CHECKOUT / "tools" / "crash_test.py", "--kills=5", "--epochs=3"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "each as the one left alone" in done.stdout


# Stopping


@pytest.mark.parametrize(
    ("number", "at"), [(signal.SIGINT, 1), (signal.SIGTERM, 6), (signal.SIGINT, 8)]
)
def test_a_signal_saves_and_says_how_to_go_on(whole, tmp_path, capsys, monkeypatch, number, at):
    run = tmp_path / "run"
    step = Trainer.train_step

    def signalled(trainer, batch):
        if trainer.progress.step == at - 1:
            os.kill(os.getpid(), number)
        return step(trainer, batch)

    handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "train_step", signalled)
        assert train(run) == 128 + number
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert steps_of(run)[-1] == f"step_{at:07d}"
    line = last_line(capsys)
    words = shlex.split(line.removeprefix(f"stopped at step {at}; to go on: "))
    assert words[-2:] == ["train", f"resume={run}"]
    assert main(words[words.index("train") :]) == 0
    assert_same_end(run, whole)


def test_a_signal_ends_an_evaluation_which_is_made_when_resumed(whole, tmp_path, monkeypatch):
    run = tmp_path / "run"
    to_halt = evaluate.run_all_steps

    def signalled(*arguments):
        if steps_of(run):  # in the second evaluation
            os.kill(os.getpid(), signal.SIGTERM)
        return to_halt(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(evaluate, "run_all_steps", signalled)
        assert train(run) == 143
    assert steps_of(run) == ["step_0000004", "step_0000008"]
    arrays, state = checkpoint_of(run / "step_0000008")
    assert arrays == checkpoint_of(whole / "step_0000008")[0]
    assert state["interval"] == 1
    assert not state["results"]

    # Killed at any moment after that, and resumed again.
    with kills(run, tmp_path, monkeypatch) as snapshots:
        assert main(["train", f"resume={run}"]) == 0
    for place in snapshots:
        assert {"step_0000004", "step_0000008"} <= {*steps_of(place)}, "the stopped one was lost"
    evaluated = [place for place in snapshots if '"all/' in last_logged(place, 8)]
    assert main(["train", f"resume={evaluated[0]}"]) == 0
    assert_same_end(evaluated[0], whole)
    assert_same_end(run, whole)
    assert checkpoint_of(run / "step_0000008") == checkpoint_of(whole / "step_0000008")


def test_a_run_stopped_from_python_goes_on_where_it_is(whole, tmp_path):
    run = tmp_path / "run"
    trainer = Trainer(load_config([*WORDS, f"checkpoint_path={run}"]))

    def stop_at_six():
        return trainer.progress.step == 6

    trainer.fit(stop_at_six)
    assert not trainer.finished
    assert steps_of(run) == ["step_0000004", "step_0000006"]
    trainer.fit()
    assert trainer.finished
    assert_same_end(run, whole)


@pytest.mark.parametrize("at", [1, 3, 14, 15, 40])
def test_a_long_step_is_left_in_its_middle_and_made_again(whole, tmp_path, monkeypatch, at):
    """In updates outside and inside the gradient, and in an evaluation; the weights are real."""
    monkeypatch.setattr(signals, "_PATIENCE", 0.0)
    trainer = Trainer(load_config([*WORDS, f"checkpoint_path={tmp_path / 'run'}"]))
    asked = itertools.count()
    trainer.fit(lambda: next(asked) == at)
    assert not trainer.finished
    if device.device_kind() == "cpu" and at == 1:
        assert trainer.progress.step == 0
    trainer.fit()
    assert trainer.finished
    assert_same_end(tmp_path / "run", whole)


def test_a_signal_before_the_first_step(tmp_path, capsys, monkeypatch):
    init = trainer.Report.__init__

    def signalled(report, *arguments):
        init(report, *arguments)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(trainer.Report, "__init__", signalled)
    assert train(tmp_path / "run") == 130
    assert last_line(capsys) == "stopped before the first step: nothing to resume"


@pytest.mark.parametrize("pause", [0.0, 1.2])
def test_a_second_interrupt_ends_at_once(tmp_path, pause):
    """But not a copy that follows within a second, as of a launcher that passes signals on."""
    code = (
        f"import sys, os, signal, time; sys.path.insert(0, {str(CHECKOUT)!r})\n"
        "from trm_mlx.cli import main\n"
        "from trm_mlx.run.trainer import Trainer\n"
        "step = Trainer.train_step\n"
        "def hanging(trainer, batch):\n"
        "    if trainer.progress.step == 5:\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        f"        time.sleep({pause})\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        f"        time.sleep({pause})\n"
        "    return step(trainer, batch)\n"
        "Trainer.train_step = hanging\n"
        f"sys.exit(main(['train', 'checkpoint_path={tmp_path / 'run'}', *{WORDS!r}]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 128 + signal.SIGINT
    assert done.stderr.count("a second Ctrl-C ends at once") == 1
    saved = steps_of(tmp_path / "run")
    assert saved == ["step_0000004"] if pause else saved[0] == "step_0000004" and len(saved) == 2
    assert main(["train", f"resume={tmp_path / 'run'}"]) == 0


FILL = """
import sys, time
from pathlib import Path
from trm_mlx.files import atomic_folder
with atomic_folder(Path(sys.argv[1])) as finished:
    print(finished, flush=True)
    time.sleep(60)
"""


def test_what_killed_builders_leave_is_cleared_away_and_what_others_fill_is_not(tmp_path):
    places = os.environ | {"PYTHONPATH": str(CHECKOUT)}
    builders = [
        subprocess.Popen(
            [sys.executable, "-c", FILL, tmp_path / name],
            env=places,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("data", "data", "data[1]")
    ]
    (tmp_path / ".data.partial-notes").mkdir()
    try:
        killed, living, other = (Path(b.stdout.readline().strip()).parent for b in builders)
        for number in (0, 2):
            builders[number].kill()
            builders[number].wait()
        with files.atomic_folder(tmp_path / "data") as finished:
            assert not killed.exists()
            (finished / "file").write_text("whole")
        assert living.exists()
        assert other.exists(), "it was to have another name"
        with files.atomic_folder(tmp_path / "data[1]"):
            assert not other.exists()
    finally:
        for builder in builders:
            builder.kill()
            builder.communicate()
    assert (tmp_path / "data" / "file").read_text() == "whole"
    assert (tmp_path / ".data.partial-notes").exists(), "a user's own"


# Refused by the disk


@pytest.fixture
def limit_files():
    """Sets a size that no file may grow beyond: the kernel's refusal, as of a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def last_words(capsys, monkeypatch, limit_files):
    """The last line of a run whose disk, once a patch has limited it, fills up."""

    def of(run, owner, name, patch):
        with monkeypatch.context() as patched:
            patched.setattr(owner, name, patch)
            assert train(run) == 2
        limit_files(resource.RLIM_INFINITY)
        return last_line(capsys)

    return of


def test_disk_full_in_the_middle_of_a_checkpoint(whole, tmp_path, last_words, limit_files):
    run = tmp_path / "run"

    def on_a_small_disk(folder, training, carries, progress, *others):
        if progress.step == 8:
            sizes = {path.name: path.stat().st_size for path in (run / "step_0000004").iterdir()}
            assert sizes["model.safetensors"] < sizes["optimizer.safetensors"]
            limit_files(sizes["optimizer.safetensors"] - 1)
        return save_checkpoint(folder, training, carries, progress, *others)

    line = last_words(run, trainer, "save_checkpoint", on_a_small_disk)
    assert line.startswith(f"error: cannot write {run / 'step_0000008'}: ")
    assert "only a part was written, is the disk full?" in line
    assert line.endswith(
        f"the last good checkpoint is {run / 'step_0000004'}, continue from it with resume={run}"
    )
    assert steps_of(run) == ["step_0000004"]
    assert not list(run.glob(".step_*"))
    assert main(["train", f"resume={run}"]) == 0
    assert_same_end(run, whole)


def test_disk_full_in_the_middle_of_a_dataset(tmp_path, capsys, limit_files):
    command = ["build", "sudoku", "--generate", "4", "--num-train", "400", "--num-test", "50"]
    limit_files(1000)
    assert main([*command, "--output-dir", str(tmp_path / "data")]) == 2
    limit_files(resource.RLIM_INFINITY)
    line = last_line(capsys)
    assert line.startswith(f"error: cannot write {tmp_path / 'data'}: ")
    assert line.endswith("; free some disk space or choose another directory")
    assert not list(tmp_path.iterdir())


def test_disk_full_in_the_middle_of_a_line_of_the_log(whole, tmp_path, last_words, limit_files):
    run, step = tmp_path / "run", Trainer.train_step

    def on_a_small_disk(trainer, batch):
        if trainer.progress.step == 6:
            limit_files((run / "metrics.jsonl").stat().st_size + 10)
        return step(trainer, batch)

    line = last_words(run, Trainer, "train_step", on_a_small_disk)
    assert line.startswith(f"error: cannot write {run / 'metrics.jsonl'}: File too large; the last")
    assert not (run / "metrics.jsonl").read_text().endswith("\n")
    assert main(["train", f"resume={run}"]) == 0
    assert_same_end(run, whole)


def test_a_place_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert train(tmp_path / "file" / "run") == 2
    assert last_line(capsys) == f"error: cannot write {tmp_path}/file/run: Not a directory"
    if os.geteuid() != 0:  # root may write anywhere
        (tmp_path / "locked").mkdir(mode=0o500)
        assert train(tmp_path / "locked" / "run") == 2
        assert "Permission denied" in last_line(capsys)


@pytest.mark.parametrize("lost", ["", "metrics.jsonl", ".lock"])
def test_what_is_deleted_of_a_run_folder_is_written_again_with_the_checkpoint(
    whole, tmp_path, capsys, monkeypatch, lost
):
    run, step = tmp_path / "run", Trainer.train_step

    def removed(trainer, batch):
        if trainer.progress.step == 10:
            (run / lost).rename(tmp_path / "away")
        return step(trainer, batch)

    monkeypatch.setattr(Trainer, "train_step", removed)
    assert train(run) == 0
    assert checkpoint_of(run / "step_0000012") == checkpoint_of(whole / "step_0000012")
    assert (run / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    assert (run / "all_config.yaml").exists()
    told = f"step 12: {run} was deleted or moved during the run; its configuration and log are"
    assert (told in capsys.readouterr().err) == (lost != "metrics.jsonl")


def test_a_run_folder_that_another_run_has_taken_meanwhile_is_left_to_it(
    tmp_path, capsys, monkeypatch
):
    run, step = tmp_path / "run", Trainer.train_step
    other = RunFolder(run)

    def taken(trainer, batch):
        if trainer.progress.step == 2:
            shutil.rmtree(run)
            other.open(trainer.config, None)
        return step(trainer, batch)

    monkeypatch.setattr(Trainer, "train_step", taken)
    assert train(run) == 2
    other.close()
    assert f"{run} is being trained by process" in last_line(capsys)
    assert sorted(path.name for path in run.iterdir()) == [".lock", "all_config.yaml"]


def test_a_step_that_cannot_be_deleted_is_warned_of(whole, tmp_path, capsys, monkeypatch):
    def refused(folder):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(folder))

    monkeypatch.setattr(checkpoint, "remove_folder", refused)
    run = tmp_path / "run"
    assert train(run, "keep_checkpoints=1") == 0
    assert steps_of(run) == steps_of(whole)
    warning = f"step 8: cannot delete {run / 'step_0000004'}: Operation not permitted"
    assert warning in capsys.readouterr().err


# Two at once, and other people's clocks


@pytest.mark.parametrize("moment", ["open", "flock"])
def test_a_folder_swept_away_before_it_is_locked_is_made_anew(tmp_path, monkeypatch, moment):
    module = {"open": os, "flock": files.fcntl}[moment]
    function = getattr(module, moment)

    def late(*arguments):
        monkeypatch.undo()
        for begun in tmp_path.glob(".data.partial-*"):
            begun.rmdir()
        return function(*arguments)

    monkeypatch.setattr(module, moment, late)
    with files.atomic_folder(tmp_path / "data") as finished:
        (finished / "file").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    assert (tmp_path / "data" / "file").exists()


def test_a_second_run_in_the_same_folder_is_refused(whole, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    shutil.rmtree(run / "step_0000012")
    first = Trainer(load_config([*WORDS, f"checkpoint_path={run}"]), resume=run)
    first.open()
    leftover = run / ".step_0000099.partial-abcdefgh"
    leftover.mkdir()
    capsys.readouterr()
    assert main(["train", f"resume={run}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        f"error: {run} is being trained by process {os.getpid()}: wait for it, or choose another "
        "run_name"
    )
    assert leftover.exists(), "a live run's checkpoint was swept away"
    first.fit()
    assert leftover.exists()
    assert main(["train", f"resume={run}", "epochs=4"]) == 0, "the lock outlived the run"
    assert not leftover.exists()


def test_a_run_that_has_come_further_meanwhile_is_not_written_over(whole, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    (run / "step_0000012").rename(tmp_path / "last")
    late = Trainer(load_config([*WORDS, f"checkpoint_path={run}"]), resume=run)
    (tmp_path / "last").rename(run / "step_0000012")
    with pytest.raises(InputError, match="holds the later step_0000012: resume from the newest"):
        late.fit()
    fresh = Trainer(load_config([*WORDS, f"checkpoint_path={tmp_path / 'new'}"]))
    shutil.copytree(whole, tmp_path / "new")
    with pytest.raises(InputError, match="already holds a run"):
        fresh.fit()


def test_a_clock_that_goes_backwards(whole, tmp_path, monkeypatch):
    run, now = tmp_path / "run", [2e9]

    def earlier():
        now[0] -= 3600
        return now[0]

    with monkeypatch.context() as patched:
        patched.setattr(time, "time", earlier)
        patched.setattr("tqdm.std.time", earlier)
        assert train(run) == 0
    assert_same_end(run, whole)
    shutil.rmtree(run / "step_0000012")
    os.utime(run / "step_0000008", (1, 1))
    resumed = Trainer(load_config([*WORDS, f"checkpoint_path={run}"]), resume=run)
    assert resumed.progress.step == 8


# Numbers


def poisoned(monkeypatch, at, spoil):
    """Training whose model is spoilt after a step."""
    step = Trainer.train_step

    def spoilt(trainer, batch):
        metrics = step(trainer, batch)
        if trainer.progress.step == at:
            spoil(trainer)
        return metrics

    monkeypatch.setattr(Trainer, "train_step", spoilt)


def spoil_weights(value):
    def spoil(trainer):
        trainer.model.lm_head.weight = trainer.model.lm_head.weight * value

    return spoil


def spoil_average(trainer):
    trainer.state.average["q_head"]["bias"] = mx.array([np.nan, 0.0])


def test_a_loss_that_is_no_number_stops_the_run(whole, tmp_path, capsys, monkeypatch):
    run = tmp_path / "run"
    with monkeypatch.context() as patched:
        poisoned(patched, 6, spoil_weights(np.nan))
        assert train(run) == 2
    line = last_line(capsys)
    assert line == (
        f"error: step 7: lm_loss is nan, nothing after it is saved; the last good checkpoint is "
        f"{run / 'step_0000004'}, continue from it with resume={run}, and set a smaller lr= or "
        "grad_clip=1"
    )
    assert steps_of(run) == ["step_0000004"]
    assert "NaN" not in (run / "metrics.jsonl").read_text()
    assert main(["train", f"resume={run}"]) == 0
    assert_same_end(run, whole)


@pytest.mark.parametrize("spoil", [spoil_weights(np.inf), spoil_average])
def test_a_state_that_is_no_number_is_not_saved(tmp_path, capsys, monkeypatch, spoil):
    run = tmp_path / "run"
    poisoned(monkeypatch, 4, spoil)
    assert train(run) == 2
    line = last_line(capsys)
    assert line.startswith(f"error: {run / 'step_0000004'} is not saved, ")
    assert "holds NaN or infinity; the run has no checkpoint yet" in line
    assert steps_of(run) == []


def test_saved_outputs_are_whole_or_absent(tmp_path, monkeypatch):
    """A disk that fills up while an evaluation's arrays are written leaves nothing behind."""
    from trm_mlx.evaluate.evaluate import write_files, write_outputs

    def full(file, **arrays):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(InputError, match=r"outputs\.npz: .*No space left"):
        write_outputs(tmp_path / "outputs.npz", {"preds": np.zeros(3)})
    assert not list(tmp_path.iterdir())
    monkeypatch.undo()
    write_outputs(tmp_path / "named", {"preds": np.ones(3)})
    assert np.load(tmp_path / "named")["preds"].sum() == 3
    (tmp_path / "named").unlink()
    write_files(tmp_path / "none", {})
    assert not list(tmp_path.iterdir())
    write_files(tmp_path / "evaluation", {"submission.json": "{}"})
    assert [path.name for path in (tmp_path / "evaluation").iterdir()] == ["submission.json"]
