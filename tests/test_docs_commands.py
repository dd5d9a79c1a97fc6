"""Every command line that the pages show parses, to the last option and key."""

import argparse
import functools
import importlib
import re
import runpy
import sys

import pytest
from pages import (
    CHECKOUT,
    PAGES,
    commands,
    inline_code,
    name_of,
)

from trm_mlx.cli import VERBS, Parser, main
from trm_mlx.config_io import load_config, typed_overrides
from trm_mlx.solve.search import SearchConfig

COMMANDS = [command for page in PAGES for command in commands(page)]
PYTHONS = ("python", ".venv/bin/python")
OURS = [c for c in COMMANDS if c.words[0] in ("trm", "mlx.launch", *PYTHONS)]
# What else the pages call; anything that stands neither here nor above is a misspelt command.
OTHERS = {
    "./solve_sudoku",
    "c++",
    "cd",
    "echo",
    "eval",
    "export",
    "git",
    "grep",
    "make",
    "pip",
    "python3",
    "source",
    "trap",
    "wait",
    ".venv/bin/pip",
    ".venv/bin/pytest",
}
# Of pip, git, mlx.launch, SLURM and cargo.
FOREIGN_OPTIONS = {
    "--backend",
    "--check",
    "--example",
    "--hostfile",
    "--hosts",
    "--output",
    "--over",
    "--signal",
}


class Parsed(Exception):
    """Raised in the place of what a command would do, with the arguments it was given."""


@pytest.fixture
def stop_once_parsed(monkeypatch):
    for name in ("parse_args", "parse_intermixed_args"):
        original = getattr(argparse.ArgumentParser, name)

        def parse(self, args=None, namespace=None, original=original):
            raise Parsed(original(self, args, namespace))

        monkeypatch.setattr(argparse.ArgumentParser, name, parse)


def inner(words):
    """A command without the launcher of several processes."""
    return words[words.index("--") + 1 :] if words[0] == "mlx.launch" else words


def start(words, monkeypatch):
    """Run a command in this process; its exit status, unless it comes to parse its arguments."""
    if words[0] == "trm":
        return main(words[1:])
    assert words[0] in PYTHONS, words
    if words[1] == "-c":
        compile(words[2], "-c", "exec")
        return 0
    script = CHECKOUT / words[1]
    monkeypatch.syspath_prepend(str(script.parent))
    monkeypatch.setattr(sys, "argv", [str(script), *words[2:]])
    return runpy.run_path(str(script), run_name="__main__")


def check_values(words, arguments):
    """What argparse leaves to the commands: ``key=value`` words, and options of a search."""
    overrides = getattr(arguments, "overrides", [])
    if words[:2] == ("trm", "convert") or "convert_torch_to_mlx.py" in words:
        pairs = [word for word in [arguments.output or "", *overrides] if "=" in word]
        typed_overrides([word.removeprefix("arch.") for word in pairs])
    elif overrides:
        kept = [word for word in overrides if not word.lstrip("+").startswith("resume=")]
        # A resumed run has its own interval, which may divide what the default does not.
        before = ["eval_interval=null"] if kept != overrides else []
        assert load_config(["data_paths=[data]", *before, *kept])
    if words[:2] in (("trm", "solve"), ("trm", "eval")):
        given = {name: value for name, value in vars(arguments).items() if name in SEARCH}
        assert SearchConfig(**given)


SEARCH = SearchConfig.__dataclass_fields__


@pytest.mark.parametrize("command", OURS, ids=str)
def test_commands_parse(command, stop_once_parsed, monkeypatch, capsys):
    words = inner(command.words)
    try:
        status = start(words, monkeypatch)
    except Parsed as parsed:
        check_values(words, *parsed.args)
    else:
        assert status == 0, capsys.readouterr().err


def test_the_check_of_commands_can_fail(stop_once_parsed, monkeypatch):
    """`test_commands_parse` rests on these: a wrong verb, option, key or value comes out."""
    assert start(("trm", "slove", "x"), monkeypatch) == 2
    assert start(("trm", "solve", "x", "--wach"), monkeypatch) == 2
    with pytest.raises(SystemExit):
        start(("python", "tools/soak.py", "--hours", "1"), monkeypatch)
    for words, error in (
        (("trm", "train", "experiment=sudoku5x5"), "no such file"),
        (("python", "pretrain.py", "epoch=3"), "did you mean epochs"),
        (("python", "tools/soak.py", "arch.width=3"), "unknown key arch.width"),
        (("trm", "convert", "x.pt", "y", "layers=3"), "unknown key layers"),
        (("trm", "eval", "x", "--trajectories", "4"), "would all be the same"),
    ):
        with pytest.raises(Parsed) as parsed:
            start(words, monkeypatch)
        with pytest.raises(ValueError, match=error):
            check_values(words, *parsed.value.args)


def test_no_command_is_misspelt():
    for command in COMMANDS:
        assert command in OURS or command.words[0] in OTHERS, command
    assert len(OURS) > 40


def test_targets_of_make_and_extras_of_pip_exist():
    makefile = (CHECKOUT / "Makefile").read_text("utf-8")
    project = (CHECKOUT / "pyproject.toml").read_text("utf-8")
    extras = project.partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    known = set(re.findall(r"^(\w+) = \[", extras, re.MULTILINE))
    for command in COMMANDS:
        if command.words[0] == "make":
            assert re.search(rf"^{command.words[1]}:", makefile, re.MULTILINE), command
        elif command.words[0] == "pip":
            for wanted in re.findall(r"\[([\w,]+)\]", " ".join(command.words)):
                assert set(wanted.split(",")) <= known, command


@functools.cache
def options_of(verb):
    parser = Parser(description="")
    importlib.import_module(VERBS[verb][0]).add_arguments(parser)
    return set(parser._option_string_actions)


def known_options():
    """Of every verb and every tool."""
    tools = "".join(path.read_text("utf-8") for path in (CHECKOUT / "tools").glob("*.py"))
    verbs = set().union(*(options_of(verb) for verb in VERBS))
    return verbs | set(re.findall(r'add_argument\(\s*"(--[\w-]+)"', tools)) | FOREIGN_OPTIONS


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_inline_commands_and_options_exist(page):
    for code in inline_code(page):
        words = code.split()
        if words[0] == "trm" and len(words) > 1:
            verbs = [verb for verb in VERBS if f"{code} ".startswith(f"trm {verb} ")]
            assert verbs or any(verb.startswith(f"{words[1]} ") for verb in VERBS), code
            known = options_of(verbs[0]) if verbs else known_options()
        else:
            known = known_options()
        for word in words:
            if re.match(r"--\w", word):
                assert word.partition("=")[0] in known, code
