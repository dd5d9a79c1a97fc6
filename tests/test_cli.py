"""The commands, end to end on a 4x4 Sudoku, and the one line each answers bad input with."""

import io
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny import TINY

import trm_mlx
from trm_mlx.cli import main, parser_of
from trm_mlx.data.dataset import PuzzleDataset

CHECKOUT = Path(__file__).resolve().parents[1]
PUZZLE = "1.3434122143432."


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a dataset ``data`` and a finished run ``run``; tests only read them."""
    folder = tmp_path_factory.mktemp("cli")
    build = ["build", "sudoku", "--generate", "4", "--num-train", "16", "--num-test", "5"]
    assert main([*build, "--output-dir", str(folder / "data")]) == 0
    assert train(folder, "run", "ema=true") == 0
    return folder


@pytest.fixture
def copy(place, tmp_path):
    """The same, to be damaged."""
    shutil.copytree(place / "data", tmp_path / "data")
    shutil.copytree(place / "run", tmp_path / "run")
    return tmp_path


def train(folder, run, *words):
    return main(
        [
            "train",
            f"data_paths=[{folder / 'data'}]",
            f"checkpoint_path={folder / run}",
            *TINY,
            *map(str, words),
        ]
    )


def error_of(capsys, status):
    """The line on stderr of a command that must have failed before it began."""
    output = capsys.readouterr()
    assert status == 2
    assert output.out == ""
    (line,) = output.err.splitlines()
    assert line.startswith("error: ")
    return line.removeprefix("error: ")


def refusal(capsys, *words):
    capsys.readouterr()
    return error_of(capsys, main([str(word) for word in words]))


def train_refusal(capsys, folder, *words):
    """The same for training, which must leave no run folder."""
    capsys.readouterr()
    status = train(folder, "refused", *words)
    assert not (folder / "refused").exists()
    return error_of(capsys, status)


def contents(folder):
    """Every file of a folder with its bytes."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder): path.read_bytes() for path in files}


def arrays_of(folder):
    from trm_mlx.models.checkpoint_files import read_weights

    return {name: np.array(a) for name, a in read_weights(folder / "model.safetensors").items()}


def log_of(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


# The dispatcher


def test_overview(capsys):
    for words in ([], ["--help"], ["-h"]):
        assert main(words) == 0
        text = capsys.readouterr().out
        assert all(
            f"trm {verb} " in text
            for verb in ("build sudoku", "build arc", "train", "eval", "solve")
        )
    for words in (["build"], ["build", "--help"]):
        assert main(words) == 0
        text = capsys.readouterr().out
        assert "trm build sudoku " in text
        assert "trm train" not in text
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"{trm_mlx.__version__}\n"


@pytest.mark.parametrize(
    "verb",
    [
        "build sudoku",
        "build maze",
        "build arithmetic",
        "build arc",
        "train",
        "eval",
        "solve",
        "convert",
        "doctor",
    ],
)
def test_help(capsys, verb):
    with pytest.raises(SystemExit) as stop:
        main([*verb.split(), "--help"])
    assert stop.value.code == 0
    assert f"usage: trm {verb} " in capsys.readouterr().out


def test_help_as_a_word(capsys):
    assert main(["help"]) == 0
    assert "trm build sudoku" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["help", "train"])
    text = capsys.readouterr().out
    assert "usage: trm train " in text
    assert "sudoku4x4                    4x4 Sudoku from the generator" in text  # the recipes


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("trm bu", "build"),
        ("trm build su", "sudoku"),
        ("trm solve --traj", "--trajectories"),
        ("trm train experiment=sudoku4", "experiment=sudoku4x4"),
        ("trm train arch.hid", "arch.hidden_size="),
    ],
)
def test_completion(typed, expected, monkeypatch, tmp_path):
    argcomplete = pytest.importorskip("argcomplete")
    *before, last = typed.split()
    finder = argcomplete.CompletionFinder(parser_of(before[1:]))
    found = finder._get_completions(before, last, "", None)
    assert expected in [word.strip() for word in found]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["trian"], "no command 'trian': did you mean 'train'?"),
        (["build", "soduko", "--x"], "no command 'build soduko': did you mean 'build sudoku'?"),
        (["frobnicate"], "no command 'frobnicate': choose one of build sudoku, build maze, "),
        (["export"], "the following arguments are required: checkpoint, output"),
        (["eval"], "the following arguments are required: checkpoint; see trm eval --help"),
        (["train", "--lr"], "unrecognized arguments: --lr; see trm train --help"),
        (["train", "lr"], "cannot read 'lr': write key=value"),
        (["train", "lr=a\nb"], "lr='a b': expected a number"),
        (["train", "a=[\nb"], "a=[ b: not a YAML value"),
    ],
)
def test_bad_command_lines(capsys, words, expected):
    assert expected in refusal(capsys, *words)


