"""``trm adapt``: an ARC model and tasks it has not seen."""

import io
import json

import mlx.core as mx
import numpy as np
import pytest
from arcs import TASK, TEST, save_untrained

import trm_mlx
from trm_mlx import adaptation as adapting
from trm_mlx.adaptation.phases import Clock, Moment
from trm_mlx.cli import main
from trm_mlx.commands.adapt import _Bar
from trm_mlx.run.checkpoint import read_state
from trm_mlx.run.trainer import Trainer
from trm_mlx.tasks.arc_rows import SHARED

LARGE = [[1] * 31]
QUICK = ("--steps", "4", "--versions", "4", "--batch-size", "4")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapt")
    save_untrained(folder / "model")
    (folder / "task.json").write_text(json.dumps(TASK))
    (folder / "open.json").write_text(
        json.dumps({**TASK, "test": [{"input": [[4]]}, {"input": [[5, 5]]}]})
    )
    return folder


@pytest.fixture(scope="module")
def adapted(place):
    """An adaptation from the command line: the folder of its run."""
    words = ["adapt", place / "model", place / "task.json", *QUICK, "--run", place / "run"]
    words += ["-o", place / "answers.json", "--save", place / "sheet.png"]
    assert main(list(map(str, words))) == 0
    return place / "run"


def test_two_attempts_in_the_form_of_kaggle_and_a_picture(place, adapted):
    answers = json.loads((place / "answers.json").read_text())
    assert answers == json.loads((adapted / "answers.json").read_text())
    ((test,),) = answers.values()
    assert answers.keys() == {"task"}
    assert test.keys() == {"attempt_1", "attempt_2"}
    assert (place / "sheet.png").read_bytes().startswith(b"\x89PNG")


def test_the_picture_shows_the_answer_that_was_not_found(adapted, monkeypatch, tmp_path):
    sheet = []
    monkeypatch.setattr("trm_mlx.view.image.save_sheet", lambda rows, *_: sheet.extend(rows))
    assert main(["adapt", "--resume", str(adapted), "--save", str(tmp_path / "sheet.png")]) == 0
    (title, _question), *_attempts, (last, grid) = sheet[-1]
    assert (title, last) == ("task test 1, not found", "the answer")
    np.testing.assert_array_equal(grid, TASK["test"][0]["output"])


def test_rows_first_then_everything(adapted):
    """A quarter of the steps leaves the weights alone, and the new rows begin at the mean row."""
    start = mx.load(str(adapted / "start/model.safetensors"))
    before = mx.load(str(adapted.parent / "model/model.safetensors"))
    rows = mx.load(str(adapted / "rows/step_0000001/model.safetensors"))
    after = mx.load(str(adapted / "all/step_0000003/model.safetensors"))
    table, old = start.pop("puzzle_emb.weights"), before["puzzle_emb.weights"]
    np.testing.assert_array_equal(table[0], old[0])
    for row in table[1:]:
        np.testing.assert_allclose(row, np.array(old[1:]).mean(axis=0), rtol=1e-5)
    assert (rows["puzzle_emb.weights"] != table).any().item()
    for name, array in start.items():
        np.testing.assert_array_equal(array, before[name])
        np.testing.assert_array_equal(array, rows[name])
    assert any((after[name] != array).any().item() for name, array in start.items())


def test_solutions_are_never_trained_on(adapted):
    """The grids of the pairs have four cells in every version, those of the test nine."""
    for name in ("inputs", "labels"):
        cells = {
            split: (np.load(adapted / f"data/{split}/all__{name}.npy") > 1).sum(axis=1).tolist()
            for split in ("train", "test")
        }
        assert cells == {"train": [4] * 3 * 4, "test": [9] * 4}


def test_a_stopped_run_answers_and_goes_on_to_the_same_answer(place, adapted, tmp_path):
    """Ctrl-C in either phase or in the vote: an answer; continued, the one of the whole run."""
    tasks, _ = adapting.read_tasks(place / "task.json")
    whole = json.loads((adapted / "answers.json").read_text())
    options = {"steps": 4, "versions": 4, "batch_size": 4}
    for calls in (1, 4, 7):
        left = calls

        def should_stop():
            nonlocal left
            left -= 1
            return left <= 0

        run = tmp_path / f"run{calls}"
        part = adapting.adapt(place / "model", tasks, run, should_stop=should_stop, **options)
        assert part.interrupted
        assert len(part.answers["task"][0].attempts) == 2
        assert (run / "answers.json").exists()
        rest = adapting.resume(run)
        assert not rest.interrupted
        assert json.loads(rest.submission()) == whole
        assert read_state(run / "all")[1].step == 3


