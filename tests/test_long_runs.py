"""A run that cannot end says so at its start, and one in a long step hears a signal."""

import io
import os
import signal
import subprocess
import sys
import time

import pytest
from runs import arrays_of, assert_same, config, take_steps

from trm_mlx.progress import ProgressBar
from trm_mlx.run import report, signals
from trm_mlx.run.report import Forecast
from trm_mlx.run.trainer import Trainer


def foretold(seconds, total=65_104, first=0):
    """What is said, and after which step, where the steps take so long."""
    forecast, now = Forecast(first, total, start=0.0), 0.0
    for step, each in enumerate(seconds, start=first + 1):
        now += each
        said = forecast.after(step, now)
        if said is not None:
            return step, said
    return None


def test_a_run_that_cannot_end_says_so(monkeypatch):
    monkeypatch.setattr(report.device, "device_kind", lambda: "cpu")
    step, line = foretold([660.0] * 3)
    assert step == 1
    assert line.startswith("65,103 steps, 11 min each on this CPU: 497 days; to see the end, use a")
    assert "a GPU, a smaller model" in line
    step, line = foretold([30.0] + [6.0] * 9)  # the first compiles
    assert step == 3
    assert line.startswith("65,101 steps, 6 s each on this CPU: 5 days")
    monkeypatch.setattr(report.device, "device_kind", lambda: "metal")
    assert "on this GPU: 5 days; to see the end, use a smaller" in foretold([30.0] + [6.0] * 9)[1]


def test_other_runs_say_less():
    assert foretold([20.0] + [0.5] * 99)[1].endswith("steps, 0.5 s each on this CPU: 9 h")
    assert foretold([20.0] + [0.5] * 99, total=1000) == (21, "")
    assert foretold([20.0] + [0.5] * 10) is None  # too early to say
    step, line = foretold([1.0] + [6.0] * 9, first=60_000)  # resumed
    assert (step, line) == (60_003, "5,101 steps, 6 s each on this CPU: 9 h")


def test_the_report_prints_it_once(data, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(report, "_LONG_STEP", 0.0)
    monkeypatch.setattr(report, "_LONG_RUN", 0.0)
    Trainer(config(data, tmp_path / "r", epochs=2)).fit()
    assert capsys.readouterr().err.count("5 steps, ") == 1


def test_the_bar_ends_full_where_intervals_drop_puzzles(data, tmp_path, capsys):
    words = {"global_batch_size": 10, "epochs": 4, "eval_interval": 1}  # two batches of 24 puzzles
    Trainer(config(data, tmp_path / "r", **words)).fit()
    assert "| 8/8 [" in capsys.readouterr().err


def test_a_bar_goes_on_where_the_clock_is_set_back(monkeypatch):
    now, shown = [2e9], io.StringIO()
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    with ProgressBar(total=10, file=shown, mininterval=0, disable=False, leave=False) as bar:
        bar.update(1)
        now[0] -= 3600
        bar.update(2)
        assert "3/10" in shown.getvalue()
        assert "-" not in shown.getvalue()
        assert 0 <= bar.format_dict["elapsed"] < 60


def in_passes(trainer):
    trainer.state.plan = trainer.state.plan._replace(rows=3)
    return trainer


def test_a_step_of_several_passes_stops_between_them(data, tmp_path, monkeypatch):
    """What it began is dropped, and made again: the run is as if it had not been stopped."""
    monkeypatch.setattr(signals, "_PATIENCE", 0.0)  # no step is short
    whole = in_passes(Trainer(config(data, tmp_path / "whole")))
    expected = take_steps(whole, 4)
    trainer = in_passes(Trainer(config(data, tmp_path / "cut")))
    asked = []

    def stop():
        asked.append(trainer.progress.step)
        return asked.count(1) == 3  # inside the second step

    trainer.fit(stop)
    saved = trainer.progress.step
    assert asked[-1] == saved == 1
    assert [path.name for path in (tmp_path / "cut").glob("step_*")] == [f"step_{saved:07d}"]
    resumed = in_passes(Trainer(config(data, tmp_path / "cut"), resume=tmp_path / "cut"))
    assert take_steps(resumed, 4 - saved) == expected[saved:]
    assert_same(arrays_of(whole), arrays_of(resumed))


def test_a_step_stops_in_its_gradient(data, tmp_path):
    """Where the loops of the CPU compute: it asks before the gradient of every update too."""
    trainer = Trainer(config(data, tmp_path / "run"))
    take_steps(trainer, 1)
    recursion, before = trainer.model.recursion, arrays_of(trainer)
    remaining = len(recursion.free_updates) + 2 * len(recursion.in_grad_updates)

    def leave():
        nonlocal remaining
        remaining -= 1
        if not remaining:
            raise signals.StopTraining

    trainer.model.before_update = leave
    with pytest.raises(signals.StopTraining):
        take_steps(trainer, 1)
    assert_same(before, arrays_of(trainer))


def test_a_stopped_run_no_longer_stops_what_its_model_does_next(data, tmp_path, monkeypatch):
    """Such as the vote of an adaptation, whose training ends by being stopped."""
    monkeypatch.setattr(signals, "_PATIENCE", 0.0)
    trainer = Trainer(config(data, tmp_path / "run"))
    trainer.fit(lambda: trainer.progress.step == 1)
    results, _ = trainer.evaluate()
    assert results["all"]["count"] == len(trainer.test_data)
    take_steps(trainer, 1)


def test_the_cache_is_cleared_around_an_evaluation(data, tmp_path, monkeypatch):
    """What training has left in MLX's cache is not of the sizes that an evaluation needs."""
    events = []
    trainer = Trainer(config(data, tmp_path / "run"))
    evaluate = trainer.evaluate
    monkeypatch.setattr("mlx.core.clear_cache", lambda: events.append("cleared"))
    monkeypatch.setattr(
        trainer, "evaluate", lambda *words: events.append("evaluated") or evaluate(*words)
    )
    trainer.fit()
    assert events == ["cleared", "evaluated", "cleared"] * 2


LONG_STEP = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a job of the background
from trm_mlx.run.signals import stop_signal
import mlx.core as mx
with stop_signal() as stop:
    print("begun", flush=True)
    a = mx.ones((2048, 2048))
    for _ in range(4000):
        a = a @ a * 1e-4
    mx.eval(a)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_are_heard_inside_a_step(number):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", LONG_STEP],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        try:
            assert process.stdout.readline() == "begun\n"
            time.sleep(0.2)
            process.send_signal(number)
            assert process.stderr.readline() == "\n"
            assert "a second Ctrl-C ends at once" in process.stderr.readline()
            time.sleep(1.2)
            process.send_signal(number)
            assert process.wait(20) == 128 + number
        finally:
            process.kill()