def test_interrupt(capsys, monkeypatch):
    def interrupted(words):
        raise KeyboardInterrupt

    monkeypatch.setattr("trm_mlx.cli._dispatch", interrupted)
    assert main(["train"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


# Training


def test_run_folder(place):
    run = place / "run"
    names = {path.name for path in run.iterdir()}
    assert names == {
        ".lock",
        "all_config.yaml",
        "metrics.jsonl",
        "step_0000002",
        "step_0000004",
    }
    assert {path.name for path in (run / "step_0000004").iterdir()} == {
        "config.json",
        "model.safetensors",
        "ema.safetensors",
        "optimizer.safetensors",
        "carry.safetensors",
        "state.json",
    }
    lines = log_of(run)
    assert [line["step"] for line in lines if "train/lm_loss" in line] == [1, 2, 3, 4]
    assert [line["step"] for line in lines if "all/exact_accuracy" in line] == [2, 4]


def test_resume_goes_on_in_the_folder_named(copy, place, capsys):
    shutil.rmtree(copy / "run" / "step_0000004")
    before = contents(place)
    assert main(["train", f"resume={copy / 'run'}"]) == 0
    assert capsys.readouterr().out == f"{copy / 'run'}\n"
    assert contents(place) == before, "a copied run wrote into the original"
    assert log_of(copy / "run") == log_of(place / "run")
    whole, resumed = (arrays_of(folder / "run" / "step_0000004") for folder in (place, copy))
    for name, array in whole.items():
        np.testing.assert_array_equal(array, resumed[name], err_msg=name)


def test_second_run_into_the_same_folder(copy, capsys):
    before = contents(copy / "run")
    assert train(copy, "run") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {copy / 'run'} already holds a run: continue it with resume=")
    assert contents(copy / "run") == before


def test_launcher(copy):
    shutil.rmtree(copy / "run" / "step_0000004")
    words = [f"resume={copy / 'run'}"]
    command = [sys.executable, "-W", "error", CHECKOUT / "pretrain.py", *words]
    done = subprocess.run(command, cwd=copy, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{copy / 'run'}\n"
    command[-1] = "lr=fast"
    done = subprocess.run(command, cwd=copy, check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "error: lr='fast': expected a number\n"


@pytest.mark.parametrize(
    ("words", "typed", "expected"),
    [([], b"", True), ([], b" \n", True), ([], b"1...", False), (["x"], b"", False)],
)
def test_an_example_without_arguments(monkeypatch, words, typed, expected):
    """Unless a puzzle comes by standard input, of which nothing is lost."""
    names = runpy.run_path(str(CHECKOUT / "single_inference.py"))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(typed)))
    assert names["solves_an_example"](words) == expected
    assert sys.stdin.buffer.read() == typed
    assert len(names["EXAMPLE"]) == 81


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("learning_rate=1", "unknown key learning_rate: did you mean "),
        ("arch.L_cycle=1", "unknown key arch.L_cycle: did you mean arch.L_cycles?"),
        ("arch=trn", "arch=trn: no such file; choose one of hrm, "),
        ("lr=fast", "lr='fast': expected a number"),
        ("epochs=3.5", "epochs=3.5: expected a whole number"),
        ("eval_interval=0", "eval_interval=0 does not divide epochs=2: set eval_interval=1"),
        ("global_batch_size=1000", "use a smaller global_batch_size or a larger eval_interval"),
        ("eval_save_outputs=[logit]", "cannot save 'logit'; choose from inputs, labels"),
        ("data_paths=[/absent]", "/absent is not a directory"),
        ("data_paths_test=[/absent]", "/absent is not a directory"),
        ("load_checkpoint=/absent", "/absent does not exist: name a folder with config.json"),
        ("resume=/absent", "/absent does not exist: name a folder with config.json"),
        ("resume=", "resume= names no folder: write resume=checkpoints/PROJECT/RUN"),
        ("arch.L_layers=0", "arch.L_layers=0: trm needs at least 1"),
        ("seed=-1", "seed"),
        ("wandb=true", "wandb=true needs the wandb package: pip install 'trm-mlx[wandb]'"),
    ],
)
def test_bad_training_options(place, capsys, monkeypatch, word, expected):
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert expected in train_refusal(capsys, place, word)


