"""What puzzles are: text, tokens, rules, symmetries, generation."""

from trm_mlx.tasks.registry import fitting, get, register

__all__ = ["fitting", "get", "register"]
