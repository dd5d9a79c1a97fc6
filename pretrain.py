"""Launcher of ``trm train``."""

import sys

from trm_mlx.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