def test_dataset_with_a_missing_file(copy, capsys):
    path = copy / "data" / "train" / "all__labels.npy"
    path.unlink()
    assert train_refusal(capsys, copy).startswith(f"{path}: No such file")


def test_dataset_of_another_shape(copy, capsys):
    path = copy / "data" / "test" / "all__inputs.npy"
    np.save(path, np.ones((5, 15), np.uint8))
    assert train_refusal(capsys, copy) == (
        f"{path}: shape (5, 15) is not (5, 16); rebuild the dataset"
    )


def test_dataset_cut_short(copy, capsys):
    path = copy / "data" / "train" / "all__inputs.npy"
    path.write_bytes(path.read_bytes()[:-10])
    assert str(path) in train_refusal(capsys, copy)


def test_load_checkpoint_of_another_architecture(place, capsys):
    start = f"load_checkpoint={place / 'run'}"
    line = train_refusal(capsys, place, start, "arch=hrm", "arch.num_heads=2", "arch.H_layers=1")
    assert line.endswith("trained with name=trm, this run has name=hrm: make them agree")
    assert str(place / "run" / "step_0000004") in line
    # Nothing in the shapes of the arrays would give these away.
    for change in ("arch.num_heads=1", "arch.pos_encodings=none", "arch.hidden_size=32"):
        line = train_refusal(capsys, place, start, change)
        assert change.removeprefix("arch.") in line


@pytest.mark.parametrize(
    "change",
    ["optimizer=adamw", "arch.H_cycles=5", "global_batch_size=4", "eval_interval=2", "seed=1"],
)
def test_resume_as_another_run(copy, capsys, change):
    before = contents(copy / "run")
    line = refusal(capsys, "train", f"resume={copy / 'run'}", "epochs=4", change)
    assert line.endswith(f"load_checkpoint={copy / 'run' / 'step_0000004'}")
    assert contents(copy / "run") == before


def test_resume_of_a_finished_run(copy, capsys):
    line = refusal(capsys, "train", f"resume={copy / 'run'}")
    assert "has finished its 2 epochs: continue with a larger epochs=" in line


def test_resume_of_an_earlier_step_branches_off(copy, capsys):
    words = ["train", f"resume={copy / 'run' / 'step_0000002'}"]
    assert "holds the later step_0000004" in refusal(capsys, *words)
    before = contents(copy / "run")
    assert main([*words, f"checkpoint_path={copy / 'branch'}"]) == 0
    assert (copy / "branch" / "step_0000004").is_dir()
    assert contents(copy / "run") == before


