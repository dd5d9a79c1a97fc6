"""Tasks by name, by the text of a puzzle and, where a model does not say its task, by its sizes.

Single tasks are registered; families (``maze10x10``, ``addition3``) build a task when its name or
its sizes are asked for; a name ``package.module:NAME`` imports the user's module first.
"""

import importlib
import inspect
import math
import re
from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Protocol

import numpy as np

from trm_mlx.errors import InputError
from trm_mlx.tasks.arc import ARC
from trm_mlx.tasks.arithmetic import ADDITION, MULTIPLICATION, Arithmetic
from trm_mlx.tasks.base import Task, WrongCells
from trm_mlx.tasks.maze import Maze
from trm_mlx.tasks.own_modules import check_known, remember, search_here
from trm_mlx.tasks.padded_sudoku import PaddedSudoku
from trm_mlx.tasks.puzzle_text import find_puzzles, too_many
from trm_mlx.tasks.sudoku import Sudoku


class Family(NamedTuple):
    """Tasks that differ in numbers, such as the side of their board.

    shown: the names, for messages.
    pattern: a regular expression for the names, whose groups are the numbers.
    build: the task with these numbers; `InputError` where there is none.
    numbers_for: those of the task with a ``vocab_size`` and ``seq_len``, if there is one.
    """

    shown: str
    pattern: str
    build: Callable[..., Task]
    numbers_for: Callable[[int, int], tuple[int, ...]]

    def named(self, name: str) -> Task | None:
        match = re.fullmatch(self.pattern, name)
        return self.build(*map(int, match.groups())) if match else None

    def fitting(self, vocab_size: int, seq_len: int) -> Task | None:
        try:
            task = self.build(*self.numbers_for(vocab_size, seq_len))
        except InputError:
            return None
        return task if (task.vocab_size, task.seq_len) == (vocab_size, seq_len) else None


class Sized(Protocol):
    """A ``ModelConfig`` or ``DatasetMetadata``, whose ``task`` is None where it is unknown."""

    vocab_size: int
    seq_len: int
    task: str | None


class Question(NamedTuple):
    """A puzzle to solve.

    place: where it stands, such as ``line 3``; text: as it is written there; task: the one whose
    puzzle it is; values: its cell values, uint8 ``[seq_len]``, unless error says why it is none;
    identifier and label: of a dataset's puzzle, its embedding and the cell values of its answer.
    """

    place: str
    text: str
    task: Task | None
    values: np.ndarray | None
    error: InputError | None = None
    identifier: int = 0
    label: np.ndarray | None = None


