"""The tasks there are, by name and by the sizes of the models that solve them."""

from trm_mlx.errors import InputError
from trm_mlx.tasks.base import Task
from trm_mlx.tasks.sudoku import BOX_ROWS, Sudoku

_TASKS: dict[str, Task] = {}


def register(task: Task) -> Task:
    """Make a task known by its name, so that commands find it; returns it."""
    _TASKS[task.name] = task
    return task


def get(name: str) -> Task:
    """The task of this name; `InputError` with the known names if there is none."""
    if name not in _TASKS:
        raise InputError(f"no task {name!r}; choose one of {', '.join(_TASKS)}")
    return _TASKS[name]


def fitting(vocab_size: int, seq_len: int) -> Task:
    """The task whose tokens and boards have these sizes; `InputError` if there is none."""
    for task in _TASKS.values():
        if (task.vocab_size, task.seq_len) == (vocab_size, seq_len):
            return task
    sizes = ", ".join(f"{t.name} {t.vocab_size} and {t.seq_len}" for t in _TASKS.values())
    raise InputError(
        f"no known task has vocab_size {vocab_size} and seq_len {seq_len} ({sizes}); "
        "register yours with trm_mlx.tasks.register"
    )


for _size in BOX_ROWS:
    register(Sudoku(_size))
