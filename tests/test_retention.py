"""Which checkpoints stay, and that the loss of numbers is noticed in the log."""

import json
from types import SimpleNamespace

import pytest

from trm_mlx import InputError
from trm_mlx.cli import main
from trm_mlx.config_io import load_config
from trm_mlx.run import checkpoint
from trm_mlx.run.log import MetricsLog
from trm_mlx.run.report import Report, SpikeWatch


def make_run(run, losses):
    """Folders as a run leaves them, evaluated or, at None, stopped in between."""
    for number, loss in enumerate(losses, 1):
        folder = run / f"step_{number:07d}"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        results = {} if loss is None else {"all/lm_loss": loss, "all/accuracy": 1 - loss}
        state = {"step": number, "interval": 1, "position": None, "results": results}
        (folder / "state.json").write_text(json.dumps({**state, "train_config": {}}))


def numbers_of(run):
    return [int(path.name.removeprefix("step_")) for path in sorted(run.glob("step_*"))]


@pytest.mark.parametrize(
    ("losses", "keep", "metric", "kept"),
    [
        ([0.1, 0.2, 0.3], 2, None, [2, 3]),
        ([0.1, 0.2, 0.3], 9, None, [1, 2, 3]),
        ([0.3, 0.1, 0.2, 0.2], 1, "all/lm_loss", [2, 4]),
        ([0.3, 0.1, 0.2, 0.2], 1, "all/accuracy", [2, 4]),
        ([0.3, 0.1, 0.1, None], 1, "all/lm_loss", [3, 4]),
        ([None, None, None], 2, "all/lm_loss", [2, 3]),
        ([float("nan"), 0.5, 0.9], 1, "all/lm_loss", [2, 3]),
    ],
)
def test_the_newest_and_the_best_stay(tmp_path, losses, keep, metric, kept):
    make_run(tmp_path, losses)
    checkpoint.prune(tmp_path, keep, metric)
    assert numbers_of(tmp_path) == kept


def test_newest_by_number_not_by_spelling(tmp_path):
    make_run(tmp_path, [0.1])
    (tmp_path / "step_0000001").rename(tmp_path / "step_9999999")
    make_run(tmp_path, [0.1])
    (tmp_path / "step_0000001").rename(tmp_path / "step_10000000")
    checkpoint.prune(tmp_path, 1, None)
    assert numbers_of(tmp_path) == [10_000_000]


def test_what_is_no_checkpoint_of_the_run_stays(tmp_path):
    make_run(tmp_path, [0.1, 0.2, 0.3])
    (tmp_path / "step_0000001" / "state.json").unlink()
    (tmp_path / "step_0000002").rename(tmp_path / "step_0000002.mine")
    checkpoint.prune(tmp_path, 1, None)
    assert [path.name for path in sorted(tmp_path.iterdir())] == [
        "step_0000001",
        "step_0000002.mine",
        "step_0000003",
    ]


def test_an_unknown_metric_deletes_nothing(tmp_path):
    make_run(tmp_path, [0.1, 0.2, 0.3])
    with pytest.raises(InputError, match="keep_best=accuracy: evaluations have all/accuracy, all/"):
        checkpoint.prune(tmp_path, 1, "accuracy")
    assert numbers_of(tmp_path) == [1, 2, 3]


def test_options(capsys):
    assert main(["train", "data_paths=[generate:sudoku4x4]", "keep_best=all/accuracy"]) == 2
    assert "keep_best=all/accuracy without keep_checkpoints" in capsys.readouterr().err
    assert main(["train", "data_paths=[generate:sudoku4x4]", "keep_checkpoints=0"]) == 2
    assert "keep_checkpoints=0: must be greater than 0" in capsys.readouterr().err


# The log


def test_a_line_that_the_disk_takes_in_pieces_is_whole(tmp_path, monkeypatch):
    log = MetricsLog(tmp_path, 0, True)
    file = log._file
    pieces = SimpleNamespace(write=lambda line: file.write(line[:7]), close=file.close)
    monkeypatch.setattr(log, "_file", pieces)
    log.write(1, {"train/count": 0.0, "train/lm_loss": 1.0})
    log.close()
    line = '{"step": 1, "train/count": 0.0, "train/lm_loss": 1.0}\n'
    assert (tmp_path / "metrics.jsonl").read_text() == line


# Spikes

LOSSES = [1.0] * 60 + [9.0] + [1.0] * 60 + [4.0, 5.0, 1.0, 2.9, 1.0, 7.0]


def test_a_spike_is_told_once():
    watch = SpikeWatch()
    told = [watch.median_exceeded(loss) for loss in LOSSES]
    # The first 100 losses are not judged; the second of two high ones is the same spike.
    assert {place: LOSSES[place] for place, median in enumerate(told) if median} == {
        121: 4.0,
        126: 7.0,
    }
    assert told[121] == 1.0


def test_a_loss_that_falls_is_no_spike():
    watch = SpikeWatch()
    assert not any(watch.median_exceeded(10 / (1 + place)) for place in range(300))


@pytest.mark.parametrize("cut", [60, 121, 122, 123, 126])
def test_a_resumed_log_tells_the_same_spikes(tmp_path, capsys, cut):
    config = load_config(["data_paths=[generate:sudoku4x4]"])

    def log(run, first, last):
        run.mkdir(exist_ok=True)
        with Report(run, config, first, len(LOSSES), evaluated=True) as report:
            for step in range(first, last):
                report.train(step + 1, {"count": 0.0, "lm_loss": LOSSES[step]})
        return (run / "metrics.jsonl").read_text()

    whole = log(tmp_path / "whole", 0, len(LOSSES))
    assert "step 122: loss spikes to 4, 4.0 times its median" in capsys.readouterr().err
    spikes = [line for line in map(json.loads, whole.splitlines()) if "train/loss_spike" in line]
    assert spikes == [
        {"step": 122, "train/loss_spike": 4.0, "train/loss_median": 1.0},
        {"step": 127, "train/loss_spike": 7.0, "train/loss_median": 1.0},
    ]
    log(tmp_path / "cut", 0, cut + 3 if cut + 3 < len(LOSSES) else len(LOSSES))
    assert log(tmp_path / "cut", cut, len(LOSSES)) == whole
