"""What the README and the pages of docs/ show works: Python runs, files exist, options parse."""

import importlib
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

import trm_mlx
from trm_mlx.cli import VERBS, Parser, main
from trm_mlx.config import ModelConfig
from trm_mlx.models.model import build_model
from trm_mlx.models.weights import save_model
from trm_mlx.options import arch_config, load_config
from trm_mlx.tasks.sudoku import Sudoku

CHECKOUT = Path(__file__).resolve().parents[1]
README = CHECKOUT / "README.md"
PAGES = [README, *sorted((CHECKOUT / "docs").glob("*.md"))]


def blocks(page, language):
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def commands(page):
    """Every shell command, continued lines joined, comments gone."""
    lines = "\n".join(blocks(page, "bash")).replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


COMMANDS = [words for page in PAGES for words in commands(page)]


@pytest.fixture
def after_the_demo(tmp_path, monkeypatch):
    """The working directory is as `make demo` leaves it, but small and untrained."""
    arch = arch_config("trm", hidden_size=16, num_heads=2, L_layers=1, halt_max_steps=2)
    sizes = {"seq_len": 16, "vocab_size": 6, "num_puzzle_identifiers": 1}
    folder = tmp_path / "checkpoints" / "demo"
    folder.mkdir(parents=True)
    save_model(folder, build_model(ModelConfig.of(arch, **sizes)))
    task, random = Sudoku(4), np.random.default_rng(0)
    splits = {}
    for split, count in (("train", 72), ("test", 8)):
        questions, answers, _ = task.generate(count, random)
        splits[split] = trm_mlx.SplitArrays.of(task.encode(questions), task.encode(answers))
    (tmp_path / "data").mkdir()
    folder = tmp_path / "data" / "sudoku4x4"
    trm_mlx.write_dataset(folder, splits, ["<blank>"], vocab_size=6, seq_len=16)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.stem
)
def test_python_blocks_run(page, after_the_demo, capsys):
    names = {}
    for block in blocks(page, "python"):
        exec(block, names)
    assert capsys.readouterr().out, "a page that prints nothing shows nothing"


@pytest.mark.parametrize(
    "words", [w for w in COMMANDS if "pretrain.py" in w and "resume=" not in str(w)], ids=str
)
def test_training_options_parse(words):
    options = words[words.index("pretrain.py") + 1 :]
    assert load_config(["data_paths=[data]", *options]).data_paths


@pytest.mark.parametrize(
    "words",
    [w for w in COMMANDS if w[0] == "trm" and w[1] in ("eval", "solve", "convert")],
    ids=str,
)
def test_trm_commands_parse(words, tmp_path, monkeypatch, capsys):
    """As far as the checkpoint, which is not there: no word of theirs is unknown."""
    monkeypatch.chdir(tmp_path)
    assert main(words[1:]) == 2
    error = capsys.readouterr().err
    assert "does not exist" in error or "cannot read" in error


@pytest.mark.parametrize("words", [w for w in COMMANDS if w[:2] == ["trm", "build"]], ids=str)
def test_builders_parse(words):
    module = importlib.import_module(VERBS[" ".join(words[1:3])][0])
    parser = Parser()
    module.add_arguments(parser)
    assert parser.parse_args(words[3:]).output_dir


@pytest.mark.parametrize("words", [w for w in COMMANDS if w[:2] == ["trm", "demo"]], ids=str)
def test_demos_parse(words):
    parser = Parser()
    importlib.import_module(VERBS["demo"][0]).add_arguments(parser)
    assert parser.parse_args(words[2:]).port >= 0


def test_files_named_exist():
    named = {word for words in COMMANDS for word in words if word.endswith(".py")}
    assert {"pretrain.py", "single_inference.py", "convert_torch_to_mlx.py"} <= named
    for name in named:
        assert (CHECKOUT / name).exists(), name
    for folder in re.findall(r"^  (\w+)/  ", README.read_text(encoding="utf-8"), re.MULTILINE):
        assert (CHECKOUT / "trm_mlx" / folder).is_dir(), folder
