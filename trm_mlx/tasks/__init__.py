"""What puzzles are: text, tokens, rules, symmetries, generation."""

from trm_mlx.tasks.base import BoardInput, BoardStyle, Puzzles, Task
from trm_mlx.tasks.registry import fitting, get, get_generator, register, task_of

__all__ = [
    "BoardInput", "BoardStyle", "Puzzles", "Task", "fitting", "get", "get_generator", "register",
    "task_of",
]  # fmt: skip
