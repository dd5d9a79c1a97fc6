"""Solving puzzles. The package itself can be called, as ``trm_mlx.solve(text)``.

``solver`` is the interface, ``search`` says what is tried for a puzzle and which answer is chosen,
``scheduler`` which attempt runs next, and ``batcher`` runs them in the rows of a batch.
"""

import sys
import types
from typing import NamedTuple


class Answer(NamedTuple):
    """The answer to one puzzle.

    text: the answer in one line; solved: whether it obeys the rules of the task; steps: supervision
    steps of the trajectory it is from.
    """

    text: str
    solved: bool
    steps: int


def solve(text: str, checkpoint: str | None = None) -> Answer:
    """Solve one puzzle, in any spelling that ``docs/solving.md`` lists, as ``trm solve`` does.

    Args:
        checkpoint: a checkpoint or run folder, the name of a bundled model, or ``owner/name`` on
            the Hugging Face hub; by default the bundled one for this kind of puzzle.

    Raises:
        InputError: the text is no puzzle, or several, or no model solves its kind.
    """
    from trm_mlx.convert.load import load
    from trm_mlx.errors import InputError
    from trm_mlx.solve.questions import Source, bundled_model, read_questions
    from trm_mlx.solve.search import DEFAULT_SEARCH
    from trm_mlx.solve.solver import Solver
    from trm_mlx.tasks import task_of

    if not isinstance(text, str):
        raise InputError(f"a puzzle is text, such as '53..7....', not {type(text).__name__}")
    source = Source("the puzzle", text)
    model, config = load(checkpoint or bundled_model(source))
    task = task_of(config, rules=False)
    if not task.has_rules:
        raise InputError(f"{checkpoint} solves the puzzles of its dataset alone: use Solver")
    question, *others = read_questions(source, task)
    if question.error is not None:
        raise question.error
    if others:
        raise InputError(f"{len(others) + 1} puzzles where one is wanted: solve them one by one")
    values, task = question.values, question.task
    solver = Solver(model, search=DEFAULT_SEARCH, task=task)
    (solution,) = solver.solve([task.encode(values)])
    answer = task.decode(solution.answer)
    return Answer(task.line(answer), bool(task.check(values, answer)), solution.steps)


class _Callable(types.ModuleType):
    """A module that can be called: its name is the function's too."""

    def __call__(self, text: str, checkpoint: str | None = None) -> Answer:
        return solve(text, checkpoint)


sys.modules[__name__].__class__ = _Callable