_TASKS: dict[str, Task] = {}
_FAMILIES = [
    Family(
        "sudoku4x4, 6x6, 9x9",
        r"sudoku(\d{1,2})x\1",
        Sudoku,
        lambda _, length: (math.isqrt(length),),
    ),
    Family("maze5x5 to 99x99", r"maze(\d{1,3})x\1", Maze, lambda _, length: (math.isqrt(length),)),
    Family(
        "addition1 to 9",
        r"addition(\d{1,2})",
        partial(Arithmetic, ADDITION),
        lambda _, length: ((length - 3) // 3,),
    ),
    Family(
        "multiplication1 to 9",
        r"multiplication(\d{1,2})",
        partial(Arithmetic, MULTIPLICATION),
        lambda _, length: ((length - 2) // 4,),
    ),
    Family(
        "sudoku4in4 to 9in29",
        r"sudoku(\d{1,2})in(\d{1,2})",
        PaddedSudoku,
        lambda vocabulary, length: (vocabulary - 3, math.isqrt(length)),
    ),
]


def register(task: Task) -> Task:
    """Register a task under its name, so that commands find it, and return it."""
    _TASKS[task.name] = task
    return task


def get(name: str) -> Task:
    """Return the task of a name; ``package.module:NAME`` imports the module, which registers it.

    Raises:
        InputError: there is no such task or module.
    """
    if not isinstance(name, str):
        raise InputError(f"a task has a name, such as 'sudoku9x9', not {type(name).__name__}")
    module, colon, own = name.rpartition(":")
    if colon:
        _import(module)
        remember(module)
        if own not in _TASKS:
            raise InputError(f"{module} registers no task {own!r}: call trm_mlx.tasks.register")
    if own in _TASKS:
        return _TASKS[own]
    for family in _FAMILIES:
        if (task := family.named(own)) is not None:
            return task
    raise InputError(f"no task {name!r}; choose {_known()}, or name your own, package.module:NAME")


def get_generator(text: str) -> tuple[Task, dict[str, int | str]]:
    """A task and options of its `generate`, of a text like ``maze30x30/kind=mixed``.

    Raises:
        InputError: see `get`, or the task has no such option.
    """
    name, *words = text.split("/")
    task = get(name)
    known = [*inspect.signature(task.generate).parameters][2:]  # after count and rng
    options: dict[str, int | str] = {}
    for word in words:
        option, _equals, value = word.partition("=")
        if option not in known or not value:
            remedy = f"write /{'=..., /'.join(known)}=..." if known else "leave it out"
            raise InputError(f"{text}: {name} has no such option; {remedy}")
        options[option] = int(value) if value.isdecimal() else value
    return task, options


def fitting(vocab_size: int, seq_len: int, name: str | None = None, rules: bool = True) -> Task:
    """Return the task called ``name``, whose sizes must be these, or else the first one of them.

    Args:
        name: as a model or a dataset states it; a module of the user's own is imported for it only
            where `check_known` allows that.
        rules: whether it must be able to generate puzzles and check answers, which ARC cannot.

    Raises:
        InputError: there is none, or the one named has other sizes.
    """
    if name is not None:
        if ":" in name:
            check_known(name)
        task = get(name)
        if (task.vocab_size, task.seq_len) != (vocab_size, seq_len):
            raise InputError(
                f"the task {name} has vocab_size {task.vocab_size} and seq_len "
                f"{task.seq_len}, not {vocab_size} and {seq_len}: correct the name"
            )
        return task
    for task in _TASKS.values():
        if (task.vocab_size, task.seq_len) == (vocab_size, seq_len):
            return task
    for family in _FAMILIES:
        if (task := family.fitting(vocab_size, seq_len)) is not None:
            return task
    if (vocab_size, seq_len) == (ARC.vocab_size, ARC.seq_len):
        if not rules:
            return ARC()
        raise InputError(
            "these are the sizes of ARC, which has no rule to check an answer by: score a model "
            "with trm eval --evaluators arc, see docs/arc.md"
        )
    raise InputError(
        f"no known task has vocab_size {vocab_size} and seq_len {seq_len} (there are {_known()}); "
        "register yours with trm_mlx.tasks.register"
    )


def task_of(sized: Sized, rules: bool = True) -> Task:
    """Return the task of a model's configuration or a dataset's metadata, see `fitting`.

    Raises:
        InputError: its task cannot be found, or has other sizes.
    """
    return fitting(sized.vocab_size, sized.seq_len, sized.task, rules)


def _known() -> str:
    return ", ".join([*_TASKS, *(family.shown for family in _FAMILIES)])


def _import(module: str) -> None:
    absent = InputError(
        f"no module {module!r}: write a task as package.module:NAME, and run from the folder that "
        "holds it, or set PYTHONPATH to that"
    )
    if not all(part.isidentifier() for part in module.split(".")):
        raise absent
    search_here()
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if not f"{module}.".startswith(f"{error.name}."):
            raise  # of something that the user's module imports
        raise absent from error


# By the text of puzzles


def read_puzzles(text: str, task: Task | None = None) -> list[Question]:
    """Read the puzzles of a text, in their order; those that cannot be read have an error.

    Args:
        task: the task expected; by default the kind and size of each puzzle are detected. A task
            without ``from_cells`` reads one puzzle a line, if any line is one, or else the whole
            text as one.

    Raises:
        InputError: nothing in it looks like a puzzle.
    """
    if not isinstance(text, str):
        raise InputError(f"puzzles are read from text, not {type(text).__name__}")
    if task is not None and task.from_cells is None:
        lines = {n: line for n, line in enumerate(text.splitlines(), start=1) if line.strip()}
        puzzles = [_parsed(f"line {number}", line, task) for number, line in lines.items()]
        if len(puzzles) > 1 and any(puzzle.error is None for puzzle in puzzles):
            return puzzles
        return [_parsed(f"line {min(lines, default=1)}", text, task)]
    puzzles = []
    for found in find_puzzles(text, task and task.text_name):
        its_task, values, error = task, None, found.error
        try:
            if error is None:
                its_task = task or get(found.name)
            if found.shape is not None and its_task and its_task.name == found.name:
                its_task = its_task.showing(*found.shape)
            if error is None:
                values = its_task.from_cells(found.cells)
        except InputError as problem:
            error = problem
        if error is not None and task is None:
            message = f"looks like {found.description}; {error}"
            cells = isinstance(error, WrongCells)
            error = WrongCells(message, error.cells) if cells else InputError(message)
        puzzles.append(Question(found.place, found.text, its_task, values, error))
    return puzzles


def read_puzzle(text: str, task: Task) -> Question:
    """Read the one puzzle of a task in a text; what is none, or several, has an error."""
    if task.from_cells is None:
        return _parsed("line 1", text, task)
    try:
        puzzle, *others = read_puzzles(text, task)
    except InputError as error:
        return Question("line 1", text, task, None, error)
    if others and puzzle.error is None:
        return puzzle._replace(values=None, error=too_many(1 + len(others)))
    return puzzle


def _parsed(place: str, text: str, task: Task) -> Question:
    try:
        return Question(place, text, task, task.parse(text))
    except InputError as error:
        return Question(place, text, task, None, error)
