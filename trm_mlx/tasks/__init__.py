"""What puzzles are: text, tokens, rules, symmetries, generation."""

from trm_mlx.tasks.base import BoardInput, BoardStyle, Puzzles, Task
from trm_mlx.tasks.own_modules import check_known
from trm_mlx.tasks.registry import (
    Question,
    fitting,
    get,
    get_generator,
    read_puzzle,
    read_puzzles,
    register,
    task_of,
)

__all__ = [
    "BoardInput",
    "BoardStyle",
    "Puzzles",
    "Question",
    "Task",
    "check_known",
    "fitting",
    "get",
    "get_generator",
    "read_puzzle",
    "read_puzzles",
    "register",
    "task_of",
]
