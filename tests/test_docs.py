"""What the pages say of the code is so: links lead somewhere, commands parse, named files exist."""

import argparse
import ast
import dataclasses
import functools
import importlib
import json
import re
import runpy
import sys
from pathlib import Path

import pytest
from pages import (
    CHECKOUT,
    DOCS,
    PAGES,
    README,
    anchors,
    blocks,
    commands,
    inline_code,
    links,
    name_of,
    prose,
)

import trm_mlx
from trm_mlx.cli import VERBS, Parser, main
from trm_mlx.config import ArchConfig
from trm_mlx.data.schema import DatasetMetadata
from trm_mlx.options import load_config, typed_overrides
from trm_mlx.solve.search import Search
from trm_mlx.solve.table import COLUMNS
from trm_mlx.train.evaluate import SAVABLE

COMMANDS = [command for page in PAGES for command in commands(page)]
PYTHONS = ("python", ".venv/bin/python")
OURS = [c for c in COMMANDS if c.words[0] in ("trm", "mlx.launch", *PYTHONS)]
# What else the pages call; anything that stands neither here nor above is a misspelt command.
OTHERS = {"cd", "echo", "git", "make", "pip", "python3", "source", ".venv/bin/pip"}
# Of pip, git, mlx.launch and cargo.
FOREIGN_OPTIONS = {
    "--backend",
    "--check",
    "--example",
    "--hostfile",
    "--hosts",
    "--output",
    "--over",
}


API = runpy.run_path(str(CHECKOUT / "tools" / "api_reference.py"))


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
        assert Search(**given)


SEARCH = Search.__dataclass_fields__


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


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_names_of_files_and_keys_exist(page):
    text = "".join([prose(page), *blocks(page, "bash")])
    for group, name in re.findall(r"\b(experiment|arch)=([a-z]\w*)", text):
        assert (CHECKOUT / "config" / group / f"{name}.yaml").exists(), f"{group}={name}"
    for code in inline_code(page):
        for key in re.findall(r"(?<![\w./])arch\.(\w+)\b(?!\.)", code):
            assert key in ArchConfig.__dataclass_fields__ or key == "name", code
        for path in re.findall(r"(?<![\w/.])[\w./-]*\w+\.(?:py|yaml)\b", code):
            roots = (CHECKOUT, CHECKOUT / "trm_mlx")
            known = any((root / path).exists() for root in roots) or path in WRITTEN
            assert known, f"{path} of `{code}` is no file of the checkout"


WRITTEN = {"all_config.yaml"}  # by a run


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_functions_named_exist(page):
    """Where a page writes `models/act.py:Carry`, that file defines that name."""
    for code in inline_code(page):
        for path, names in re.findall(r"([\w/]+)\.py:([A-Za-z_][\w.]*)", code):
            found = importlib.import_module(f"trm_mlx.{path.replace('/', '.')}")
            for name in names.split("."):
                fields = getattr(found, "__dataclass_fields__", {})
                assert hasattr(found, name) or name in fields, code
                found = getattr(found, name, None)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert CHECKOUT in (target, *target.parents), f"{link} leaves the checkout"
        assert not anchor or anchor in anchors(target), f"{link}: {sorted(anchors(target))}"


def test_the_map_leads_to_every_page():
    mapped = {(DOCS[0].parent / link).resolve() for link in links(CHECKOUT / "docs" / "index.md")}
    assert {page for page in DOCS if page.name != "index.md"} <= mapped


def test_folders_of_the_layout_exist():
    for folder in re.findall(r"^  (\w+)/  ", README.read_text("utf-8"), re.MULTILINE):
        assert (CHECKOUT / "trm_mlx" / folder).is_dir(), folder


def test_the_api_reference_is_that_of_the_docstrings():
    written = (CHECKOUT / "docs" / "api.md").read_text("utf-8")
    assert written == API["page"](), "run python tools/api_reference.py"