@pytest.mark.parametrize("line", ["{bad}\n", "{}\n", "5\n"])
def test_resume_with_a_damaged_log(copy, capsys, line):
    path = copy / "run" / "metrics.jsonl"
    path.write_text(line + path.read_text())
    assert main(["train", f"resume={copy / 'run'}", "epochs=4"]) == 2
    assert f"error: {path} line 1 is damaged" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["grad_clip=-1"], "grad_clip=-1.0: must be greater than 0"),
        (["grad_clip=0"], "grad_clip=0.0: must be greater than 0"),
        (["beta1=0"], "beta1=0.0: must lie between 0 and 1"),
        (["beta2=1"], "beta2=1.0: must lie between 0 and 1"),
        (["weight_decay=-1"], "weight_decay=-1.0: must be at least 0"),
        (["seed=99999999999999999999"], "seed=99999999999999999999: must be from 0 to"),
        (["arch.expansion=1e9"], "arch.expansion=1000000000.0: must be from 0 to"),
        (["freeze_weights=true", "arch.puzzle_emb_ndim=0"], "leaves nothing to train"),
    ],
)
def test_values_no_run_can_use(place, capsys, words, message):
    assert message in train_refusal(capsys, place, *words)


def test_load_checkpoint(place, tmp_path):
    words = [f"load_checkpoint={place / 'run'}", "epochs=1", "lr=0", "puzzle_emb_lr=0"]
    assert train(place, tmp_path / "run", *words) == 0
    model, _ = trm_mlx.load(place / "run")
    again, _ = trm_mlx.load(tmp_path / "run")
    np.testing.assert_array_equal(model.lm_head.weight, again.lm_head.weight)


def test_resume_of_a_model_alone(copy, capsys):
    for name in ("state.json", "optimizer.safetensors", "carry.safetensors"):
        (copy / "run" / "step_0000004" / name).unlink()
    line = refusal(capsys, "train", f"resume={copy / 'run'}")
    assert "start from it with load_checkpoint=" in line


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "5", "null"])
def test_resume_with_damaged_state(copy, capsys, text):
    path = copy / "run" / "step_0000004" / "state.json"
    path.write_text(text)
    line = refusal(capsys, "train", f"resume={copy / 'run'}")
    assert line.startswith(str(path))
    assert line.endswith("resume from an earlier step")


@pytest.mark.parametrize(
    ("key", "value"),
    [("train_config", 5), ("train_config", {"lr": "x"}), ("position", 5), ("step", "four")],
)
def test_resume_with_nonsense_in_its_state(copy, capsys, key, value):
    path = copy / "run" / "step_0000004" / "state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    path.with_name("state.json").unlink()  # which knows the file by its checksum
    refusal(capsys, "train", f"resume={copy / 'run'}")


# Evaluation