def test_known_answers_are_judged_and_others_not(place, tmp_path):
    known = trm_mlx.adapt(place / "model", place / "task.json", tmp_path / "a", steps=1, versions=2)
    ((answer,),) = known.answers.values()
    assert answer.right is not None
    assert answer.count == 2
    np.testing.assert_array_equal(answer.question, TEST["input"])
    unknown = trm_mlx.adapt(
        place / "model", place / "open.json", tmp_path / "b", steps=1, versions=2
    )
    (answers,) = unknown.answers.values()
    assert [answer.right for answer in answers] == [None, None]


def test_structured_rows_keep_what_is_shared(place, tmp_path):
    save_untrained(tmp_path / "model", puzzle_rows="structured")
    tasks, _ = adapting.read_tasks(place / "task.json")
    adapting.adapt(tmp_path / "model", tasks, tmp_path / "run", steps=1, versions=3)
    before = mx.load(str(tmp_path / "model/model.safetensors"))["puzzle_emb.weights"]
    table = mx.load(str(tmp_path / "run/start/model.safetensors"))["puzzle_emb.weights"]
    np.testing.assert_array_equal(table[:SHARED], before[:SHARED])
    assert len(table) == SHARED + 1
    np.testing.assert_allclose(table[SHARED], before[SHARED], rtol=1e-6)


def test_minutes_leave_time_for_the_vote():
    """The training ends where the votes would take what is left."""
    clock = Clock(1.0, None, lambda: False, lambda moment: None)
    clock._begun -= 30  # half a minute ago
    assert clock.step("rows", 1, votes=10) == pytest.approx(0.5, abs=0.01)
    clock._second = clock._second[0] - 2, 1  # steps of two seconds
    assert clock.step("rows", 2, votes=10) == pytest.approx(30 / 40, abs=0.01)


def test_a_folder_goes_on_without_its_broken_tasks(place, tmp_path, capsys):
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "good.json").write_text(json.dumps(TASK))
    (folder / "empty.json").write_text('{"train": [], "test": []}')
    (folder / "torn.json").write_text("{")
    words = ["adapt", place / "model", folder, *QUICK[2:], "--steps", "1"]
    table, sheet = tmp_path / "all.json", tmp_path / "all.png"
    words += ["--run", tmp_path / "run", "-o", table, "--save", sheet]
    assert main(list(map(str, words))) == 1
    output = capsys.readouterr()
    written = [tmp_path / "run" / "answers.json", table, sheet]
    assert output.out.splitlines()[-3:] == list(map(str, written))
    assert output.out.startswith("good test 1")
    assert "left out: " in output.err
    assert "empty.json" in output.err
    assert "torn.json" in output.err


