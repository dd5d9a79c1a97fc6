"""What puzzles are: text, tokens, rules, symmetries, generation."""

from trm_mlx.tasks.base import BoardInput, BoardStyle, Puzzles, Task
from trm_mlx.tasks.own_modules import check_known
from trm_mlx.tasks.registry import (
    PuzzleText,
    fitting,
    get,
    get_generator,
    read_puzzles,
    register,
    task_of,
)

__all__ = [
    "BoardInput",
    "BoardStyle",
    "PuzzleText",
    "Puzzles",
    "Task",
    "check_known",
    "fitting",
    "get",
    "get_generator",
    "read_puzzles",
    "register",
    "task_of",
]