def test_eval_agrees_with_the_run(place, capsys):
    logged = {
        name.removeprefix("all/"): value
        for name, value in log_of(place / "run")[-1].items()
        if name.startswith("all/")
    }
    capsys.readouterr()
    assert main(["eval", str(place / "run"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["all"] == pytest.approx(logged, rel=1e-5)
    words = ["--data", str(place / "data"), "--batch-size", "2"]
    assert main(["eval", str(place / "run" / "step_0000004"), *words]) == 0
    lines = dict(line.split() for line in capsys.readouterr().out.splitlines())
    printed = {name.removeprefix("all/"): float(value) for name, value in lines.items()}
    assert printed == pytest.approx(logged, rel=1e-4)


def test_eval_uses_the_loss_of_the_run(place, tmp_path, capsys):
    assert train(place, tmp_path / "run", "loss=softmax_cross_entropy", "epochs=1") == 0
    capsys.readouterr()
    assert main(["eval", str(tmp_path / "run"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["all"]["lm_loss"]
    assert found == pytest.approx(log_of(tmp_path / "run")[-1]["all/lm_loss"], rel=1e-5)


def test_eval_saves_arrays(place, tmp_path):
    output = tmp_path / "saved.npz"
    words = ["--save", "inputs", "preds", "q_halt_logits", "--output", str(output)]
    assert main(["eval", str(place / "run"), *words]) == 0
    with np.load(output) as saved:
        assert {name: saved[name].shape for name in saved} == {
            "inputs": (5, 16),
            "preds": (5, 16),
            "q_halt_logits": (5,),
        }
        stored = np.load(place / "data" / "test" / "all__inputs.npy")
        np.testing.assert_array_equal(saved["inputs"], stored)


def test_bad_eval_options(place, tmp_path, capsys):
    run = place / "run"
    assert refusal(capsys, "eval", tmp_path / "no").startswith(f"{tmp_path / 'no'} does not exist")
    assert f"{tmp_path} has no checkpoint" in refusal(capsys, "eval", tmp_path)
    assert "--batch-size 0: must be" in refusal(capsys, "eval", run, "--batch-size", 0)
    assert "has no split 'dev'; it has: test, train" in refusal(
        capsys, "eval", run, "--split", "dev"
    )
    assert "cannot save 'logit'" in refusal(capsys, "eval", run, "--save", "logit")
    output = tmp_path / "absent" / "x.npz"
    line = refusal(capsys, "eval", run, "--save", "preds", "--output", output)
    assert line.endswith(f"there is no folder {output.parent}, create it first")
    assert "invalid choice: 'mse'" in refusal(capsys, "eval", run, "--loss", "mse")


@pytest.fixture(scope="module")
def other_data(tmp_path_factory):
    """A dataset of 6x6 boards, with as many puzzles."""
    folder = tmp_path_factory.mktemp("other") / "data6"
    build = ["build", "sudoku", "--generate", "6", "--num-train", "16", "--num-test", "2"]
    assert main([*build, "--output-dir", str(folder)]) == 0
    return folder


def test_other_dataset(place, other_data, capsys):
    for words in (["eval", place / "run"], ["solve", "--checkpoint", place / "run"]):
        line = refusal(capsys, *words, "--data", other_data)
        assert line.startswith(f"seq_len is 16 in {place / 'run'} but 36 in {other_data}: name a ")
    words = [f"resume={place / 'run'}", "epochs=4", f"data_paths=[{other_data}]"]
    line = refusal(capsys, "train", *words)
    assert "vocab_size=6, this run has vocab_size=8" in line
    line = train_refusal(capsys, place, f"data_paths_test=[{other_data}]")
    assert line.startswith("seq_len is 16 in the training data but 36 in the test data")


def test_eval_of_a_model_alone(copy, capsys):
    step = copy / "run" / "step_0000004"
    (step / "state.json").unlink()
    assert main(["eval", str(step), "--data", str(copy / "data"), "--json"]) == 0
    capsys.readouterr()
    config = json.loads((step / "config.json").read_text())
    (step / "config.json").write_text(json.dumps({**config, "seq_len": 15, "task": None}))
    line = refusal(capsys, "eval", step)
    assert line.startswith(f"{step}: name --data DIR; no known task has vocab_size 6 and seq_len")
    assert "seq_len 15" in line


# Damaged checkpoints


@pytest.mark.parametrize("name", ["model.safetensors", "ema.safetensors"])
@pytest.mark.parametrize("size", [0, 7, 100, -20])
def test_truncated_weights(copy, capsys, name, size):
    path = copy / "run" / "step_0000004" / name
    path.write_bytes(path.read_bytes()[:size])
    line = refusal(capsys, "solve", PUZZLE, "--checkpoint", copy / "run")
    assert str(path) in line
    assert str(path) in refusal(capsys, "eval", copy / "run")


@pytest.mark.parametrize(
    "name", ["model.safetensors", "optimizer.safetensors", "carry.safetensors"]
)
def test_resume_from_truncated_arrays(copy, capsys, name):
    path = copy / "run" / "step_0000004" / name
    path.write_bytes(path.read_bytes()[:60])
    before = contents(copy / "run")
    assert str(path) in refusal(capsys, "train", f"resume={copy / 'run'}", "epochs=4")
    assert contents(copy / "run") == before


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "5", "{}", '{"name": "trm"}', '{"name": 5}', '{"hidden_size": "x"}']
)
def test_damaged_model_config(copy, capsys, text):
    path = copy / "run" / "step_0000004" / "config.json"
    path.write_text(text)
    assert str(path) in refusal(capsys, "solve", PUZZLE, "--checkpoint", copy / "run")


@pytest.mark.parametrize(
    ("key", "value"),
    [("name", "gpt"), ("hidden_size", 32), ("L_layers", 2), ("colour", 1), ("vocab_size", None)],
)
def test_model_config_of_other_weights(copy, capsys, key, value):
    path = copy / "run" / "step_0000004" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    refusal(capsys, "solve", PUZZLE, "--checkpoint", copy / "run")


# Solving


def test_solve_an_argument(place, capsys):
    capsys.readouterr()
    status = main(["solve", PUZZLE, "--checkpoint", str(place / "run"), "--max-steps", "3"])
    output = capsys.readouterr().out
    solved = "rules satisfied" in output
    assert status == (0 if solved else 1)
    assert output.startswith(" 1 . | 3 4\n 3 4 | 1 2\n")
    assert [line[:7] for line in output.splitlines() if line.startswith("step")] == [
        "step  1",
        "step  2",
        "step  3",
    ]
    assert re.search(r"olved: stopped at step 3, rules \w+, sure it is done 0\.", output)
    assert "attempts 16, network runs 48, answer chosen by rule" in output
    assert "label" not in output


def test_sources_agree(place, tmp_path, capsys, monkeypatch):
    """The same puzzles by argument, by file and by stdin print the same."""

    def output_of(*words):
        options = ["--checkpoint", str(place / "run"), "--trajectories", "1"]
        main(["solve", *options, *map(str, words)])
        return capsys.readouterr().out

    capsys.readouterr()
    other = "." * 16
    expected = output_of(PUZZLE) + output_of(other)
    file = tmp_path / "puzzles.txt"
    file.write_text(f"{PUZZLE}\n\n{' '.join(other)}\n")
    assert output_of("--file", file) == expected
    monkeypatch.setattr(sys, "stdin", io.StringIO(file.read_text()))
    assert output_of() == expected
    file.write_text("1.|34\n34|12\n--+--\n21|43\n43|2.\n")
    assert output_of("--file", file) == output_of(PUZZLE)


def test_solve_from_a_dataset(place, capsys):
    data = PuzzleDataset([place / "data"], "test")
    capsys.readouterr()
    words = ["--data", str(place / "data"), "--index", "4", "1"]
    main(["solve", "--checkpoint", str(place / "run"), *words])
    output = capsys.readouterr().out
    shown = [line for line in output.split("\n\n") if "step" not in line and "rules" not in line]
    assert output.count("the dataset's answer") == 2
    first = "".join(shown[0].split()).translate(str.maketrans("", "", "|-+")).replace(".", "0")
    inputs = data.parts[0].arrays.inputs[4] - 1
    assert first == "".join(map(str, inputs))


def test_a_right_answer_exits_with_0(place, capsys, monkeypatch):
    """With a model that knows: the status is for scripts."""
    from trm_mlx.solve.scheduler import Solution
    from trm_mlx.solve.solver import Solver
    from trm_mlx.tasks.sudoku import Sudoku

    def solve(solver, inputs, identifiers, on_step):
        answer = Sudoku(4).encode(Sudoku(4).parse("1234341221434321"))
        for _ in inputs:
            yield Solution(
                answer=answer, steps=1, confidence=0.9, halted=True, residual=0.0, evaluations=1
            )

    monkeypatch.setattr(Solver, "solve", solve)
    assert main(["solve", PUZZLE, "--checkpoint", str(place / "run")]) == 0
    wanted = "Solved: halted at step 1, rules satisfied, sure it is done 90.0 %"
    assert wanted in capsys.readouterr().out
    assert main(["solve", "2" + "." * 15, "--checkpoint", str(place / "run")]) == 1
    assert "rules broken" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("puzzle", "expected"),
    [
        ("1.3", "3 cells where a 4x4 Sudoku has 16; write every cell, blanks as . or 0"),
        ("", "0 cells where a 4x4 Sudoku has 16"),
        ("a" + PUZZLE[1:], "r1c1 holds 'a': write 1 to 4, and . or 0 for a blank"),
        ("5" + PUZZLE[1:], "digit 5 at r1c1 does not fit a 4x4 Sudoku; use 1 to 4"),
        ("11" + "." * 14, "r1c1 and r1c2 both hold 1; change or blank one of them"),
        ("²" + PUZZLE[1:], "r1c1 holds '²'"),
    ],
)
def test_bad_puzzles(place, tmp_path, capsys, monkeypatch, puzzle, expected):
    words = ["solve", "--checkpoint", place / "run"]
    assert expected in refusal(capsys, *words, puzzle)
    file = tmp_path / "p.txt"
    file.write_text(f"{PUZZLE}\n\n{puzzle}\n", encoding="utf-8")
    if puzzle:
        for place, more in ((f"{file} line 3", ["--file", file]), ("standard input line 2", [])):
            monkeypatch.setattr(sys, "stdin", io.StringIO(f"{PUZZLE}\n{puzzle}\n"))
            capsys.readouterr()
            assert main(list(map(str, [*words, *more]))) == 1
            output = capsys.readouterr()
            assert f"error: {place}: {expected}" in output.err
            assert output.out.count("rules ") == 1


def test_bad_solve_options(place, tmp_path, capsys, monkeypatch):
    words = ["solve", "--checkpoint", place / "run"]
    data = place / "data"
    assert "name one source" in refusal(capsys, *words, PUZZLE, "--data", data)
    assert "max_steps 0: must be at least 1" in refusal(capsys, *words, PUZZLE, "--max-steps", 0)
    for index in (-1, 5):
        line = refusal(capsys, *words, "--data", data, "--index", 0, index)
        assert line == f"--index {index}: {data} has examples 0 to 4"
    line = refusal(capsys, *words, "--file", tmp_path / "absent.txt")
    assert line == f"there is no file {tmp_path}/absent.txt: correct its name"
    (tmp_path / "p.txt").write_bytes(b"\x89PNG")
    assert "p.txt is a picture" in refusal(capsys, *words, "--file", tmp_path / "p.txt")
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n"))
    assert refusal(capsys, *words) == "standard input is empty: write a puzzle"


def test_solve_with_a_checkpoint_of_another_task(tmp_path, capsys):
    from trm_mlx.config import ModelConfig
    from trm_mlx.config_io import arch_config
    from trm_mlx.models.checkpoint_files import save_model
    from trm_mlx.models.model import build_model

    arch = arch_config("trm", hidden_size=16, num_heads=2, L_layers=1)
    config = ModelConfig.of(arch, vocab_size=7, seq_len=900, num_puzzle_identifiers=1)
    save_model(tmp_path, build_model(config))
    line = refusal(capsys, "solve", PUZZLE, "--checkpoint", tmp_path)
    assert line.startswith(f"{tmp_path}: no known task has vocab_size 7 and seq_len 900")


def test_a_model_alone_is_judged_on_generated_puzzles(capsys):
    assert main(["eval", "sudoku-4x4", "--count", "3", "--json"]) == 0
    results = json.loads(capsys.readouterr().out)
    assert results["all"]["exact_accuracy"] == 1
    assert results["all"]["count"] == 3


def test_closed_output_is_no_place_for_other_files():
    """As cron and launchd may start a command: messages are lost, and nothing else changes."""
    code = (
        "import os; from trm_mlx.cli import main; status = main(['nothing']); "
        "print(status, os.open(os.devnull, os.O_RDONLY) > 2)"
    )
    command = ["sh", "-c", 'exec "$0" -c "$1" <&- 2>&-', sys.executable, code]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    assert done.stdout == "2 True\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has it")
def test_full_disks_behind_the_output():
    line = [sys.executable, "-m", "trm_mlx", "doctor"]
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = subprocess.run(line, stdout=full, stderr=subprocess.PIPE, text=True, cwd=CHECKOUT)
        assert done.stderr == "error: cannot write the output: No space left on device\n"
        assert done.returncode == 2
        assert subprocess.run([*line, "--no"], stderr=full, cwd=CHECKOUT).returncode == 2
