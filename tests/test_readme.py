"""What the README shows works: its Python runs, its files exist, its options parse."""

import re
import shlex
from pathlib import Path

import pytest

from trm_mlx.config import ModelConfig
from trm_mlx.models.model import build_model
from trm_mlx.models.weights import save_model
from trm_mlx.options import arch_config, load_config

CHECKOUT = Path(__file__).resolve().parents[1]
README = (CHECKOUT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands():
    """Every shell command, continued lines joined, comments gone."""
    lines = "\n".join(blocks("bash")).replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def test_python_blocks_run(tmp_path, monkeypatch):
    arch = arch_config("trm", hidden_size=16, num_heads=2, L_layers=1, halt_max_steps=2)
    sizes = {"seq_len": 16, "vocab_size": 6, "num_puzzle_identifiers": 1}
    folder = tmp_path / "checkpoints" / "demo"
    folder.mkdir(parents=True)
    save_model(folder, build_model(ModelConfig.of(arch, **sizes)))
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in blocks("python"):
        exec(block, names)
    assert names["answers"].shape == (1, 16)


@pytest.mark.parametrize(
    "words", [w for w in commands() if "pretrain.py" in w and "resume=" not in str(w)], ids=str
)
def test_training_options_parse(words):
    options = words[words.index("pretrain.py") + 1 :]
    assert load_config(["data_paths=[data]", *options]).data_paths


def test_files_named_exist():
    named = {word for words in commands() for word in words if word.endswith(".py")}
    assert {"pretrain.py", "single_inference.py", "convert_torch_to_mlx.py"} <= named
    for name in named:
        assert (CHECKOUT / name).exists(), name
    for folder in re.findall(r"^  (\w+)/  ", README, re.MULTILINE):
        assert (CHECKOUT / "trm_mlx" / folder).is_dir(), folder
