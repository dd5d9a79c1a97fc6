"""Launcher of ``trm solve``."""

import sys

from trm_mlx.cli import main

if __name__ == "__main__":
    sys.exit(main(["solve", *sys.argv[1:]]))
