"""What the pages say of the code is so: links, files, names, messages, formats, the API."""

import ast
import dataclasses
import importlib
import json
import re
import runpy
from pathlib import Path

import pytest
from pages import (
    CHECKOUT,
    DOCS,
    PAGES,
    README,
    anchors,
    blocks,
    inline_code,
    links,
    name_of,
    prose,
)

import trm_mlx
from trm_mlx.config import ArchConfig
from trm_mlx.config_io import load_config
from trm_mlx.data.format import DatasetMetadata
from trm_mlx.evaluate.evaluate import SAVABLE
from trm_mlx.solve.csv_files import COLUMNS

API = runpy.run_path(str(CHECKOUT / "tools" / "api_reference.py"))


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
