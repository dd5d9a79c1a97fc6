"""Launcher of ``trm convert``."""

import sys

from trm_mlx.cli import main

if __name__ == "__main__":
    sys.exit(main(["convert", *sys.argv[1:]]))
