"""Compiles what numba compiles to make and read puzzles, in a process beside the server.

``python -m trm_mlx.demo.compile_tasks maze10x10`` leaves the machine code on disk, where the server
finds it, so that the first visit to a model need not wait for seconds.
"""

import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np

from trm_mlx import tasks


@contextmanager
def compiling(names: Iterable[str]) -> Iterator[None]:
    """Compile for the tasks of these names meanwhile."""
    command = [sys.executable, "-m", __name__, *names]
    nothing = subprocess.DEVNULL
    with subprocess.Popen(command, stdin=nothing, stdout=nothing, stderr=nothing) as process:
        try:
            yield
        finally:
            process.kill()


if __name__ == "__main__":
    os.nice(10)  # a puzzle being solved comes first
    for name in sys.argv[1:]:
        task = tasks.get(name)
        (question,) = task.generate(1, np.random.default_rng()).questions
        task.parse(task.render(question))
