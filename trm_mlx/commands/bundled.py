"""The model that a puzzle is given to where no checkpoint is named."""

from collections.abc import Callable

from trm_mlx.errors import InputError
from trm_mlx.models.weights import bundled, read_config
from trm_mlx.tasks import fitting
from trm_mlx.tasks.base import Task


def bundled_model(suits: Callable[[Task], bool], source: str) -> str:
    """The name of the first bundled model whose task suits.

    Raises:
        InputError: there is none, by ``source``, what was to be solved.
    """
    tasks = {}
    for name, folder in bundled().items():
        config = read_config(folder)
        tasks[name] = fitting(config.vocab_size, config.seq_len)
        if suits(tasks[name]):
            return name
    known = ", ".join(f"{name} ({task.name})" for name, task in tasks.items()) or "none"
    raise InputError(
        f"no bundled model takes {source}; there are: {known}. Correct it, or name a model with "
        "--checkpoint DIR"
    )


def accepts(task: Task, text: str) -> bool:
    """Whether ``text`` is a puzzle of this task."""
    try:
        task.parse(text)
    except InputError:
        return False
    return True
