"""``trm demo`` as a process of its own."""

import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]


@contextmanager
def served(*words):
    """The process and the address it prints; it is interrupted at the end, unless it has ended."""
    with subprocess.Popen(
        [sys.executable, "-m", "trm_mlx", "demo", "--port", "0", "--no-browser", *words],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as process:
        try:
            yield process, re.match(r"http://127\.0\.0\.1:\d+/(?= )", process.stdout.readline())[0]
            process.send_signal(signal.SIGINT)
            process.wait(timeout=30)
        finally:
            process.kill()