def test_the_api_reference_has_every_name_that_pages_use():
    """All of ``trm_mlx.__all__``, and what Python blocks import from deeper inside."""
    headings = set(re.findall(r"^### `(\w+)`$", API["page"](), re.MULTILINE))
    code = "\n".join(block for page in PAGES for block in blocks(page, "python"))
    imported = set(re.findall(r"^from trm_mlx\S* import (\w+)$", code, re.MULTILINE))
    used = set(re.findall(r"\btrm_mlx\.([A-Za-z]\w*)\(", code))
    wanted = {*trm_mlx.__all__, *imported, *used} - {"__version__", "tasks"}
    assert imported
    assert wanted <= headings, wanted - headings


def test_file_formats_name_all_that_a_run_writes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [
        "arch=hrm", "data=generate:sudoku4x4", "arch.hidden_size=16", "arch.num_heads=2",
        "arch.L_layers=1", "arch.H_layers=1", "arch.L_cycles=1", "arch.halt_max_steps=2",
        "global_batch_size=8", "puzzles_per_epoch=16", "test_puzzles=4", "epochs=1",
        "eval_interval=1", "grad_clip=1", "ema=true", "evaluators=[rules]", "checkpoint_path=run",
        f"eval_save_outputs=[{','.join(SAVABLE)}]",
    ]  # fmt: skip
    trm_mlx.Trainer(load_config(words)).fit()
    run, (step,) = Path("run"), Path("run").glob("step_*")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    logged = {key for line in lines for key in line}
    written = {re.sub(r"\d{7}", "NNNNNNN", path.name) for path in run.iterdir()}
    stored = {path.name for path in step.iterdir()}
    state = json.loads((step / "state.json").read_text())
    fields = {field.name for field in dataclasses.fields(DatasetMetadata)}
    page = (CHECKOUT / "docs" / "file_formats.md").read_text("utf-8")
    for name in {*logged, *written, *stored, *state, *fields, *COLUMNS, *SAVABLE}:
        assert re.search(rf"(?<![\w.]){re.escape(name)}(?!\w)", page), name
    assert "train/q_continue_loss" in logged
    assert "rules/valid_accuracy" in logged


def messages():
    """The fixed parts of every text in the package, in their order."""
    for path in (CHECKOUT / "trm_mlx").rglob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text("utf-8"))))
        formatted = [node for node in nodes if isinstance(node, ast.JoinedStr)]
        inside = {part for node in formatted for part in node.values}
        plain = [n for n in nodes if isinstance(n, ast.Constant) and n not in inside]
        for parts in [node.values for node in formatted] + [[node] for node in plain]:
            fixed = [part.value for part in parts if isinstance(part, ast.Constant)]
            if fixed and all(isinstance(part, str) for part in fixed):
                yield fixed


def test_lines_that_a_user_may_see_are_those_of_the_code():
    """What no message explains of a line are values, not words."""
    known = [fixed for fixed in messages() if sum(map(len, fixed)) > 10]
    page = CHECKOUT / "docs" / "troubleshooting.md"
    lines = "".join(blocks(page, "text")).splitlines()
    shown = [line for line in lines if line.startswith(("error: ", "warning: ", "wrong: "))]
    assert len(shown) > 30
    for line in shown:
        if "…" in line:
            assert any(len(part := max(fixed, key=len)) > 10 and part in line for fixed in known), (
                line
            )
            continue
        rest = line
        for fixed in sorted(known, key=lambda fixed: -sum(map(len, fixed))):
            if all(part in line for part in fixed):
                for part in (part for part in fixed if len(part) > 3):
                    rest = rest.replace(part, "\0")
        for value in re.sub("^(error|warning|wrong): ", "", rest).split("\0"):
            assert len(re.findall(r"(?<![\w/.,=])[a-z]{3,}(?![\w/.,=])", value)) < 4, (line, value)
