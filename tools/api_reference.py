"""Writes ``docs/api.md``: signature and docstring of every public name.

    python tools/api_reference.py            # after a docstring has changed

A signature is the source's own, so that the page is the same under every version of Python.
"""

import ast
import dataclasses
import importlib
import inspect
import re
import sys
import textwrap
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
PAGE = CHECKOUT / "docs" / "api.md"
sys.path.insert(0, str(CHECKOUT))

# Sections in the order of the page. What stands behind a colon is imported from there, a name
# without one from the package itself.
PUBLIC = {
    "Models": ("load", "build_model", "RecursiveReasoner", "models.act:Carry"),
    "Solving": (
        "solve:solve", "solve:Answer", "Solver", "solve.scheduler:Solution",
        "solve.search:Trajectory", "solve.search:StepOutput",
        "solve.scheduler:StepEvent", "SearchConfig", "solve.search:DEFAULT_SEARCH", "predict",
        "refine", "solve.refine:Refinement", "solve.solver:measure",
    ),
    "ARC tasks": (
        "adapt", "adaptation:read_tasks", "adaptation:resume", "adaptation:Adapted",
        "adaptation:Answer", "adaptation:Moment",
    ),
    "Pictures": (
        "view.recording:recording_of", "view.recording:judged", "view.recording:Verdict",
        "view.recording:Recording", "view.recording:Frame", "view.save:save",
    ),
    "Training": (
        "Trainer", "averaged", "supervise", "evaluate.supervise:Supervised",
        "evaluate.evaluate:Evaluator", "evaluate.evaluate:EvalResult",
    ),
    "Configuration": (
        "load_config", "arch_config", "ArchConfig", "ModelConfig", "TrainConfig",
        "config:EvaluatorConfig",
    ),
    "Data": (
        "build_sudoku", "build_maze", "build_arithmetic", "build_arc",
        "builders.write:BuiltDataset", "PuzzleDataset", "SplitArrays", "write_dataset",
        "data.format:DatasetMetadata",
    ),
    "Tasks": (
        "tasks:get", "tasks:fitting", "tasks:task_of", "tasks:register", "tasks:Task",
        "tasks:read_puzzles", "tasks:read_puzzle", "tasks:Question", "tasks:Puzzles",
        "tasks.base:WrongCells", "tasks:BoardStyle", "tasks:BoardInput", "tasks.sudoku:Sudoku",
        "tasks.maze:Maze", "tasks.arithmetic:Arithmetic",
    ),
    "Errors": ("InputError",),
}  # fmt: skip

HEADER = """\
# API reference

You get every public function and class, with shapes, units and errors.

Written by `python tools/api_reference.py` from the docstrings; change those, not this page. Names
without a module are attributes of `trm_mlx`. Shapes: B batch, S `seq_len`, P prefix, L = P + S,
D `hidden_size`, V vocabulary, N puzzles or examples. The README, [solving.md](solving.md),
[tasks.md](tasks.md) and [from_the_seeds.md](from_the_seeds.md) show these names at work.
"""


def main() -> None:
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)


def page() -> str:
    """The whole page as Markdown."""
    parts = [HEADER]
    for section, names in PUBLIC.items():
        parts.append(f"## {section}\n")
        parts.extend(_entry(*_located(name)) for name in names)
    return "\n".join(parts)


def _located(name: str) -> tuple[str, str]:
    """The module to import a name from, as a user would write it, and the name."""
    module, _, name = name.rpartition(":")
    return f"trm_mlx.{module}".rstrip("."), name


def _entry(module: str, name: str) -> str:
    """A heading, the signature and the docstring of one name, and of its methods."""
    thing = getattr(importlib.import_module(module), name)
    heading = f"### `{name}`\n"
    origin = "" if module == "trm_mlx" else f"`from {module} import {name}`\n"
    if not (inspect.isclass(thing) or inspect.isfunction(thing)):
        return "\n".join(filter(None, [heading, origin, f"```text\n{name} = {thing!r}\n```\n"]))
    parts = [heading, origin, _code(_signature(name, thing)), _text(inspect.getdoc(thing) or "")]
    if inspect.isclass(thing):
        parts += [_options(thing), *_methods(thing)]
    return "\n".join(filter(None, parts))


