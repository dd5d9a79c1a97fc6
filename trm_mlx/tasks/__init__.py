"""What puzzles are: text, tokens, rules, symmetries, generation."""

from trm_mlx.tasks.base import Puzzles, Task
from trm_mlx.tasks.registry import fitting, get, get_generator, register

__all__ = ["Puzzles", "Task", "fitting", "get", "get_generator", "register"]
