"""The model that a puzzle is given to where no checkpoint is named."""

from collections.abc import Callable, Sequence

from trm_mlx.errors import InputError
from trm_mlx.models.weights import bundled, read_config
from trm_mlx.tasks import fitting
from trm_mlx.tasks.base import Task


def bundled_model(suits: Callable[[Task], bool], source: str, texts: Sequence[str] = ()) -> str:
    """The name of the first bundled model whose task suits.

    Raises:
        InputError: there is none, by ``source``, what was to be solved; with the reason why the
            task whose puzzles are nearest in length cannot read the first of ``texts``.
    """
    tasks = {}
    for name, folder in bundled().items():
        config = read_config(folder)
        tasks[name] = fitting(config.vocab_size, config.seq_len)
        if suits(tasks[name]):
            return name
    known = ", ".join(f"{name} ({task.name})" for name, task in tasks.items()) or "none"
    reason = "no bundled model takes it"
    if tasks and texts:
        cells = len("".join(texts[0].split()))
        nearest = min(tasks.values(), key=lambda task: abs(task.seq_len - cells))
        reason = refusal(nearest, texts[0]) or reason
    raise InputError(
        f"{source}: {reason}. Models to choose from: {known}, or yours with --checkpoint DIR"
    )


def refusal(task: Task, text: str) -> str | None:
    """Why ``text`` is no puzzle of this task, if it is none."""
    try:
        task.parse(text)
    except InputError as error:
        return str(error)
    return None
