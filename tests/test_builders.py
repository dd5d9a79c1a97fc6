"""What all builders are: Python functions, and command lines with the same words."""

import argparse
import importlib
import inspect
import json

import numpy as np
import pytest

import trm_mlx
from trm_mlx.cli import VERBS, main
from trm_mlx.errors import InputError

BUILDERS = {verb.split()[1]: module for verb, (module, _) in VERBS.items() if "build" in verb}
SMALL = {
    "sudoku": {"generate": 6, "num_train": 4, "num_test": 2, "num_aug": 1, "seed": 3},
    "maze": {"generate": 6, "num_train": 3, "num_test": 2, "aug": True, "kind": "tree"},
    "arithmetic": {"operation": "multiplication", "n_digits": 2, "num_train": 5, "num_test": 2},
    "arc": {"subsets": ["a", "b"], "test_set_name": "b", "num_aug": 2},
}


@pytest.fixture
def keywords(request, tmp_path):
    """The builder's name and its keywords for a small dataset."""
    name = request.param
    values = dict(SMALL[name])
    if name == "arc":
        rng = np.random.default_rng(0)
        for subset in "ab":
            pairs = [
                {side: rng.integers(0, 10, (3, 4)).tolist() for side in ("input", "output")}
                for _ in range(2)
            ]
            puzzle = {subset: {"train": pairs, "test": pairs[:1]}}
            (tmp_path / f"arc_{subset}_challenges.json").write_text(json.dumps(puzzle))
        values["input_file_prefix"] = str(tmp_path / "arc")
    return name, values


def words_of(values):
    """The keywords as options."""
    for name, value in values.items():
        yield f"--{name.replace('_', '-')}"
        if value is not True:
            yield from map(str, value if isinstance(value, list) else [value])


def contents(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder): path.read_bytes() for path in files}


@pytest.mark.parametrize("keywords", BUILDERS, indirect=True)
def test_function_and_command_write_the_same(keywords, tmp_path, capsys):
    name, values = keywords
    built = getattr(trm_mlx, f"build_{name}")(tmp_path / "function", **values)
    assert built.folder == tmp_path / "function"
    assert capsys.readouterr() == ("", "")
    folder = tmp_path / "command"
    assert main(["build", name, "--output-dir", str(folder), *words_of(values)]) == 0
    output = capsys.readouterr()
    notes = [f"note: {note}" for note in built.notes]
    assert output.out.splitlines() == [f"{folder}: {built.summary}", *notes]
    assert output.err.splitlines() == [f"warning: {warning}" for warning in built.warnings]
    assert contents(folder) == contents(built.folder)
    trm_mlx.PuzzleDataset([built.folder], "train")


@pytest.mark.parametrize("name", BUILDERS)
def test_options_are_the_keywords_with_their_defaults(name):
    parser = argparse.ArgumentParser()
    importlib.import_module(BUILDERS[name]).add_arguments(parser)
    options = {action.dest: action for action in parser._actions if action.dest != "help"}
    keywords = inspect.signature(getattr(trm_mlx, f"build_{name}")).parameters
    assert options.keys() == keywords.keys()
    for keyword in keywords.values():
        required = keyword.default is keyword.empty
        assert options[keyword.name].required == required
        assert required or options[keyword.name].default == keyword.default


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("sudoku", {"generate": 5}, "no Sudoku of size 5; use 4, 6 or 9"),
        ("sudoku", {"input": "x.csv"}, "generate=6 with input=x.csv: give one of them"),
        ("sudoku", {"num_test": 0}, "num_test=0: must be at least 1"),
        ("maze", {"input": "x.csv"}, "generate=6 with input=x.csv: give one of them"),
        ("maze", {"kind": "cave"}, "kind=cave: choose one of "),
        ("maze", {"generate": None, "input": ".", "min_path_length": 3}, "goes with generate"),
        ("sudoku", {"num_train": "x"}, "num_train='x': must be a whole number"),
        ("sudoku", {"generate": [6, "9"]}, "must be a whole number or a list of whole numbers"),
        ("sudoku", {"seed": True}, "seed=True: must be a whole number"),
        ("maze", {"generate": 6.0}, "generate=6.0: must be a whole number or None"),
        ("maze", {"generate": None, "input": 3}, "input=3: must be a string or a path or None"),
        ("maze", {"aug": "no"}, "aug='no': must be True or False"),
        ("arithmetic", {"operation": 1}, "operation=1: must be a string"),
        (
            "arc",
            {"input_file_prefix": "", "subsets": "training"},
            "subsets='training': must be a list of strings or None",
        ),
        ("arithmetic", {"operation": "division"}, "operation=division: choose one of addition, "),
    ],
)
def test_bad_keywords_are_refused(tmp_path, name, changes, message):
    with pytest.raises(InputError) as caught:
        getattr(trm_mlx, f"build_{name}")(tmp_path / "d", **{**SMALL[name], **changes})
    assert message in str(caught.value)
    assert not (tmp_path / "d").exists()
