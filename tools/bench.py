"""Times training step, forward pass and data loading: ``trm bench`` (see ``--help``)."""

import sys

from trm_mlx.cli import main

if __name__ == "__main__":
    sys.exit(main(["bench", *sys.argv[1:]]))
