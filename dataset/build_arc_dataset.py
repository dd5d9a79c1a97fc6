"""Launcher of ``trm build arc``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from trm_mlx.cli import main

if __name__ == "__main__":
    sys.exit(main(["build", "arc", *sys.argv[1:]]))
