"""``~`` and ``$VAR`` are read in every option that is a path; zsh leaves them in ``key=value``."""

import argparse
import importlib

import pytest
from runs import make_data
from tiny import TINY

from trm_mlx import InputError
from trm_mlx.cli import VERBS, main
from trm_mlx.config_io import load_config
from trm_mlx.files import expand_path, path_text, path_type

PATHS = {
    "checkpoint", "data", "file", "output", "output_dir", "save", "runs", "reference", "config",
    "input", "input_file_prefix",
}  # fmt: skip
ALSO_PATHS = {("trm_mlx.commands.adapt", name) for name in ("model", "task", "run", "resume")}
NO_PATHS = {("trm_mlx.commands.evaluate", "save"), ("trm_mlx.commands.bench", "runs")}


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DATA", str(tmp_path / "data"))
    monkeypatch.delenv("NOWHERE", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_expanded(home):
    assert expand_path("~") == str(home)
    assert expand_path("~/x") == expand_path("$HOME/x") == expand_path("${HOME}/x")
    assert expand_path("$DATA/train") == f"{home}/data/train"
    assert expand_path("a~b/$") == "a~b/$"
    assert expand_path("generate:sudoku9x9") == "generate:sudoku9x9"
    (home / "$odd").mkdir()
    assert expand_path("$odd") == "$odd"
    with pytest.raises(InputError, match=r"^\$NOWHERE/x: the variable \$NOWHERE is not set"):
        expand_path("$NOWHERE/x")
    with pytest.raises(InputError, match="no user of this name"):
        expand_path("~no-such-user/x")


@pytest.mark.parametrize("key", ["data_paths", "data_paths_test"])
def test_keys_that_list_paths(home, key):
    words = ["data_paths=[x]", f"{key}=[~/a,$DATA]"]
    assert getattr(load_config(words), key) == (f"{home}/a", f"{home}/data")


@pytest.mark.parametrize("key", ["checkpoint_path", "load_checkpoint"])
def test_keys_that_are_paths(home, key):
    assert getattr(load_config(["data=~/d", f"{key}=~/r"]), key) == f"{home}/r"
    assert load_config(["data=~/d"]).data_paths == (f"{home}/d",)
    with pytest.raises(InputError, match=rf"{key}: \$NOWHERE: the variable"):
        load_config(["data=x", f"{key}=$NOWHERE"])


@pytest.mark.parametrize("module", sorted({module for module, _ in VERBS.values()}))
def test_every_option_that_is_a_path(module):
    parser = argparse.ArgumentParser(description="What it does.")
    importlib.import_module(module).add_arguments(parser)
    for action in parser._actions:
        option = (module, action.dest)
        is_path = option in ALSO_PATHS or (action.dest in PATHS and option not in NO_PATHS)
        assert (action.type in (path_text, path_type)) == is_path, action.dest


def test_a_run_from_start_to_end(home, capsys):
    make_data(home / "data")
    assert main(["train", "data_paths=[$DATA]", *TINY, "checkpoint_path=~/run"]) == 0
    assert not (home / "~").exists()
    assert main(["train", "resume=~/run", "epochs=3"]) == 0
    assert main(["eval", "~/run", "--data", "$DATA", "--json"]) == 0
    assert main(["eval", "~/run", "--data", "$NOWHERE"]) == 2
    assert "argument --data: $NOWHERE: the variable $NOWHERE is not set" in capsys.readouterr().err