@pytest.mark.parametrize(
    ("task", "words", "match"),
    [
        ('{"train": [], "test": [{"input": [[1]]}]}', (), "no 'train' examples"),
        ('{"train": [{"input": [[1]], "output": [[1]]}], "test": []}', (), "no 'test' examples"),
        ('{"train": [{"input": [[1], [1, 2]], "output": [[1]]}], "test": [{"input": [[1]]}]}', (),
         "the rows differ in length"),
        (json.dumps({"train": [{"input": [[0]], "output": LARGE}], "test": [{"input": [[1]]}]}),
         (), "larger than 30x30"),
        ("[1", (), "is not JSON"),
        ("null", (), "it must be one, or a list or object of them"),
        ('{"train": [{"input": [[1]]}], "test": [{"input": [[1]]}]}', (),
         "t.json: puzzle t, train[0], output: missing, not a grid"),
        (json.dumps(TASK), ("--minutes", "0"), "must be greater than 0"),
        (json.dumps(TASK), ("--minutes", "nan"), "must be greater than 0"),
        (json.dumps(TASK), ("--steps", "0"), "must be at least 1"),
        (json.dumps(TASK), ("--steps", "1", "--minutes", "1"), "not allowed with"),
        (json.dumps(TASK), ("--versions", "0"), "must be at least 1"),
        (json.dumps(TASK), ("--batch-size", "0"), "must be at least 1"),
        (json.dumps(TASK), ("--save", "x.gif"), "end the name in .png"),
        (json.dumps(TASK), ("-o", "nowhere/x.json"), "there is no folder"),
        (json.dumps(TASK), ("--resume", "x"), "leave out the others"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(place, tmp_path, capsys, task, words, match):
    (tmp_path / "t.json").write_text(task)
    words = ["adapt", str(place / "model"), str(tmp_path / "t.json"), *words]
    assert main([*words, "--run", str(tmp_path / "run")]) == 2
    (line,) = [text for text in capsys.readouterr().err.splitlines() if text.startswith("error")]
    assert match in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arch", "match"),
    [
        ({"pos_encodings": "rope", "canvases": None}, "adapting needs rope2d"),
        ({"puzzle_emb_ndim": 0, "puzzle_emb_len": 0}, "has no puzzle embeddings"),
    ],
)
def test_models_that_cannot_be_adapted(place, tmp_path, capsys, arch, match):
    save_untrained(tmp_path / "model", **arch)
    assert main(["adapt", str(tmp_path / "model"), str(place / "task.json")]) == 2
    assert match in capsys.readouterr().err
    assert main(["adapt", "sudoku-4x4", str(place / "task.json")]) == 2
    assert "name a model trained on ARC" in capsys.readouterr().err


def test_a_folder_that_is_taken_or_holds_nothing(place, adapted, tmp_path, capsys):
    words = ["adapt", place / "model", place / "task.json", "--run", adapted]
    assert main(list(map(str, words))) == 2
    assert "is not empty: continue what is in it with --resume" in capsys.readouterr().err
    assert main(["adapt", "--resume", str(tmp_path)]) == 2
    assert "name the folder of an earlier trm adapt" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["versions", "batch-size", "lr", "seed", "run"])
def test_a_resumed_adaptation_keeps_its_options(adapted, tmp_path, capsys, option):
    words = ["adapt", "--resume", str(adapted), f"--{option}", "1"]
    assert main(words) == 2
    assert f"leave out --{option}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("task", "output"),
    [
        ("task.json", "task.json"),
        (".", "task.json"),
        ("arc_a_challenges.json", "arc_a_solutions.json"),
    ],
)
def test_answers_are_not_written_over_what_is_read(place, tmp_path, capsys, task, output):
    (tmp_path / "task.json").write_text(json.dumps(TASK))
    if task.endswith("challenges.json"):
        (tmp_path / task).write_text(json.dumps({"a": TASK}))
        (tmp_path / output).write_text(json.dumps({"a": [TEST["output"]]}))
    before = (tmp_path / output).read_text()
    words = ["adapt", place / "model", tmp_path / task, "-o", tmp_path / output, *QUICK]
    assert main(list(map(str, words))) == 2
    assert f"{output} is read, as tasks: name another file" in capsys.readouterr().err
    assert (tmp_path / output).read_text() == before


def test_several_broken_tasks_are_named(place, tmp_path, capsys):
    for name in "abcdefg":
        (tmp_path / f"{name}.json").write_text("{")
    assert main(["adapt", str(place / "model"), str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: no puzzle can be used: ")
    assert "a.json is not JSON" in line
    assert "e.json is not JSON" in line
    assert line.endswith("; and 2 more")


def test_the_vote_is_announced_before_it_begins(place, tmp_path, monkeypatch):
    moments = []
    vote = Trainer.evaluate
    monkeypatch.setattr(Trainer, "evaluate", lambda *words: moments.append("begun") or vote(*words))
    adapting.adapt(
        place / "model", place / "task.json", tmp_path / "run", steps=1, versions=2,
        on_progress=moments.append,
    )  # fmt: skip
    start = moments.index("begun")
    assert moments[start - 1] == ("voting", 0.0)
    assert moments[-1] == ("voting", 1.0)


def test_the_bar_of_a_terminal_names_the_phase_that_it_shows(monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr("sys.stderr", terminal)
    with _Bar() as bar:
        bar._bar.mininterval = 0
        bar.update(Moment("learning", 1.0))
        shown = len(terminal.getvalue())
        bar.update(Moment("voting", 0.0))
    assert "learning" in terminal.getvalue()[:shown]
    assert "voting   0%" in terminal.getvalue()[shown:]
    assert "learning" not in terminal.getvalue()[shown:]


def test_tasks_of_a_kaggle_pair_and_of_a_list(tmp_path):
    challenges = {"a": {**TASK, "test": [{"input": [[4]]}]}, "b": TASK}
    (tmp_path / "x_challenges.json").write_text(json.dumps(challenges))
    (tmp_path / "x_solutions.json").write_text(json.dumps({"a": [[[4]]], "b": [TEST["output"]]}))
    (tmp_path / "list.json").write_text(json.dumps([{"id": "c", **TASK}]))
    for name, known in {"x_challenges.json": ["a", "b"], "list.json": ["c"]}.items():
        tasks, problems = adapting.read_tasks(tmp_path / name)
        assert [task.name for task in tasks] == known
        assert problems == []
    tasks, _ = adapting.read_tasks(tmp_path / "x_challenges.json")
    np.testing.assert_array_equal(tasks[0].test[0][1], [[4]])
