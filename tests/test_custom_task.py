"""A model knows its task: one of a user's own is trained, solved, drawn, watched and shown."""

import http.client
import json
import re
import shutil
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from serving import served

import trm_mlx
from trm_mlx import tasks
from trm_mlx.cli import main
from trm_mlx.config import ModelConfig
from trm_mlx.config_io import arch_config
from trm_mlx.demo.registry import ModelEntry
from trm_mlx.models.checkpoint_files import read_config, save_model
from trm_mlx.models.model import build_model
from trm_mlx.solve.questions import bundled_solvers
from trm_mlx.tasks import registry

CHECKOUT = Path(__file__).resolve().parents[1]
TASK = "examples.custom_task:sort8"
TINY = {
    "hidden_size": 8, "num_heads": 1, "L_layers": 1, "H_cycles": 1, "L_cycles": 1,
    "puzzle_emb_ndim": 0, "halt_max_steps": 2,
}  # fmt: skip


@pytest.fixture(autouse=True)
def in_the_checkout(monkeypatch):
    monkeypatch.chdir(CHECKOUT)
    monkeypatch.setattr(registry, "_TASKS", dict(registry._TASKS))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of ``examples/custom_task.py``, as its first lines say, but short."""
    run = tmp_path_factory.mktemp("run") / "sort8"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(CHECKOUT)
        assert main(
            ["train", "experiment=sudoku4x4", f"data=generate:{TASK}", "global_batch_size=8",
             "puzzles_per_epoch=16", "test_puzzles=8", "epochs=1", "eval_interval=1",
             "min_eval_interval=0", f"checkpoint_path={run}",
             *(f"arch.{name}={value}" for name, value in TINY.items())]
        ) == 0  # fmt: skip
    return run


def solve(checkpoint, *words):
    return main(["solve", "--checkpoint", str(checkpoint), "31415926", *map(str, words)])


def test_the_trainer_writes_it(trained):
    _, config = trm_mlx.load(trained)
    assert config.task == TASK
    assert tasks.task_of(config).name == "sort8"


def test_it_is_solved_watched_and_drawn(trained, tmp_path, capsys):
    pytest.importorskip("PIL")
    words = ["--trajectories", 1, "--halt-threshold", "none", "--watch"]
    for suffix in ("png", "gif", "html"):
        status = solve(trained, *words, "--save", tmp_path / f"out.{suffix}")
        output = capsys.readouterr().out
        assert re.search(r"^(Not s|S)olved: .* rules (satisfied|broken)", output, re.M)
        assert status == (0 if "rules satisfied" in output else 1)
        assert output.startswith("the question\n 3 1 4 1 5 9 2 6\n")
        frames = re.findall(r"^step \d of 2 .*\nsure it is done .*\n(.*)$", output, re.M)
        assert [len(frame) for frame in frames] == [16, 16]
        assert (tmp_path / f"out.{suffix}").stat().st_size > 500


def test_it_is_shown_on_the_page(trained):
    with served("--checkpoint", str(trained)) as (_, address):
        connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)

        def post(path, **body):
            headers = {"Content-Type": "application/json"}
            body = json.dumps({"model": str(trained), **body})
            connection.request("POST", path, body, headers)
            return [json.loads(line) for line in connection.getresponse()]

        connection.request("GET", "/models")
        model = json.load(connection.getresponse())["models"][0]
        assert (model["name"], model["task"]) == (str(trained), "sort8")
        assert (model["layout"]["rows"], model["layout"]["columns"]) == (1, 8)
        assert [key["symbol"] for key in model["keys"]] == list("0123456789")
        (made,) = post("/generate")
        (puzzle,) = post("/entry", text=made["text"])
        assert puzzle["problem"] is None
        assert "".join(puzzle["symbols"]) == made["text"]
        options = {"trajectories": 1, "restarts": False, "symmetries": False}
        _, *steps, end = post("/solve", text=made["text"], halt_threshold=None, **options)
        assert [step["kind"] for step in steps] == ["step", "step"]
        assert end["ending"].startswith("stopped at step 2, rules ")
        connection.close()


def test_a_puzzle_half_typed(trained):
    folder = sorted(trained.glob("step_*"))[-1]
    entry = ModelEntry.of("mine", folder, read_config(folder))
    assert entry.read_board(entry.input.blank).problem is None
    typed = entry.read_board("314x")
    assert typed.wrong == [3]
    assert "".join(typed.symbols) == "314x0000"


def test_its_module_is_missing(trained, tmp_path, capsys):
    """One line with the remedy, whatever is asked for."""
    folder = shutil.copytree(sorted(trained.glob("step_*"))[-1], tmp_path / "moved")
    values = json.loads((folder / "config.json").read_text())
    values["task"] = "gone.custom_task:sort8"
    (folder / "config.json").write_text(json.dumps(values))
    (folder / "state.json").unlink()  # which knows what the configuration was
    for words in (["solve", "31415926"], ["demo", "--no-browser"]):
        assert main([*words, "--checkpoint", str(folder)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line == (
            f"error: {folder}: no module 'gone.custom_task': write a task as package.module:NAME, "
            "and run from the folder that holds it, or set PYTHONPATH to that"
        )


def test_a_received_model_does_not_run_its_module(tmp_path, capsys, monkeypatch):
    """Not even from the current folder, until the user names it; from then on it is known."""
    sizes = {"vocab_size": 11, "seq_len": 8, "num_puzzle_identifiers": 1}
    config = ModelConfig.of(arch_config("trm", **TINY), **sizes, task="sent.module:sort8")
    save_model(tmp_path, build_model(config))
    (tmp_path / "sent").mkdir()
    (tmp_path / "sent" / "__init__.py").write_text("")
    text = "import pathlib\npathlib.Path('executed').touch()\nfrom examples.custom_task import *\n"
    (tmp_path / "sent" / "module.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(CHECKOUT)])

    def forget():
        for name in ("sent", "sent.module", "examples.custom_task"):
            sys.modules.pop(name, None)

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for words in (["solve", "31415926"], ["demo", "--no-browser"]):
        assert main([*words, "--checkpoint", "."]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line == (
            f"error: .: its task is sent.module:sort8, whose module {tmp_path}/sent/module.py "
            "would be run: if you trust that file, add --task sent.module:sort8 (Python: import "
            "sent.module)"
        )
        assert not (tmp_path / "executed").exists()
    words = ["--trajectories", 1]
    assert solve(".", *words, "--task", "sent.module:sort8") in (0, 1)
    assert (tmp_path / "executed").exists()
    forget()
    assert solve(".", *words) in (0, 1)
    (tmp_path / "other").mkdir()  # the same name elsewhere is another module
    shutil.copytree(tmp_path / "sent", tmp_path / "other" / "sent")
    monkeypatch.chdir(tmp_path / "other")
    monkeypatch.setattr(sys, "path", [str(CHECKOUT)])
    forget()
    assert solve("..", *words) == 2
    assert "whose module" in capsys.readouterr().err


def test_a_received_run_does_not_run_its_generator(trained, tmp_path, capsys, monkeypatch):
    run = shutil.copytree(trained, tmp_path / "run")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delitem(sys.modules, TASK.partition(":")[0], raising=False)
    for words in (["train", f"resume={run}"], ["eval", str(run)]):
        assert main(words) == 2
        assert f"its task is {TASK}, whose module {CHECKOUT}" in capsys.readouterr().err


def test_its_sizes_are_those_of_another_task(tmp_path, capsys, monkeypatch):
    """A 16-cell task is not judged as a 4x4 Sudoku."""
    (tmp_path / "all_right.py").write_text(
        "import numpy as np\n"
        "from trm_mlx.tasks import Task, register\n"
        "class Right(Task):\n"
        "    name, seq_len, vocab_size = 'right', 16, 6\n"
        "    def parse(self, text): return np.array(list(map(int, text)), np.uint8)\n"
        "    def render(self, values, givens=None): return ''.join(map(str, values))\n"
        "    def check(self, question, answer): return np.ones(np.shape(answer)[:-1], bool)\n"
        "register(Right())\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for task, status in (("all_right:right", 0), (None, 1)):
        sizes = {"seq_len": 16, "vocab_size": 6, "num_puzzle_identifiers": 1, "task": task}
        folder = tmp_path / f"model{status}"
        folder.mkdir()
        save_model(folder, build_model(ModelConfig.of(arch_config("trm", **TINY), **sizes)))
        assert read_config(folder).task == task
        if task is None:  # as before the field: sizes decide
            monkeypatch.setattr(registry, "_TASKS", {})
            values = json.loads((folder / "config.json").read_text())
            del values["task"]
            (folder / "config.json").write_text(json.dumps(values))
        words = ["solve", "--checkpoint", str(folder), "1000000000000004", "--trajectories", "1"]
        words += ["--task", task] if task else []
        assert main(words) == status
        assert f"rules {'broken' if status else 'satisfied'}" in capsys.readouterr().out


def test_bundled_models_know_theirs():
    for config in bundled_solvers().values():
        assert tasks.fitting(config.vocab_size, config.seq_len) == tasks.get(config.task)
