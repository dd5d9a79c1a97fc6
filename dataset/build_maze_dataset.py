"""Launcher of ``trm build maze``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from trm_mlx.cli import main

if __name__ == "__main__":
    sys.exit(main(["build", "maze", *sys.argv[1:]]))
