"""Launcher of ``trm solve``; without arguments and input it solves an example."""

import io
import sys

from trm_mlx.cli import main

EXAMPLE = "..4.9..2..5.6......7.2...9...64......9..5.2..7....1.8.2......43.3....5.......8.7."
WAYS = f"""\
An example for the bundled Sudoku model; to solve your own:
  python single_inference.py "{EXAMPLE}"
  python single_inference.py puzzles.txt
  python single_inference.py --checkpoint checkpoints/RUN --data data/DATASET --index 0
"""


def solves_an_example(words: list[str]) -> bool:
    """Whether nothing is asked for, not even on standard input, which is kept for later readers."""
    if words or sys.stdin is None or sys.stdin.isatty():
        return not words
    try:
        text = sys.stdin.buffer.read()
    except OSError:  # closed
        return True
    sys.stdin = io.TextIOWrapper(io.BytesIO(text))
    return not text.strip()


if __name__ == "__main__":
    words = sys.argv[1:]
    if solves_an_example(words):
        print(WAYS)
        words = [EXAMPLE]
    sys.exit(main(["solve", *words]))
