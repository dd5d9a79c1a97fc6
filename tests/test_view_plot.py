"""``trm plot``: curves from the logs of runs."""

import json
from pathlib import Path

import pytest

from trm_mlx.cli import main
from trm_mlx.commands import plot


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "first"
    folder.mkdir()
    lines = [
        {"step": n, "train/lm_loss": 2 / n, "train/lr": 1e-3, "train/count": 0} for n in range(1, 9)
    ]
    lines += [{"step": 8, "all/lm_loss": 0.4, "all/exact_accuracy": 0.5, "all/steps": 3}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_curves(run):
    curves = plot.curves_of(run)
    assert curves["train", "lm_loss"][:2] == [(1, 2.0), (2, 1.0)]
    assert curves["all", "exact_accuracy"] == [(8, 0.5)]


def test_long_curves_are_means():
    points = plot.thinned([(n, n % 2) for n in range(1200)] + [(1200, float("nan"))])
    assert len(points) == 300
    assert points[0] == (1.5, 0.5)


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_pictures(run, tmp_path, suffix, capsys):
    pytest.importorskip("matplotlib")
    second = tmp_path / "second"
    second.mkdir()
    (second / "metrics.jsonl").write_text((run / "metrics.jsonl").read_text())
    target = tmp_path / f"curves.{suffix}"
    assert main(["plot", str(run), str(second), "-o", str(target)]) == 0
    start = {"png": b"\x89PNG", "svg": b"<?xml"}[suffix]
    assert target.read_bytes().startswith(start)
    assert target.stat().st_size > 10_000


def test_panels_legends_and_axes(run):
    pytest.importorskip("matplotlib")
    figure = plot._figure({run: plot.curves_of(run)})
    loss, exact, steps, rate = figure.axes
    labels = [text.get_text() for text in loss.get_legend().get_texts()]
    assert labels == ["first · train", "first · evaluation (all)"]
    assert [axes.get_ylabel() for axes in (loss, exact, steps, rate)] == [
        "loss", "exact accuracy", "steps to halt", "learning rate",
    ]  # fmt: skip
    assert {axes.get_xlabel() for axes in figure.axes} == {"training step"}
    assert [len(axes.lines) for axes in figure.axes] == [2, 1, 1, 1]
    figure.draw_without_rendering()
    ticks = [text.get_text() for text in loss.get_yticklabels(which="both")]
    assert {"0.5", "1", "2"} <= {*ticks} <= {"0.1", "0.2", "0.5", "1", "2", "5", "10", ""}


def test_marks_that_coincide_both_show(run, tmp_path):
    pytest.importorskip("matplotlib")
    with (run / "metrics.jsonl").open("a") as log:
        log.write(json.dumps({"step": 8, "rules/exact_accuracy": 0.5}) + "\n")
    logs = {run: plot.curves_of(run), tmp_path / "other": plot.curves_of(run)}
    marks = plot._figure(logs).axes[1].lines
    assert len({line.get_markersize() for line in marks[:2]}) == 2
    assert marks[0].get_markersize() != marks[2].get_markersize()
    assert marks[1].get_markerfacecolor() == "none"


def test_many_runs_can_be_told_apart(run, tmp_path):
    pytest.importorskip("matplotlib")
    logs = {tmp_path / str(number) / "same": plot.curves_of(run) for number in range(9)}
    rate = plot._figure(logs).axes[3]
    assert len({(line.get_color(), line.get_linestyle()) for line in rate.lines}) == 9
    assert len({line.get_label() for line in rate.lines}) == 9


def test_the_run_that_is_the_working_folder_has_a_label(run):
    pytest.importorskip("matplotlib")
    rate = plot._figure({Path(): plot.curves_of(run)}).axes[3]
    assert [line.get_label() for line in rate.lines] == [". · train"]


def test_refusals(run, tmp_path, capsys, monkeypatch):
    def refused(folder, target="out.png"):
        assert main(["plot", str(folder), "-o", str(tmp_path / target)]) == 2
        assert not (tmp_path / target).exists()
        (line,) = capsys.readouterr().err.splitlines()
        return line

    assert "end the name in .png or .svg" in refused(run, "out.jpg")
    assert "there is no folder" in refused(run, "no/out.png")
    monkeypatch.setattr(plot.importlib.util, "find_spec", lambda name: None)
    assert "pip install 'trm-mlx[plot]'" in refused(run)
    monkeypatch.setattr(plot.importlib.util, "find_spec", lambda name: True)
    log = run / "metrics.jsonl"
    whole = log.read_text()
    log.write_text("not a log\n" + whole)
    assert f"{log} line 1 is damaged: remove the line" in refused(run)
    log.write_text("[1, 2]\n" + whole)
    assert f"{log} line 1 is damaged" in refused(run)
    for damaged in ('{"step": Infinity}\n', '{"a": ' + "[" * 100_000 + "\n", '{"step": 1e999}\n'):
        log.write_text(whole + damaged)
        assert f"line {whole.count(chr(10)) + 1} is damaged" in refused(run)
    log.write_bytes(b"\xff\xfe\n")
    assert "is not a log of text" in refused(run)
    log.write_text("")
    assert f"{log} has no numbers yet" in refused(run)
    assert "cannot read" in refused(tmp_path / "absent")


def test_a_line_still_being_written(run):
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 9, "train/lm_')
    assert max(step for step, _ in plot.curves_of(run)["train", "lm_loss"]) == 8