def _signature(name: str, thing: type | object) -> str:
    """As the source has it; of a class, what makes one."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(thing))).body[0]
    if isinstance(tree, ast.FunctionDef):
        return _call(name, tree)
    made = next((n for n in tree.body if getattr(n, "name", "") == "__init__"), None)
    if made is not None:
        return "class " + _call(name, made)
    fields = [ast.unparse(node) for node in tree.body if isinstance(node, ast.AnnAssign)]
    if _has_options(thing):
        return f"class {name}(*, ...)"
    return _folded(f"class {name}", fields, "")


def _call(name: str, tree: ast.FunctionDef) -> str:
    arguments = tree.args
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(positional) - len(arguments.defaults)) + arguments.defaults
    words = [_parameter(*pair) for pair in zip(positional, defaults, strict=True)]
    if arguments.vararg:
        words.append(f"*{_parameter(arguments.vararg, None)}")
    elif arguments.kwonlyargs:
        words.append("*")
    pairs = zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    words += [_parameter(*pair) for pair in pairs]
    if arguments.kwarg:
        words.append(f"**{_parameter(arguments.kwarg, None)}")
    words = [word for word in words if word not in ("self", "cls")]
    returns = f" -> {ast.unparse(tree.returns)}" if tree.returns and name != "__init__" else ""
    return _folded(name, words, returns)


def _parameter(argument: ast.arg, default: ast.expr | None) -> str:
    kind = f": {ast.unparse(argument.annotation)}" if argument.annotation else ""
    if default is None:
        return argument.arg + kind
    return f"{argument.arg}{kind} = {ast.unparse(default)}"


def _folded(name: str, words: list[str], returns: str) -> str:
    line = f"{name}({', '.join(words)}){returns}"
    if len(line) <= 100:
        return line
    return "\n".join([f"{name}(", *(f"    {word}," for word in words), f"){returns}"])


def _code(text: str) -> str:
    return f"```text\n{text}\n```\n"


def _has_options(thing: type) -> bool:
    return dataclasses.is_dataclass(thing) and any(
        "help" in field.metadata for field in dataclasses.fields(thing)
    )


def _options(thing: type) -> str:
    """A table of the fields that this class adds, where they carry a help text."""
    if not _has_options(thing):
        return ""
    rows = ["| field | type | default | |", "|---|---|---|---|"]
    source = ast.parse(textwrap.dedent(inspect.getsource(thing))).body[0]
    own = {n.target.id: n for n in source.body if isinstance(n, ast.AnnAssign)}
    for field in dataclasses.fields(thing):
        if field.name not in own:
            continue
        kind = ast.unparse(own[field.name].annotation).replace("|", "\\|")
        absent = field.default is dataclasses.MISSING
        default = "" if absent else f"`{field.default!r}`"
        choices = field.metadata.get("choices")
        text = field.metadata.get("help", "") + (f" ({', '.join(choices)})" if choices else "")
        rows.append(f"| `{field.name}` | `{kind}` | {default} | {text} |")
    return "\n".join(rows) + "\n"


def _methods(thing: type) -> list[str]:
    """The documented methods and properties that the class itself defines."""
    parts = []
    for name, member in vars(thing).items():
        function = member.fget if isinstance(member, property) else member
        function = getattr(function, "__func__", function)
        if not inspect.isfunction(function) or not inspect.getdoc(function):
            continue
        if name.startswith("_") and name != "__call__":
            continue
        shown = f"{thing.__name__}.{name}"
        if isinstance(member, property):
            parts.append(_code(f"{shown}  # property") + "\n" + _text(inspect.getdoc(function)))
        else:
            parts.append(_code(_signature(shown, function)) + "\n" + _text(function.__doc__))
    return parts


def _text(docstring: str) -> str:
    """A docstring as Markdown: its sections become lists, indented samples stay code."""
    lines, section = [], False
    for line in inspect.cleandoc(docstring).splitlines():
        title = re.fullmatch(r"(Args|Returns|Raises|Yields):", line)
        if title:
            section = True
            lines += [f"**{'Arguments' if title[1] == 'Args' else title[1]}**", ""]
        elif section and (item := re.match(r"    (\w+(?:, \w+)*): (.*)", line)):
            lines.append(f"- `{item[1].replace(', ', '`, `')}`: {item[2]}")
        elif section:
            section = not line or line.startswith(" ")
            lines.append(f"  {line.strip()}".rstrip() if section and line else line)
        else:
            lines.append(line)
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
