"""The registry: tasks by name, by sizes, in families, and from a user's module."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from trm_mlx import tasks
from trm_mlx.errors import InputError
from trm_mlx.tasks import registry
from trm_mlx.tasks.arc import ARC
from trm_mlx.tasks.base import Task

NAMES = (
    *("sudoku4x4", "sudoku6x6", "sudoku9x9"),
    *(f"maze{side}x{side}" for side in range(5, 100)),
    *(f"{noun}{digits}" for noun in ("addition", "multiplication") for digits in range(1, 10)),
)


class Toy(Task):
    name = "toy"
    seq_len = 3
    vocab_size = 77


@pytest.fixture
def fresh(monkeypatch):
    """A registry that forgets what the test registers."""
    monkeypatch.setattr(registry, "_TASKS", {})
    monkeypatch.setattr(sys, "path", sys.path.copy())


def test_every_name_and_its_sizes_find_the_same_task():
    assert [tasks.get(name).name for name in NAMES] == list(NAMES)
    for name in NAMES:
        task = tasks.get(name)
        assert tasks.fitting(task.vocab_size, task.seq_len) == task
        assert tasks.fitting(task.vocab_size, task.seq_len, name) == task
    sizes = {(tasks.get(name).vocab_size, tasks.get(name).seq_len) for name in NAMES}
    assert len(sizes) == len(NAMES), "two tasks have the same sizes"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("chess", "no task 'chess'; choose sudoku4x4, 6x6, 9x9, maze5x5 to 99x99, "),
        ("maze12x13", "no task 'maze12x13'"),
        ("maze12", "no task 'maze12'"),
        ("", "no task ''"),
        ("sudoku5x5", "no Sudoku of size 5; use 4, 6 or 9"),
        ("maze4x4", "no maze of side 4; use 5 to 99"),
        ("addition0", "no addition of 0 digits; use 1 to 9"),
        ("no_such_module:x", "no module 'no_such_module'"),
        ("no_such.module:x", r"no module 'no_such.module'"),
        ("json.nothing:x", r"no module 'json.nothing'"),
        ("json:x", "json registers no task 'x': call trm_mlx.tasks.register"),
        (":x", "no module ''"),
        ("..json:x", "no module '..json'"),
    ],
)
def test_names_that_there_are_not(fresh, name, message):
    with pytest.raises(InputError, match=message) as caught:
        tasks.get(name)
    assert "\n" not in str(caught.value)


def test_sizes_that_no_task_has(fresh):
    for sizes in ((6, 9), (6, 17), (14, 13), (13, 900)):
        with pytest.raises(InputError, match=f"vocab_size {sizes[0]} and seq_len {sizes[1]} "):
            tasks.fitting(*sizes)
    with pytest.raises(InputError, match=r"ARC, which has no rule .* trm eval --evaluators arc"):
        tasks.fitting(12, 900)
    assert tasks.fitting(12, 900, rules=False) == ARC()
    with pytest.raises(InputError, match="the task maze6x6 has vocab_size 6 and seq_len 36, not 8"):
        tasks.fitting(8, 36, "maze6x6")


def test_register(fresh):
    toy = Toy()
    assert tasks.register(toy) is toy
    assert tasks.get("toy") is toy
    assert tasks.fitting(77, 3) is toy
    with pytest.raises(InputError, match="choose toy, sudoku4x4"):
        tasks.get("chess")


def test_a_module_of_the_user_is_imported(fresh, tmp_path, monkeypatch):
    (tmp_path / "my_puzzles").mkdir()
    (tmp_path / "my_puzzles" / "knights.py").write_text(
        "from trm_mlx import tasks\n"
        "class Knights(tasks.Task):\n    name, seq_len, vocab_size = 'knights', 64, 70\n"
        "tasks.register(Knights())\n"
    )
    monkeypatch.chdir(tmp_path)
    assert tasks.get("my_puzzles.knights:knights").seq_len == 64
    assert tasks.fitting(70, 64, "my_puzzles.knights:knights").name == "knights"


def test_what_a_user_module_lacks_is_its_own_error(fresh, tmp_path, monkeypatch):
    (tmp_path / "broken_puzzles.py").write_text("import no_such_library\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        tasks.get("broken_puzzles:x")


def test_what_a_task_inherits():
    board = np.array([[0, 1, 2]], np.uint8)
    assert Toy().encode(board).tolist() == [[1, 2, 3]]
    assert Toy().decode([[0, 1, 2, 3]]).tolist() == [[0, 0, 1, 2]]
    symmetry = Toy().sample_symmetry(np.random.default_rng(0), 1)
    assert (symmetry.inverse().apply(symmetry.apply(board)) == board).all()
    assert Toy().split_keys(board, board) == [b"\0\1\2"]


class Letters(Task):
    """A square that is rendered with lines between its rows, in symbols of its own."""

    name, seq_len, vocab_size = "letters", 16, 5

    def render(self, values, givens=None):
        rows = np.array(list(".ABC"))[values].reshape(4, 4)
        return "\n----\n".join("".join(row) for row in rows)

    def line(self, values):
        return "".join(np.array(list(".ABC"))[values])


class Numbers(Task):
    name, seq_len, vocab_size = "numbers", 6, 14

    def render(self, values, givens=None):
        return "\n".join(" ".join(map(str, row)) for row in values.reshape(2, 3))


def test_the_board_of_a_task_that_says_nothing_of_it():
    letters, numbers = Letters(), Numbers()
    style, typed = letters.board_style(np.zeros((1, 16), np.uint8)), letters.board_input()
    assert (style.rows, style.columns, "".join(style.symbols)) == (4, 4, " ABC")
    assert typed.blank == "." * 16
    assert typed.keys == {".": "blank", "A": "A", "B": "B", "C": "C"}
    assert (typed.empty, typed.erase, typed.example) == (".", ".", None)
    style, typed = numbers.board_style(np.zeros((1, 6), np.uint8)), numbers.board_input()
    assert (style.rows, style.columns) == (2, 3)
    assert list(style.symbols) == [str(value) for value in range(13)]
    assert not typed.keys, "a cell of two characters is not typed with one key"


# A new task touches one file in tasks/, its line in the registry, and one builder.

PACKAGE = Path(tasks.__file__).parents[1]


def test_nothing_but_builders_names_a_task():
    """Only what builds, cuts, adapts to, judges and draws ARC, which has no rules, asks for it."""
    allowed = {"registry.py", "sudoku.py", "padded_sudoku.py", "maze.py", "arithmetic.py", "arc.py"}
    allowed |= {"adapt.py", "canvases.py", "arc_canvas.py", "arc_rows.py"}
    for path in sorted(PACKAGE.rglob("*.py")):
        room = path.relative_to(PACKAGE).parts[0]
        found = re.findall(r"tasks(?:\.| import )(sudoku|maze|arithmetic|arc)\b", path.read_text())
        if room in ("evaluate", "adaptation"):
            found = [name for name in found if name != "arc"]
        assert not found or room == "builders" or path.name in allowed, path


def test_nothing_switches_on_the_kind_of_a_task():
    names = r"""["'](sudoku|maze|arithmetic|addition|multiplication|arc)"""
    for path in sorted(PACKAGE.rglob("*")):
        if path.suffix in (".py", ".js", ".html") and path.parent.name in ("view", "demo", "page"):
            assert not re.findall(names, path.read_text("utf-8")), path
